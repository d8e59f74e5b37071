"""The report's figures: plain data in, inline SVG out. Each says in words, for a screen reader, what it shows.

Heads, labels and values are drawn as given; numbers that are not finite leave a gap or run off the axis with an
arrow. All figures are drawn `WIDTH` px wide, narrow enough to be read on a phone without scrolling sideways.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from circuit_claims.judging.evidence import Bars, Curves, HeadMap, NullDistribution, RankedBars
from circuit_claims.judging.numbers import number
from circuit_claims.report.figures.axes import (
    WIDTH,
    C,
    axes_at,
    beside,
    finish,
    finite,
    name_rows,
    reach_of,
    row_names,
    scale_x,
    style,
)
from circuit_claims.report.figures.cache import drawn_once
from circuit_claims.report.figures.palette import LEVELS, SERIES, scale
from circuit_claims.report.figures.svg import draw_svg
from circuit_claims.report.text import head_as_written, one_line, shorten

MOST_ROWS = 24
MOST_VALUES = 40
DASHES = ("-", (0, (6, 2)), (0, (2, 2)), (0, (8, 2, 2, 2)), (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)))


@dataclass(frozen=True)
class PlotPoint:
    """One row of a strip: a name, a value, an interval if there is one, and what it is.

    `role` is `measured`, `negative` (a control that must fail) or `positive` (one that must pass).
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    role: str = "measured"


MARKERS = {"measured": "o", "negative": "D", "positive": "s"}


@drawn_once
def strip(points: Sequence[PlotPoint], band: tuple[float, float], expected: float, unit: str, name: str) -> Markup:
    """The paper's value as a band, the measured point with its interval and the controls, on one axis.

    `band` is the range that counts as reproduced; an end may be infinite (one-sided claims).
    """
    reach = reach_of([expected, *(end for end in band if math.isfinite(end)), *_ends(points)])
    names = row_names([point.name for point in points])

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, names.left, 14, 20, 40)
        axes.set_xlim(*reach)
        axes.set_ylim(len(points) - 0.4, -0.6)
        axes.axvspan(max(band[0], reach[0]), min(band[1], reach[1]), color=C["band"], linewidth=0)
        axes.axvline(expected, color=C["paper"], linewidth=1.8, linestyle=(0, (5, 2)))
        align, x = beside(expected, reach)
        axes.text(x, -0.72, f"paper {number(expected)}", color=C["paper"], ha=align, va="bottom", fontsize=11)
        for row, point in enumerate(points):
            _point(axes, row, point, reach)
        name_rows(axes, names)
        finish(axes, unit)

    height = 60 + names.height * len(points)
    spoken = "; ".join(_spoken(point) for point in points)
    sides = f"Counts as reproduced from {number(band[0])} to {number(band[1])}."
    return draw_svg(paint, name, f"Paper's value {number(expected)} {unit}", f"{sides} {spoken}.", WIDTH, height)


@drawn_once
def head_map(evidence: HeadMap, name: str, title: str) -> Markup:
    """A layer x head heat map in `LEVELS` steps of one hue, with its scale; the marked head is outlined and named.

    A cell without a value is crossed out.
    """
    values = [finite(row) for row in evidence.values]
    layers, heads = len(values), max(map(len, values))
    known = [value for row in values for value in row if math.isfinite(value)]
    low, high = limits(evidence.vmin, evidence.vmax, known)
    cell = max(4.0, min(14.0 if layers > 6 else 26.0, 380 / max(layers, 1)))
    height = layers * cell + 66

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, 52, 96, 24, 42)
        axes.set_xlim(-0.5, heads - 0.5)
        axes.set_ylim(layers - 0.5, -0.5)
        cells(axes, values, low, high)
        _mark(axes, evidence, values)
        axes.set_xlabel("head", color=C["muted"])
        axes.set_ylabel("layer", color=C["muted"])
        _whole_ticks(axes, heads, layers)
        style(axes, numbers="")
        for spine in axes.spines.values():
            spine.set_visible(False)
        scale_bar(figure, height, low, high, str(evidence.label), top=24, bottom=42)

    return draw_svg(paint, name, title, _head_words(values, evidence), WIDTH, height)


@drawn_once
def bars(evidence: Bars, name: str, title: str) -> Markup:
    """One bar a label with its interval, the paper's threshold as a dashed line, the null as a grey mark a bar."""
    return _rows(evidence, name, title, as_bars=True)


