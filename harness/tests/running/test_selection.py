"""Which subjects a claim is asked of: every subject of the paper stays in sight, and no path gets a paper's name."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from circuit_claims.judging.claims import Claim
from circuit_claims.keeping.profiles import PROFILES
from circuit_claims.running.options import options_line
from circuit_claims.running.run import quoted
from circuit_claims.running.selection import Choice, Selection, SelectionError, label_of, parse_subjects
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.toy_project import CLAIM


@dataclass(frozen=True)
class Row:
    default: bool = False
    format: str = "hf"


REGISTRY = {
    "small": Row(default=True), "large": Row(default=True),
    "paper-1": Row(), "paper-2": Row(), "words": Row(format="tokenizer"),
}  # fmt: skip
DEFAULTS = ("small", "large")
OWN = frozenset({"paper-1", "paper-2", "words", "L2W256-3m-rr", "L2W256-s-3"})


def selection(text="", profile="standard", short=("profile", "subjects")):
    wanted = parse_subjects(text, REGISTRY, DEFAULTS, own=OWN)
    return Selection(wanted, DEFAULTS, PROFILES[profile], frozenset(REGISTRY), short=frozenset(short))


def claim(others=True, **changes):
    (raw,) = tomllib.loads(CLAIM.format(id="TY-01", subjects='["paper-1", "paper-2"]'))["claim"]
    return Claim.model_validate({**raw, "paper": "toy", "others": others, **changes})


def asked(choices):
    return {choice.subject: choice.asked for choice in choices}


def test_a_plain_run_asks_the_paper_s_subjects_and_the_defaults():
    choices = selection().choices(claim())
    assert [choice.subject for choice in choices] == ["paper-1", "paper-2", "small", "large"]
    assert all(choice.asked for choice in choices)
    assert {choice.subject: choice.fetch for choice in choices} == {
        "paper-1": False, "paper-2": False, "small": True, "large": True,
    }  # fmt: skip


def test_a_claim_of_the_paper_s_models_only_is_not_asked_of_others():
    assert asked(selection().choices(claim(False))) == {"paper-1": True, "paper-2": True}
    assert asked(selection("large").choices(claim(False))) == {"paper-1": False, "paper-2": False}


def test_subjects_left_out_stay_in_sight_with_the_line_that_asks_them():
    choices = selection("paper-2,large").choices(claim())
    assert asked(choices) == {"paper-1": False, "paper-2": True, "large": True}
    left = choices[0]
    assert left == Choice(
        "paper-1", False, False, "not among --subjects paper-2,large", "pytest claims/ --subjects paper-1"
    )
    assert choices[1].fetch, "what is asked for by name is fetched"


def test_the_quick_profile_asks_one_default_and_names_the_way_to_the_others():
    choices = selection(profile="quick").choices(claim())
    assert asked(choices) == {"paper-1": True, "paper-2": True, "small": True, "large": False}
    assert choices[3].reason == "the quick profile asks small only"
    assert choices[3].command == "pytest claims/ --profile standard"


def test_lines_to_type_spell_options_as_this_session_knows_them():
    """Where another plugin has the short name, it would get what is typed."""
    (*_, left) = selection(profile="quick", short=("subjects",)).choices(claim())
    assert left.command == "pytest claims/ --claims-profile standard"
    (left, *_) = selection("paper-2", short=("profile",)).choices(claim())
    assert left.command == "pytest claims/ --claims-subjects paper-1"
    assert left.reason == "not among --claims-subjects paper-2"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ()),
        ("default", ("small", "large")),
        ("paper", ("paper-1", "paper-2")),
        ("all", ("small", "large", "paper-1", "paper-2")),
        (" large , default,, ", ("large", "small")),
        ("words", ("words",)),
    ],
)
def test_groups_and_names_are_read(text, names):
    assert parse_subjects(text, REGISTRY, DEFAULTS, own=OWN) == names


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(SelectionError, match=r"unknown subject 'paper-3'\n.*\n.*nearest   paper-2, paper-1"):
        parse_subjects("small,paper-3", REGISTRY, DEFAULTS)


def test_a_path_is_a_subject_under_its_last_part(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    assert parse_subjects(str(tmp_path / "mine"), REGISTRY, DEFAULTS) == (str(tmp_path / "mine"),)
    monkeypatch.chdir(tmp_path)
    assert [label_of(name, REGISTRY) for name in ("mine", "./mine/", str(tmp_path / "mine"))] == ["mine"] * 3


def test_a_folder_named_like_a_paper_s_model_does_not_count_as_it(tmp_path):
    """The scope of a verdict hangs on the name: weights of unknown origin must never reproduce a paper."""
    folder = tmp_path / "paper-1"
    folder.mkdir()
    chosen = selection(str(folder))
    assert chosen.label(str(folder)) == "paper-1 (local)"
    assert claim().scope_of(chosen.label(str(folder))) == "generalisation"
    assert claim().scope_of(chosen.label("paper-1")) == "reproduction"


def test_two_folders_of_one_name_are_refused(tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "mine").mkdir(parents=True)
    both = f"{tmp_path / 'a' / 'mine'},{tmp_path / 'b' / 'mine'}"
    with pytest.raises(SelectionError, match="both called mine"):
        parse_subjects(both, REGISTRY, DEFAULTS)
    parse_subjects(f"{tmp_path / 'a' / 'mine'},{tmp_path / 'a' / 'mine'}", REGISTRY, DEFAULTS)


@given(st.lists(st.sampled_from([*REGISTRY, "default", "paper", "all"]), max_size=6), st.booleans())
def test_no_subject_of_the_paper_ever_drops_out_or_comes_twice(words, others):
    choices = selection(",".join(words)).choices(claim(others))
    names = [choice.subject for choice in choices]
    assert names[:2] == ["paper-1", "paper-2"]
    assert len(set(names)) == len(names)
    assert all(choice.asked or (choice.reason and choice.command) for choice in choices)


def test_options_are_repeated_as_they_would_be_typed():
    plain = {"subjects": "", "models_dir": None, "device": "auto", "profile": "standard", "store": None}
    plain["short"] = {"subjects", "store"}
    assert options_line(SimpleNamespace(**plain)) == ""
    given_ = SimpleNamespace(**{**plain, "subjects": "small,large", "models_dir": "my models", "store": "$HOME/x"})
    assert options_line(given_) == "--subjects small,large --claims-models-dir 'my models' --store '$HOME/x'"


def test_a_node_id_is_quoted_for_the_shell():
    assert quoted("claims/a/test_b.py::test_c[gpt2 (local)]") == '"claims/a/test_b.py::test_c[gpt2 (local)]"'
    assert quoted("test_b.py::test_c[$(touch x)]") == "'test_b.py::test_c[$(touch x)]'"
