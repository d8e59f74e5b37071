"""A heat map with named rows and columns, and cells that are outlined: steering tables, feature logits."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from circuit_claims.judging.evidence import GridMap
from circuit_claims.judging.numbers import number
from circuit_claims.report.figures.axes import LABEL, WIDTH, C, axes_at, finite, style
from circuit_claims.report.figures.cache import drawn_once
from circuit_claims.report.figures.plots import cells, limits, scale_bar
from circuit_claims.report.figures.svg import draw_svg
from circuit_claims.report.text import one_line, shorten

TALLEST, SMALLEST, LARGEST = 460.0, 4.0, 18.0
MOST_NAMES = 26
NAME = 14
TOP = 26
STEPS = (1, 2, 5, 10, 20, 25, 50, 100)


@drawn_once
def grid_map(evidence: GridMap, name: str, title: str) -> Markup:
    """Cells in steps of one hue; `marks`, a list of (row, column), are outlined; a cell without a value is crossed out.

    Where there are more rows or columns than names fit, every second, fifth, tenth, ... name is written.
    """
    values = [finite(row) for row in evidence.values]
    rows, columns = ([shorten(one_line(one), NAME) for one in names] for names in (evidence.rows, evidence.columns))
    known = [value for row in values for value in row if math.isfinite(value)]
    low, high = limits(evidence.vmin, evidence.vmax, known)
    cell = max(SMALLEST, min(LARGEST, TALLEST / max(len(rows), 1)))
    turned = max(map(len, columns), default=0) > 2
    below = 28 + (6.2 * max(map(len, columns), default=0) if turned else 12)
    left = 34 + 6.6 * max(map(len, rows), default=0)
    height = max(len(rows) * cell, 80.0) + TOP + below

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, left, 84, TOP, below)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        cells(axes, values, low, high)
        _outline(axes, evidence.marks or (), 1.4 if cell > 8 else 0.9)
        _names(axes, rows, columns, turned, (height - TOP - below) / max(len(rows), 1))
        axes.set_xlabel(shorten(one_line(str(evidence.xlabel)), 2 * LABEL), color=C["muted"])
        axes.set_ylabel(shorten(one_line(str(evidence.ylabel)), 2 * LABEL), color=C["muted"])
        style(axes, numbers="")
        axes.tick_params(labelsize=10, length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        scale_bar(figure, height, low, high, str(evidence.label), top=TOP, bottom=below)

    return draw_svg(paint, name, title, _words(evidence, values, known), WIDTH, height)


def _outline(axes: Any, marks: Any, width: float) -> None:
    from matplotlib.patches import Rectangle

    for row, column in marks:
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=C["mark"], linewidth=width))


def _names(axes: Any, rows: list[str], columns: list[str], turned: bool, cell: float) -> None:
    step = _step(11 / cell)
    axes.set_yticks(range(0, len(rows), step), rows[::step])
    wide = _step(len(columns) / MOST_NAMES)
    axes.set_xticks(range(0, len(columns), wide), columns[::wide], rotation=90 if turned else 0)


def _step(least: float) -> int:
    """The least of the usual steps that is `least` or more: a map of values is read by fives and tens."""
    return next((step for step in STEPS if step >= least), math.ceil(least))


def _words(evidence: GridMap, values: list[list[float]], known: list[float]) -> str:
    size = f"{len(values)} rows of {max(map(len, values), default=0)} cells"
    reach = f", from {number(min(known))} to {number(max(known))}" if known else ""
    marks = [(int(row), int(column)) for row, column in evidence.marks or ()]
    inside = [values[row][column] for row, column in marks if math.isfinite(values[row][column])]
    if not inside:
        return f"{size}{reach}."
    mean = number(sum(inside) / len(inside))
    return f"{size}{reach}. Outlined, {evidence.mark_label}: {len(marks)} cells, their mean {mean}."
