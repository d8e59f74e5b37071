"""Rows of runs.toml: read as they stand, refused where they do not say what they must."""

from __future__ import annotations

import pytest
from circuit_claims.models.errors import RegistryError
from circuit_claims.models.runs import load_runs

ROW = '[[run]]\nname = "{}"\nkind = "sea"\ntitle = "t"\nlicence = "l"\nsource = "s"\n'


def test_rows_of_several_files_are_read_in_order(tmp_path):
    (tmp_path / "a.toml").write_text("schema = 1\n" + ROW.format("x") + "settings = { depth = 3 }\n")
    (tmp_path / "b.toml").write_text("schema = 1\n" + ROW.format("y"))
    rows = load_runs(tmp_path / "a.toml", tmp_path / "b.toml")
    assert [*rows] == ["x", "y"]
    assert (rows["x"].kind, rows["x"].settings, rows["y"].settings) == ("sea", {"depth": 3}, {})
    assert load_runs() == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"run: expected at least one table \[\[run\]\]"),
        ("schema = 1\n[[run]]\nname = 'x'\n", "run x / title: Field required"),
        ("nothing [", "is not TOML"),
        (f"schema = 1\n{ROW.format('x')}depth = 3\n", "run x / depth: Extra inputs"),
    ],
)
def test_a_file_that_does_not_say_what_it_must_is_refused(tmp_path, text, said):
    (tmp_path / "runs.toml").write_text(text)
    with pytest.raises(RegistryError, match=said):
        load_runs(tmp_path / "runs.toml")


def test_a_doubled_name_names_both_files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text("schema = 1\n" + ROW.format("x"))
    with pytest.raises(RegistryError, match="found twice: x, first in") as caught:
        load_runs(tmp_path / "a.toml", tmp_path / "b.toml")
    assert all(str(tmp_path / f"{name}.toml") in str(caught.value) for name in ("a", "b"))
