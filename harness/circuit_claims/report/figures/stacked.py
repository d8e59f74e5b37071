"""Stacked bars of shares, one bar a row: measured rows and the paper's beside them, told apart by more than colour."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from circuit_claims.judging.evidence import StackedBars, StackedRow
from circuit_claims.judging.numbers import number
from circuit_claims.report.figures.axes import WIDTH, C, axes_at, finish, finite, name_rows, row_names
from circuit_claims.report.figures.cache import drawn_once
from circuit_claims.report.figures.palette import SERIES
from circuit_claims.report.figures.svg import draw_svg
from circuit_claims.report.text import one_line, shorten

HATCHES = ("", "////", "----", "\\\\\\\\", "xxxx", "++++")
NARROW = 0.055
LEGEND_ROW = 17


@drawn_once
def stacked(evidence: StackedBars, name: str, title: str) -> Markup:
    """One bar a row, its segments in the order given; what is missing to one is left blank, a percentage in each.

    A row with `paper` set is drawn with a bold edge and the word paper in its label.
    """
    segments, rows = [str(item) for item in evidence.segments][:SERIES], list(evidence.rows)
    names = row_names([str(row.label) for row in rows])
    top = 14 + LEGEND_ROW * math.ceil(len(segments) / 2)
    height = top + 44 + names.height * len(rows)

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, names.left, 14, top, 40)
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        for place, row in enumerate(rows):
            _bar(axes, place, finite(row.values)[: len(segments)], bool(row.paper))
        name_rows(axes, names)
        finish(axes, str(evidence.label))
        _legend(figure, height, segments)

    return draw_svg(paint, name, title, _spoken(segments, rows), WIDTH, height)


def _bar(axes: Any, place: int, values: list[float], paper: bool) -> None:
    start = 0.0
    for index, value in enumerate(values):
        if not math.isfinite(value) or value <= 0:
            continue
        colour = C[f"series{index}"]
        axes.barh(place, value, left=start, height=0.74, color=colour, alpha=0.3, linewidth=0)
        axes.barh(place, value, left=start, height=0.74, facecolor="none", edgecolor=colour, hatch=HATCHES[index],
                  linewidth=2.2 if paper else 0.8)  # fmt: skip
        if value >= NARROW:
            # A plate of the page's ground: figures cannot be read on hatching.
            plate = {"boxstyle": "round,pad=0.12", "facecolor": C["ground"], "edgecolor": "none", "alpha": 0.85}
            axes.text(start + value / 2, place, f"{100 * value:.0f}", color=C["ink"], ha="center", va="center",
                      fontsize=11, fontweight="bold", bbox=plate)  # fmt: skip
        start += value


def _legend(figure: Any, height: float, segments: list[str]) -> None:
    from matplotlib.patches import Rectangle

    for index, words in enumerate(segments):
        x, y = 10 + (WIDTH / 2 - 10) * (index % 2), 12 + LEGEND_ROW * (index // 2)
        colour, box = C[f"series{index}"], (x / WIDTH, 1 - (y + 5) / height)
        size = (22 / WIDTH, 11 / height)
        figure.add_artist(Rectangle(box, *size, facecolor=colour, alpha=0.3, linewidth=0))
        figure.add_artist(
            Rectangle(box, *size, facecolor="none", edgecolor=colour, hatch=HATCHES[index], linewidth=0.8)
        )
        shown = shorten(one_line(words), 22)
        figure.text((x + 28) / WIDTH, 1 - y / height, shown, color=C["ink"], va="center", fontsize=11)


def _spoken(segments: list[str], rows: list[StackedRow]) -> str:
    said = []
    for row in rows:
        parts = [
            f"{segment} {number(100 * value)} %"
            for segment, value in zip(segments, finite(row.values), strict=False)
            if math.isfinite(value)
        ]
        said.append(f"{row.label}: {', '.join(parts) or 'not given'}")
    return "; ".join(said) + "."
