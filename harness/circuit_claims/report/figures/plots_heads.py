"""Figures of many named heads: curves over training, scatter, clusters, attention patterns. Plain data in, SVG out.

Heads are coloured by their kind, drawn with the kind's own dashes and marker, and named where they are drawn: colour
never stands alone. `kinds` lists the kinds in the order of their colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from circuit_claims.judging.evidence import ClusterMap, Curve, HeadCurves, Panel, PatternPanel, Patterns, Scatter
from circuit_claims.judging.numbers import number
from circuit_claims.report.figures.axes import WIDTH, C, axes_at, finite, reach_of, style
from circuit_claims.report.figures.cache import drawn_once
from circuit_claims.report.figures.palette import LEVELS, SERIES, scale
from circuit_claims.report.figures.svg import draw_svg
from circuit_claims.report.text import one_line, shorten

DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
PANEL, GAP, LEGEND = 220, 52, 18
MOST_PANELS, MOST_SERIES, MOST_TOKENS = 6, 16, 32


@drawn_once
def head_curves(evidence: HeadCurves, name: str, title: str) -> Markup:
    """One panel below the other, each with a curve a head, a band where low and high are given, its name at the end."""
    panels, kinds = list(evidence.panels)[:MOST_PANELS], _kinds(evidence)
    x, top = finite(evidence.x), 12 + LEGEND * len(kinds)
    height = top + len(panels) * (PANEL + GAP)
    ends = [value for panel in panels for one in panel.series for key in ("y", "low", "high")
            for value in finite(getattr(one, key))]  # fmt: skip
    reach = reach_of(ends)

    def paint(figure: Any) -> None:
        _legend(figure, height, kinds)
        for index, panel in enumerate(panels):
            below = height - top - (index + 1) * PANEL - index * GAP - 16
            axes = axes_at(figure, height, 52, 44, height - below - PANEL, below)
            _stages(axes, evidence.stages or ())
            _curves(axes, x, list(panel.series)[:MOST_SERIES], kinds, reach)
            axes.set_title(one_line(str(panel.name)), fontsize=12, loc="left", color=C["ink"], pad=4)
            axes.set_ylabel(one_line(str(evidence.ylabel)), color=C["muted"], fontsize=11)
            if evidence.xscale == "log":
                _log_steps(axes, x)
            if index == len(panels) - 1:
                axes.set_xlabel(one_line(str(evidence.xlabel)), color=C["muted"])
            axes.grid(axis="y", color=C["grid"], linewidth=0.8)
            style(axes)

    spoken = "; ".join(_spoken(panel) for panel in panels)
    stages = ", ".join(
        f"{stage} from {number(first)} to {number(last)}" for stage, first, last in evidence.stages or ()
    )
    return draw_svg(paint, name, title, f"{spoken}." + (f" Stages: {stages}." if stages else ""), WIDTH, height)


def _stages(axes: Any, stages: Sequence[Sequence[Any]]) -> None:
    """Every other stage shaded, all named at the top of the panel, a thin line at each end."""
    for index, (stage, first, last) in enumerate(stages):
        start, end = finite([first, last])
        if index % 2:
            axes.axvspan(start, end, color=C["grid"], alpha=0.45, linewidth=0, zorder=0)
        axes.axvline(end, color=C["grid"], linewidth=0.8, zorder=0)
        middle = math.expm1((math.log1p(start) + math.log1p(end)) / 2) if start else end / 2.6
        axes.text(middle, 0.985, one_line(str(stage)), color=C["muted"], fontsize=9, ha="center", va="top",
                  transform=axes.get_xaxis_transform(), clip_on=True)  # fmt: skip


def _log_steps(axes: Any, x: Sequence[float]) -> None:
    """A logarithmic axis of training steps; step 0, if there, has a place left of the first other."""
    above = [value for value in x if value > 0]
    axes.set_xscale("symlog", linthresh=min(above, default=1.0), linscale=0.4)
    axes.set_xlim(min(x, default=0.0), max(x, default=1.0))


def _spoken(panel: Panel) -> str:
    ends = ", ".join(f"{one.name} ({one.kind}) {number(one.y[-1])}" for one in panel.series if one.y)
    return f"{panel.name}, at the end: {ends}"


def _curves(axes: Any, x: list[float], series: Sequence[Curve], kinds: Sequence[str], reach: Any) -> None:
    ends = []
    for one in series:
        colour, dash, _ = _look(str(one.kind), kinds)
        y = finite(one.y)
        axes.plot(x[: len(y)], y, color=colour, linestyle=dash, linewidth=1.6)
        if one.low and one.high:
            axes.fill_between(x[: len(y)], finite(one.low), finite(one.high), color=colour, alpha=0.15, linewidth=0)
        if y and math.isfinite(y[-1]):
            ends.append((y[-1], str(one.name), colour))
    axes.set_ylim(*reach)
    ends.sort(key=lambda end: end[0])
    for (_, words, colour), place in zip(ends, spread_apart([end[0] for end in ends], reach), strict=True):
        axes.text(1.015, place, one_line(words), color=colour, transform=axes.transAxes, va="center", fontsize=10)


def spread_apart(values: Sequence[float], reach: tuple[float, float], gap: float = 0.058) -> list[float]:
    """Heights (0 to 1) for labels at rising `values`, at least `gap` from each other and as near as may be.

    >>> [round(place, 2) for place in spread_apart([0.0, 0.0, 1.0], (0.0, 1.0), gap=0.1)]
    [0.0, 0.1, 1.0]
    """
    places = [min(max((value - reach[0]) / (reach[1] - reach[0]), 0.0), 1.0) for value in values]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    over = max(0.0, places[-1] - 1.0) if places else 0.0
    for index in reversed(range(len(places))):
        limit = 1.0 if index == len(places) - 1 else places[index + 1] - gap
        places[index] = min(places[index], limit) if over else places[index]
    return places


@drawn_once
def scatter(evidence: Scatter, name: str, title: str) -> Markup:
    """One named point a head, with its interval along y where low and high are given."""
    points, kinds = list(evidence.points)[: 4 * MOST_SERIES], _kinds(evidence)
    height, top = 300 + LEGEND * len(kinds), 14 + LEGEND * len(kinds)
    xs, ys = finite([point.x for point in points]), finite([point.y for point in points])
    ends = [value for point in points for value in finite([point.low, point.high])]

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, 56, 30, top, 46)
        _legend(figure, height, kinds, markers=True)
        for point, x, y in zip(points, xs, ys, strict=True):
            colour, _, marker = _look(str(point.kind), kinds)
            low, high = finite([point.low, point.high])
            if math.isfinite(low + high):
                axes.plot([x, x], [low, high], color=colour, linewidth=1.1)
            axes.plot([x], [y], color=colour, marker=marker, markersize=6, linestyle="none")
            axes.annotate(one_line(str(point.name)), (x, y), (5, 3), textcoords="offset points", fontsize=9.5,
                          color=C["ink"])  # fmt: skip
        axes.set_xlim(*reach_of(xs))
        axes.set_ylim(*reach_of([*ys, *ends]))
        axes.set_xlabel(one_line(str(evidence.xlabel)), color=C["muted"])
        axes.set_ylabel(one_line(str(evidence.ylabel)), color=C["muted"])
        axes.grid(color=C["grid"], linewidth=0.8)
        style(axes)

    spoken = "; ".join(f"{point.name}: {number(point.x)}, {number(point.y)}" for point in points)
    return draw_svg(paint, name, title, f"{spoken}.", WIDTH, height)


@drawn_once
def cluster_map(evidence: ClusterMap, name: str, title: str) -> Markup:
    """A row a method, a column a head: cells of one cluster share letter and shade; beside each row its agreement."""
    heads, kinds, rows = list(evidence.heads), list(evidence.kinds_of_heads), list(evidence.rows)
    cell, left = 22, 176
    height = 34 + cell * (len(rows) + 1)

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, left, 46, 26, 8)
        axes.set_xlim(0, len(heads))
        axes.set_ylim(len(rows) + 1, 0)
        _cluster_row(axes, 0, [(one_line(str(kind)) or "?")[0].lower() for kind in kinds])
        for index, row in enumerate(rows, start=1):
            _cluster_row(axes, index, ["ABCDEFGHIJKLMNOP"[int(one) % 16] for one in row.clusters])
            axes.text(len(heads) + 0.15, index + 0.5, number(row.agreement), va="center", fontsize=10, color=C["ink"])
        axes.text(len(heads) + 0.15, 0.5, "index", va="center", fontsize=10, color=C["muted"])
        axes.set_yticks([index + 0.5 for index in range(len(rows) + 1)],
                        ["type", *(shorten(one_line(str(row.name)), 27) for row in rows)], fontsize=10)  # fmt: skip
        axes.set_xticks(
            [index + 0.5 for index in range(len(heads))], [one_line(str(head)) for head in heads], fontsize=10
        )
        axes.xaxis.tick_top()
        style(axes, numbers="")
        axes.tick_params(length=0, labelsize=10)
        for spine in axes.spines.values():
            spine.set_visible(False)

    spoken = "; ".join(f"{row.name}: adjusted Rand index {number(row.agreement)}" for row in rows)
    return draw_svg(paint, name, title, f"{spoken}.", WIDTH, height)


def _cluster_row(axes: Any, row: int, letters: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    order = list(dict.fromkeys(letters))
    for column, letter in enumerate(letters):
        level = (
            round((0.08 + 0.34 * order.index(letter) / max(len(order) - 1, 1)) * (LEVELS - 1)) if len(order) > 1 else 2
        )
        axes.add_patch(Rectangle((column + 0.03, row + 0.06), 0.94, 0.88, facecolor=scale()[level][0], linewidth=0))
        axes.text(column + 0.5, row + 0.52, letter, ha="center", va="center", fontsize=10, color=C["ink"])


@drawn_once
def pattern_panels(evidence: Patterns, name: str, title: str) -> Markup:
    """Attention patterns as triangles: a row where the head looks from, a column where to; tokens on both sides."""
    panels = list(evidence.panels)[:MOST_PANELS]
    side = WIDTH - 110
    height = len(panels) * (side + 96) + 6

    def paint(figure: Any) -> None:
        for index, panel in enumerate(panels):
            below = height - (index + 1) * (side + 96) + 62
            axes = axes_at(figure, height, 84, 26, height - below - side, below)
            _triangle(axes, panel)

    spoken = "; ".join(_looks(panel) for panel in panels)
    return draw_svg(paint, name, title, f"{spoken}.", WIDTH, height)


def _triangle(axes: Any, panel: PatternPanel) -> None:
    tokens = [shorten(one_line(str(token)) or " ", 10) for token in panel.tokens][:MOST_TOKENS]
    rows = np.array([finite(row)[: len(tokens)] for row in panel.rows[: len(tokens)]])
    levels = np.clip((rows / max(np.nanmax(rows), 1e-12) * LEVELS).astype(int), 0, LEVELS - 1)
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners: dict[int, list[tuple[float, float]]] = {}
    for y in range(len(tokens)):
        for x in range(y + 1):
            corners.setdefault(int(levels[y, x]), []).extend(
                [(x - 0.5, y - 0.5), (x + 0.5, y - 0.5), (x + 0.5, y + 0.5), (x - 0.5, y + 0.5), (x - 0.5, y - 0.5)]
            )
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    for level, points in sorted(corners.items()):
        colour = scale()[level][0]
        axes.add_patch(
            PathPatch(Path(points, codes * (len(points) // 5)), facecolor=colour, edgecolor=colour, linewidth=0.3)
        )
    axes.set_xlim(-0.5, len(tokens) - 0.5)
    axes.set_ylim(len(tokens) - 0.5, -0.5)
    axes.set_title(one_line(str(panel.name)), fontsize=12, loc="left", color=C["ink"], pad=5)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90)
    axes.set_yticks(range(len(tokens)), tokens)
    style(axes, numbers="")
    axes.tick_params(labelsize=8.5, length=2)


def _looks(panel: PatternPanel) -> str:
    row = finite(panel.rows[-1])
    best = max(range(len(row)), key=lambda index: row[index])
    return f"{panel.name}: from the last token most to {panel.tokens[best]!r}, {number(row[best])}"


def _kinds(evidence: HeadCurves | Scatter) -> list[str]:
    return [str(kind) for kind in evidence.kinds or ()][:SERIES]


def _look(kind: str, kinds: Sequence[str]) -> tuple[str, Any, str]:
    """Colour, dashes and marker of a kind; grey and plain for one that is not listed."""
    if kind not in kinds:
        return C["muted"], "-", "x"
    index = list(kinds).index(kind)
    return C[f"series{index}"], DASHES[index], MARKERS[index]


def _legend(figure: Any, height: float, kinds: Sequence[str], markers: bool = False) -> None:
    from matplotlib.lines import Line2D

    for index, kind in enumerate(kinds):
        colour, dash, marker = _look(kind, kinds)
        y = 1 - (10 + LEGEND * index) / height
        look: dict[str, Any] = {"linestyle": "none", "marker": marker} if markers else {"linestyle": dash}
        ends = [76 / WIDTH] if markers else [56 / WIDTH, 92 / WIDTH]
        figure.add_artist(Line2D(ends, [y] * len(ends), color=colour, linewidth=1.8, **look))
        figure.text(98 / WIDTH, y, shorten(one_line(kind), 40), color=C["ink"], va="center", fontsize=11)