@drawn_once
def ranked(evidence: RankedBars, name: str, title: str) -> Markup:
    """One point a label with its interval, best first as given; the null of the maximum is a grey band."""
    return _rows(evidence, name, title, as_bars=False)


@drawn_once
def lines(evidence: Curves, name: str, title: str) -> Markup:
    """Up to six curves over `x`, each with its own colour and dashes, and a band where low and high are given."""
    x, series = finite(evidence.x), list(evidence.series)[:SERIES]
    height = 250 + 18 * len(series)

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, 56, 14, 10 + 18 * len(series), 44)
        for index, one in enumerate(series):
            colour, y = C[f"series{index}"], finite(one.y)
            axes.plot(x, y, color=colour, linestyle=DASHES[index], linewidth=2, marker=_dot(y), markersize=3)
            if one.low and one.high:
                axes.fill_between(x, finite(one.low), finite(one.high), color=colour, alpha=0.18, linewidth=0)
            _legend(figure, height, index, str(one.name), colour)
        axes.set_xlabel(one_line(str(evidence.xlabel)), color=C["muted"])
        axes.set_ylabel(one_line(str(evidence.ylabel)), color=C["muted"])
        scale_x(axes, x, evidence.xscale == "log")
        axes.grid(axis="y", color=C["grid"], linewidth=0.8)
        style(axes)

    spoken = "; ".join(f"{one.name}: from {number(one.y[0])} to {number(one.y[-1])}" for one in series if one.y)
    return draw_svg(paint, name, title, f"{spoken}.", WIDTH, height)


def _dot(y: list[float]) -> str:
    """Points are dotted where there are few, or gaps that would leave a lone one unseen; many hide the curves."""
    return "o" if len(y) <= MOST_VALUES or any(map(math.isnan, y)) else "none"


@drawn_once
def distribution(evidence: NullDistribution, name: str, title: str) -> Markup:
    """A histogram of the null's draws with the observed value as a line."""
    draws = [value for value in finite(evidence.values) if math.isfinite(value)]
    observed = finite([evidence.observed])[0]
    low, high = reach_of([*draws, observed])

    def paint(figure: Any) -> None:
        axes = axes_at(figure, 210, 50, 14, 24, 44)
        _histogram(axes, draws)
        axes.set_xlim(low, high)
        if math.isfinite(observed):
            axes.axvline(observed, color=C["measured"], linewidth=2)
            align, x = beside(observed, (low, high))
            axes.text(x, 1.02, f"observed {number(observed)}", color=C["measured"], ha=align, va="bottom",
                      transform=axes.get_xaxis_transform())  # fmt: skip
        axes.set_ylabel("draws", color=C["muted"])
        finish(axes, str(evidence.label), named_rows=False)

    beyond = sum(value >= observed for value in draws)
    spoken = f"{len(draws)} draws from the null, {beyond} of them at or above the observed {number(observed)}."
    return draw_svg(paint, name, title, spoken, WIDTH, 210)


def _histogram(axes: Any, draws: list[float]) -> None:
    """A bar a value where there are few (scores of small sets are fractions), equal bins where there are many."""
    counts = Counter(round(value, 9) for value in draws)
    values = sorted(counts)
    if len(values) > MOST_VALUES:
        axes.hist(draws, bins=min(40, round(math.sqrt(len(draws)))), color=C["null"], linewidth=0)
        return
    gaps = [after - before for before, after in itertools.pairwise(values)]
    width = 0.7 * min(gaps, default=abs(values[0]) or 1.0) if values else 1.0
    axes.bar(values, [counts[value] for value in values], width=width, color=C["null"], linewidth=0)


def _rows(evidence: Bars, name: str, title: str, as_bars: bool) -> Markup:
    labels = [str(label) for label in evidence.labels][:MOST_ROWS]
    count = len(labels)
    columns = {key: finite(getattr(evidence, key))[:count] for key in ("values", "low", "high")}
    threshold, null = finite([evidence.threshold])[0], _null_ranges(evidence, count)
    ends = [value for column in (*columns.values(), *null, finite(evidence.null_band)) for value in column]
    low, high = reach_of([*ends, threshold, *([0.0] if as_bars else [])])
    names = row_names(labels)
    height = 62 + names.height * count

    def paint(figure: Any) -> None:
        axes = axes_at(figure, height, names.left, 14, 22, 40)
        axes.set_xlim(0 if as_bars and low >= -1e-12 else low, high)
        axes.set_ylim(count - 0.4, -0.6)
        if band := evidence.null_band:
            axes.axvspan(*finite(band), color=C["null"], alpha=0.25, linewidth=0)
        for row in range(count):
            _row(axes, row, columns, null, as_bars)
        if math.isfinite(threshold):
            axes.axvline(threshold, color=C["paper"], linewidth=1.8, linestyle=(0, (5, 2)))
            align, x = beside(threshold, (low, high))
            axes.text(x, -0.72, f"threshold {number(threshold)}", color=C["paper"], ha=align, va="bottom", fontsize=11)
        name_rows(axes, names)
        finish(axes, str(evidence.label))

    spoken = "; ".join(f"{label} {number(value)}" for label, value in zip(labels, columns["values"], strict=False))
    line = f" Threshold {number(threshold)}." if math.isfinite(threshold) else ""
    return draw_svg(paint, name, title, f"{spoken}.{line}", WIDTH, height)


