"""Kept figures change nothing but the time: same page, and whatever is wrong with a kept file, it is drawn anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from circuit_claims.report import write_report
from circuit_claims.report.figures import cache
from circuit_claims.report.figures.cache import drawn_once, figure_cache
from markupsafe import Markup

from tests.report.sample import write_events


class Plot:
    """A plot function that counts how often it draws."""

    def __init__(self) -> None:
        self.drawn = 0
        self.draw = drawn_once(self._draw)

    def _draw(self, values: object, name: str = "a") -> Markup:
        self.drawn += 1
        return Markup(f"<svg>{name} {values!r}</svg>")


def test_second_report_has_the_same_bytes_and_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample_run = write_events(tmp_path / "run")
    plain = write_report(sample_run).index.read_bytes()
    first = write_report(sample_run, figures=tmp_path / "figures").index.read_bytes()
    assert len(list((tmp_path / "figures").glob("*.svg"))) > 3
    monkeypatch.setattr("circuit_claims.report.figures.svg.draw_svg", None)
    for module in ("plots", "plots_heads", "stacked", "grid_map"):
        monkeypatch.setattr(f"circuit_claims.report.figures.{module}.draw_svg", None)
    second = write_report(sample_run, figures=tmp_path / "figures").index.read_bytes()
    assert plain == first == second


@pytest.mark.parametrize("other", [(1.0, 2.0), [1.0, 2.000000000000001], [1.0, float("nan")], [1, 2]])
def test_what_is_shown_decides(tmp_path: Path, other: object) -> None:
    plot = Plot()
    with figure_cache(tmp_path):
        for _ in range(2):
            plot.draw([1.0, 2.0])
        assert plot.drawn == 1
        assert plot.draw(other) == Markup(f"<svg>a {other!r}</svg>")
        assert plot.draw([1.0, 2.0], name="b") == Markup("<svg>b [1.0, 2.0]</svg>")
    assert plot.drawn == 3


def test_other_code_draws_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = Plot()
    with figure_cache(tmp_path):
        plot.draw([1.0])
        monkeypatch.setattr(cache, "drawing_code", lambda: "edited")
        plot.draw([1.0])
    assert plot.drawn == 2


@pytest.mark.parametrize("harm", [lambda data: data[:-3], lambda data: data.replace(b"svg", b"svh"), lambda data: b""])
def test_torn_or_altered_figures_are_drawn_anew(tmp_path: Path, harm: object) -> None:
    plot = Plot()
    with figure_cache(tmp_path):
        good = plot.draw([1.0])
        (path,) = tmp_path.glob("*.svg")
        path.write_bytes(harm(path.read_bytes()))  # type: ignore[operator]
        assert plot.draw([1.0]) == good
        assert plot.drawn == 2
        assert plot.draw([1.0]) == good
    assert plot.drawn == 2


def test_no_folder_to_write_to_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    plot = Plot()
    with figure_cache(tmp_path / "file"):
        assert plot.draw([1.0]) == Markup("<svg>a [1.0]</svg>")


def test_outside_nothing_is_kept(tmp_path: Path) -> None:
    plot = Plot()
    with figure_cache(tmp_path):
        pass
    plot.draw([1.0])
    plot.draw([1.0])
    assert plot.drawn == 2
    assert not list(tmp_path.iterdir())
