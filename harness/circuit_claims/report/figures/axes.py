"""Axes of the report's figures: where they lie, how far they reach, how they look."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circuit_claims.judging.json_values import to_number
from circuit_claims.judging.numbers import number
from circuit_claims.report.figures.palette import INKS
from circuit_claims.report.text import one_line, shorten

WIDTH = 400
ROW, ROW_OF_TWO = 22, 30
LABEL = 26
# Axis limits a hundred times as far apart must still be numbers.
LARGEST = 1e300
C = {name: light for name, (light, _) in INKS.items()}


def finite(values: Any) -> list[float]:
    """`values` as floats; what is not a number (null, a name), or too large to set beside others, becomes NaN."""
    numbers = [to_number(value) for value in values or ()]
    return [float(x) if isinstance(x, (int, float)) and not LARGEST < abs(x) < math.inf else math.nan for x in numbers]


def reach_of(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits around all finite `values`, with room at both ends."""
    known = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(known), max(known)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return (low if low == 0 else low - room), high + room


def beside(x: float, reach: tuple[float, float]) -> tuple[str, float]:
    """Where to set the words beside a vertical line so that they stay inside the figure."""
    share = (x - reach[0]) / (reach[1] - reach[0])
    return ("left" if share < 0.2 else "right" if share > 0.8 else "center"), x


def axes_at(figure: Any, height: float, left: float, right: float, top: float, bottom: float) -> Any:
    """Axes with these margins in px inside a figure `WIDTH` x `height`, see-through."""
    spans = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - top - bottom) / height)
    axes = figure.add_axes(spans)
    axes.patch.set_alpha(0.0)
    return axes


def scale_x(axes: Any, x: Sequence[float], log: bool) -> None:
    """A logarithmic x axis where asked for; ticks at whole numbers where all of `x` are whole."""
    from matplotlib.ticker import MaxNLocator

    if log:
        axes.set_xscale("symlog", linthresh=1)
    elif all(value.is_integer() for value in x):
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))


def finish(axes: Any, label: str, named_rows: bool = True) -> None:
    """The label and grid of the value axis; with `named_rows` the other axis keeps the names it has."""
    axes.set_xlabel(one_line(label), color=C["muted"])
    axes.grid(axis="x", color=C["grid"], linewidth=0.8)
    style(axes, numbers="x" if named_rows else "xy")


def style(axes: Any, numbers: str = "xy") -> None:
    """The look all figures share; the axes in `numbers` get plain figures for ticks, others keep their own labels."""
    from matplotlib.ticker import FuncFormatter

    axes.set_axisbelow(True)
    axes.tick_params(color=C["grid"], labelcolor=C["ink"], length=3, labelsize=11)
    for letter in numbers:
        axis = axes.xaxis if letter == "x" else axes.yaxis
        axis.set_major_formatter(FuncFormatter(_tick))
    for spine in axes.spines.values():
        spine.set_color(C["grid"])


def _tick(value: float, _position: object = None) -> str:
    """A tick's value in full: rounding 10.25 to 10.2 would put the tick in the wrong place."""
    return number(value) if abs(value) >= 1000 else f"{round(value, 12):.6g}".replace("-", "−")


def row_label(text: str) -> str:
    """A row's name on one line, cut to `LABEL` characters."""
    return shorten(one_line(text), LABEL)


def two_lines(text: str) -> str:
    """A row's name in at most two lines of `LABEL` characters, about equally long: controls differ in their ends."""
    whole = one_line(text)
    if len(whole) <= LABEL:
        return whole
    tried = (textwrap.wrap(whole, width, break_long_words=False) for width in range(LABEL // 2, LABEL + 1))
    even = (lines for lines in tried if len(lines) == 2 and max(map(len, lines)) <= LABEL)
    first, *rest = next(even, textwrap.wrap(whole, LABEL) or [whole[:LABEL]])
    return "\n".join([first, row_label(" ".join(rest))] if rest else [first])


@dataclass(frozen=True)
class RowNames:
    """The names of a figure's rows, the height they need a row, and the left margin in px."""

    names: tuple[str, ...]
    height: int
    left: float


def row_names(labels: Sequence[str]) -> RowNames:
    """Names in one line or two, and the room they take; a marker at the very edge stays clear of them."""
    names = tuple(map(two_lines, labels))
    longest = max((len(line) for name in names for line in name.split("\n")), default=0)
    return RowNames(names, ROW_OF_TWO if any("\n" in name for name in names) else ROW, 20 + 6.6 * longest)


def name_rows(axes: Any, rows: RowNames) -> None:
    """Write the names beside their rows."""
    axes.set_yticks(range(len(rows.names)), rows.names, linespacing=1.0)
    axes.tick_params(axis="y", pad=7)