def _row(axes: Any, row: int, columns: dict[str, list[float]], null: list[list[float]], as_bars: bool) -> None:
    value = columns["values"][row] if row < len(columns["values"]) else math.nan
    ends = [columns[key][row] if row < len(columns[key]) else math.nan for key in ("low", "high")]
    if math.isfinite(value) and as_bars:
        axes.barh(row, value, height=0.62, color=C["measured"], alpha=0.55, linewidth=0)
    elif math.isfinite(value):
        axes.plot([value], [row], marker="o", color=C["measured"], markersize=6, linestyle="none")
    if all(map(math.isfinite, ends)):
        axes.plot(ends, [row, row], color=C["ink"], linewidth=1.4, marker="|", markersize=7)
    if row < len(null) and null[row]:
        axes.plot(null[row], [row] * len(null[row]), color=C["null"], linewidth=3, marker="|", markersize=13,
                  markeredgewidth=3)  # fmt: skip


def _null_ranges(evidence: Bars, count: int) -> list[list[float]]:
    """The null a row: one number for all rows, or for each row a number or a pair (low, high)."""
    null = evidence.null
    if null is None or evidence.null_band:
        return []
    per_row = null if isinstance(null, tuple) else [null] * count
    ranges = [finite(item if isinstance(item, tuple) else [item]) for item in per_row[:count]]
    return [[value for value in pair if math.isfinite(value)] for pair in ranges]


def _point(axes: Any, row: int, point: PlotPoint, reach: tuple[float, float]) -> None:
    colour = C["measured" if point.role == "measured" else "control"]
    if point.low is not None and point.high is not None and not math.isnan(point.low + point.high):
        ends = [max(point.low, reach[0]), min(point.high, reach[1])]
        axes.plot(ends, [row, row], color=colour, linewidth=3 if point.role == "measured" else 1.8)
        for end, edge, arrow in ((point.low, reach[0], "<"), (point.high, reach[1], ">")):
            if end != edge and not reach[0] <= end <= reach[1]:
                axes.plot([edge], [row], marker=arrow, color=colour, markersize=7, clip_on=False)
    inside = min(max(point.value, reach[0]), reach[1])
    if not math.isnan(point.value):
        hollow = "none" if point.role == "negative" else colour
        axes.plot(
            [inside], [row], marker=MARKERS[point.role], color=colour, markerfacecolor=hollow, markersize=7,
            markeredgewidth=1.6, linestyle="none", clip_on=False,
        )  # fmt: skip


def _spoken(point: PlotPoint) -> str:
    words = {"measured": "measured", "negative": "control that must fail", "positive": "control that must pass"}
    interval = "" if point.low is None else f", interval {number(point.low)} to {number(point.high)}"
    return f"{words[point.role]} {point.name}: {number(point.value)}{interval}"


def _ends(points: Sequence[PlotPoint]) -> list[float]:
    ends = [end for point in points for end in (point.value, point.low, point.high)]
    return [end for end in ends if end is not None and math.isfinite(end)]


def cells(axes: Any, values: list[list[float]], low: float, high: float) -> None:
    """All cells of one level as one path: a map of a thousand heads stays small."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners: dict[int, list[tuple[float, float]]] = {}
    for y, row in enumerate(values):
        levels = [-1 if math.isnan(value) else _level(value, low, high) for value in row]
        for level, start, end in _runs(levels):
            left, right, top, bottom = start - 0.5, end - 0.5, y - 0.5, y + 0.5
            box = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
            corners.setdefault(level, []).extend(box)
    for level, points in sorted(corners.items()):
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * (len(points) // 5)
        look: dict[str, Any] = {"facecolor": scale()[level][0]} if level >= 0 else {"facecolor": "none", "hatch": "xx"}
        edge = scale()[level][0] if level >= 0 else C["muted"]
        axes.add_patch(PathPatch(Path(points, codes), linewidth=0.3, edgecolor=edge, **look))


def _runs(levels: list[int]) -> Iterator[tuple[int, int, int]]:
    """Stretches of equal levels as (level, first, one past the last)."""
    start = 0
    for level, group in itertools.groupby(levels):
        end = start + len(list(group))
        yield level, start, end
        start = end


def _level(value: float, low: float, high: float) -> int:
    share = (min(max(value, low), high) - low) / (high - low)
    return min(LEVELS - 1, int(share * LEVELS))


def _mark(axes: Any, evidence: HeadMap, values: list[list[float]]) -> None:
    from matplotlib.patches import Rectangle

    marked = evidence.mark
    for layer, head in marked:
        axes.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor=C["mark"], linewidth=2.2))
    if marked:
        words = "; ".join(f"{_name(evidence, *place)}, {number(values[place[0]][place[1]])}" for place in marked)
        words = shorten(f"marked: {words}", 64)
        axes.text(0, 1, words, color=C["mark"], transform=axes.transAxes, ha="left", va="bottom")


def _name(evidence: HeadMap, layer: int, head: int) -> str:
    return head_as_written(layer, head, evidence.head_names)


def scale_bar(figure: Any, height: float, low: float, high: float, label: str, *, top: float, bottom: float) -> None:
    """The scale of a heat map at the right edge of its figure, with three figures and what they are.

    `top` and `bottom` are the margins of the map in px: the scale stands beside its cells, not beside its names.
    """
    size = min(200.0, height - top - bottom)
    axes = figure.add_axes(((WIDTH - 72) / WIDTH, bottom / height, 14 / WIDTH, size / height))
    for level, (colour, _) in enumerate(scale()):
        axes.axhspan(level, level + 1, facecolor=colour, edgecolor=colour, linewidth=0.3)
    axes.set_ylim(0, LEVELS)
    axes.set_xticks([])
    axes.yaxis.tick_right()
    steps = [0, LEVELS / 2, LEVELS]
    axes.set_yticks(steps, [number(low + (high - low) * step / LEVELS) for step in steps])
    style(axes, numbers="")
    for spine in axes.spines.values():
        spine.set_visible(False)
    above, words = (bottom + size + 5) / height, shorten(one_line(label), 22)
    figure.text((WIDTH - 4) / WIDTH, above, words, color=C["muted"], ha="right", va="bottom", fontsize=11)


def _head_words(values: list[list[float]], evidence: HeadMap) -> str:
    best = ", ".join(f"{_name(evidence, layer, head)} {number(value)}" for layer, head, value in top_heads(values, 5))
    names = ", ".join(_name(evidence, *place) for place in evidence.mark)
    marked = f" Marked: {names}." if names else ""
    return f"{len(values)} layers, {sum(map(len, values))} heads. Highest: {best}.{marked}"


def top_heads(values: list[list[float]], count: int) -> list[tuple[int, int, float]]:
    """The `count` highest cells as (layer, head, value), highest first, ties by layer and head."""
    cells = [(layer, head, value) for layer, row in enumerate(values) for head, value in enumerate(row)]
    return sorted((cell for cell in cells if not math.isnan(cell[2])), key=lambda cell: (-cell[2], cell[:2]))[:count]


def limits(low: Any, high: Any, known: list[float]) -> tuple[float, float]:
    """The ends of a scale: as given, or around the known values."""
    ends = finite([low, high])
    low = ends[0] if math.isfinite(ends[0]) else min([0.0, *known])
    high = ends[1] if math.isfinite(ends[1]) else max(known, default=1.0)
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def _whole_ticks(axes: Any, heads: int, layers: int) -> None:
    for setter, count in ((axes.set_xticks, heads), (axes.set_yticks, layers)):
        step = max(1, math.ceil(count / 12))
        step = next((nice for nice in (1, 2, 4, 5, 8, 10, 20, 50) if nice >= step), step)
        setter(range(0, count, step), [str(index) for index in range(0, count, step)])


def _legend(figure: Any, height: float, index: int, words: str, colour: str) -> None:
    y = 1 - (12 + 18 * index) / height
    from matplotlib.lines import Line2D

    figure.add_artist(Line2D([56 / WIDTH, 92 / WIDTH], [y, y], color=colour, linewidth=2, linestyle=DASHES[index]))
    figure.text(98 / WIDTH, y, shorten(one_line(words), 48), color=C["ink"], va="center", fontsize=11)
