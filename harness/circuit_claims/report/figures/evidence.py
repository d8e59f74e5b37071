"""What stands behind a verdict, made ready for the page: a figure with its figures as a table, a table, or text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from circuit_claims.judging.evidence import (
    Bars,
    ClusterMap,
    Curves,
    GridMap,
    HeadCurves,
    HeadMap,
    NullDistribution,
    Passages,
    Patterns,
    RankedBars,
    Scatter,
    StackedBars,
    StackedRow,
    Table,
    TextBlock,
    evidence_from_json,
)  # fmt: skip
from circuit_claims.judging.numbers import number
from circuit_claims.report.figures import plots, plots_heads
from circuit_claims.report.figures.axes import finite
from circuit_claims.report.figures.grid_map import grid_map
from circuit_claims.report.figures.palette import SERIES
from circuit_claims.report.figures.passages import Passage, passages_of
from circuit_claims.report.figures.stacked import stacked
from circuit_claims.report.text import head_as_written

TOP_HEADS = 10


@dataclass(frozen=True)
class Grid:
    """A table: column names, rows of text, the rows that are marked, and the word that says what the mark means.

    >>> depths = Grid(("place", "depth"), (("north", "70"), ("south", "8")), marked=frozenset({0}), mark="deepest")
    >>> [depths.rows[at][0] for at in depths.marked]
    ['north']
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: frozenset[int] = frozenset()
    mark: str = "marked"


@dataclass(frozen=True)
class Exhibit:
    """One piece of evidence: at most one figure, one table and one text, or the reason it could not be drawn.

    What a paper's `figures` draw. `figure` is SVG as `Markup`, which the page takes as it is; `text` is escaped.

    >>> def draw_chart(record: Mapping[str, Any], name: str) -> Exhibit:
    ...     return Exhibit(title=record["title"], text=f"soundings {record['soundings']}")
    >>> draw_chart({"type": "chart", "title": "A chart", "soundings": "1 2 3"}, "figure-1").text
    'soundings 1 2 3'
    """

    title: str
    caption: str = ""
    key: str = ""
    figure: Markup | None = None
    grid: Grid | None = None
    folded: str = ""
    text: str | None = None
    passages: tuple[Passage, ...] = ()
    trouble: str = ""


Draw = Callable[[Mapping[str, Any], str], Exhibit]
_BROUGHT: ContextVar[Mapping[str, Draw]] = ContextVar("figures that papers bring", default=MappingProxyType({}))


@contextmanager
def drawn_by(brought: Mapping[str, Draw]) -> Iterator[None]:
    """Inside, evidence of these types is drawn by what papers bring: `draw(evidence, name)` gives an `Exhibit`."""
    token = _BROUGHT.set(brought)
    try:
        yield
    finally:
        _BROUGHT.reset(token)


def _drawn(
    maker: Callable[[Exhibit, Any, str], Exhibit], blank: Exhibit, record: Mapping[str, Any], name: str
) -> Exhibit:
    return maker(blank, evidence_from_json({**record, "title": blank.title}), name)


def exhibit(record: Mapping[str, Any], name: str) -> Exhibit:
    """What an event holds of one piece of evidence, ready to show; `name` is unique in the page.

    Evidence that cannot be drawn says why and stays out.
    """
    kind = str(record.get("type"))
    title = str(record.get("title") or kind.replace("_", " "))
    blank = Exhibit(title=title, caption=str(record.get("caption") or ""))
    maker, brought = _MAKERS.get(kind), _BROUGHT.get().get(kind)
    draw = brought if maker is None else partial(_drawn, maker, blank)
    if draw is None:
        return replace(blank, trouble=f"evidence of the unknown type {kind!r}: see results.json")
    try:
        return draw(record, name)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
        # One figure that cannot be drawn must not cost the reader the rest of the report.
        return replace(blank, trouble=f"this evidence could not be drawn ({type(error).__name__}: {error})")


def _head_map(blank: Exhibit, evidence: HeadMap, name: str) -> Exhibit:
    values = [finite(row) for row in evidence.values]
    rows = tuple(
        (head_as_written(layer, head, evidence.head_names), number(value))
        for layer, head, value in plots.top_heads(values, TOP_HEADS)
    )
    return replace(
        blank,
        figure=plots.head_map(evidence, name, blank.title),
        key="Each cell is one head; crossed out: no value.",
        grid=Grid(("head", str(evidence.label or "value")), rows),
        folded=f"The {len(rows)} highest heads as a table",
    )


def _bars(blank: Exhibit, evidence: Bars, name: str) -> Exhibit:
    return _with_rows(blank, evidence, plots.bars(evidence, name, blank.title), "Bar: measured")


def _ranked(blank: Exhibit, evidence: RankedBars, name: str) -> Exhibit:
    return _with_rows(blank, evidence, plots.ranked(evidence, name, blank.title), "Point: measured")


def _with_rows(blank: Exhibit, evidence: Bars, figure: Markup, first: str) -> Exhibit:
    columns = {key: finite(getattr(evidence, key)) for key in ("values", "low", "high")}
    labels = [str(label) for label in evidence.labels]
    names = ["label", *(key.rstrip("s") for key, column in columns.items() if column)]
    rows = [
        (label, *(number(column[row]) if row < len(column) else "none" for column in columns.values() if column))
        for row, label in enumerate(labels)
    ]
    words = [first + (", thin line: its interval" if columns["low"] else "")]
    words += ["dashed line: the paper's threshold"] if evidence.threshold is not None else []
    words += ["grey: the null"] if evidence.null is not None or evidence.null_band else []
    if len(labels) > plots.MOST_ROWS:
        words.append(f"the first {plots.MOST_ROWS} of {len(labels)} rows are drawn")
    return replace(
        blank,
        figure=figure,
        key="; ".join(words) + ".",
        grid=Grid(tuple(names), tuple(rows)),
        folded="The same as a table",
    )


def _lines(blank: Exhibit, evidence: Curves, name: str) -> Exhibit:
    series = list(evidence.series)
    columns = (str(evidence.xlabel or "x"), *(str(one.name) for one in series))
    rows = tuple(
        (number(x), *(number(one.y[row]) if row < len(one.y) else "none" for one in series))
        for row, x in enumerate(evidence.x)
    )
    words = ["Shaded: the interval."] if any(one.low for one in series) else []
    if len(series) > SERIES:
        words.append(f"The first {SERIES} of {len(series)} curves are drawn.")
    figure = plots.lines(evidence, name, blank.title)
    return replace(blank, figure=figure, key=" ".join(words), grid=Grid(columns, rows), folded="The same as a table")


def _distribution(blank: Exhibit, evidence: NullDistribution, name: str) -> Exhibit:
    draws = sorted(value for value in finite(evidence.values) if math.isfinite(value))
    shares = ((0.0, "least"), (0.5, "median"), (0.95, "95th percentile"), (1.0, "greatest"))
    rows = [(f"{words} of the null", number(draws[round(share * (len(draws) - 1))])) for share, words in shares]
    grid = Grid(("what", "value"), (*rows, ("observed", number(evidence.observed))))
    figure = plots.distribution(evidence, name, blank.title)
    key = f"Grey: {len(draws):,} draws from the null; line: observed."
    return replace(blank, figure=figure, key=key, grid=grid, folded="The same as a table")


def _table(blank: Exhibit, evidence: Table, _name: str) -> Exhibit:
    columns = tuple(map(str, evidence.columns))
    rows = tuple(tuple(number(cell) for cell in row) for row in evidence.rows)
    marked = frozenset(int(row) for row in evidence.mark_rows or ())
    word = "verdict changes" if "verdict" in blank.title.lower() else "marked"
    if word == "verdict changes" and not marked and evidence.mark_rows is not None:
        blank = replace(blank, key="Under none of these settings does the verdict change.")
    return replace(blank, grid=Grid(columns, rows, marked, str(evidence.mark_label or word)))


def _text(blank: Exhibit, evidence: TextBlock, _name: str) -> Exhibit:
    return replace(blank, text=str(evidence.text))


def _stacked(blank: Exhibit, evidence: StackedBars, name: str) -> Exhibit:
    columns = ("row", *(str(segment) for segment in evidence.segments), "cases")
    rows = tuple((str(row.label), *_cells(row, len(columns) - 2), number(row.n)) for row in evidence.rows)
    key = "Figures in the bars: per cent. Bold edges: the paper's; what it does not give is left blank."
    figure = stacked(evidence, name, blank.title)
    return replace(blank, figure=figure, key=key, grid=Grid(columns, rows), folded="The same as a table, intervals too")


def _cells(row: StackedRow, count: int) -> tuple[str, ...]:
    """Each share of one bar with its interval, where it has one."""
    values, low, high = map(finite, (row.values, row.low, row.high))
    cells = [number(value) if math.isfinite(value) else "not given" for value in values[:count]]
    ends = zip(low[:count], high[:count], strict=False)
    spans = [f" [{number(a)}, {number(b)}]" if math.isfinite(a + b) else "" for a, b in ends]
    spans += [""] * (len(cells) - len(spans))
    return (*(cell + span for cell, span in zip(cells, spans, strict=True)), *["not given"] * (count - len(cells)))


def _passages(blank: Exhibit, evidence: Passages, _name: str) -> Exhibit:
    shown = passages_of(evidence)
    marked = any(piece.rank for passage in shown for piece in passage.pieces)
    key = "Marked: what the head attends to most, 1 first. " if marked else ""
    return replace(blank, passages=shown, key=f"{key}Boxed: the token that came next. ␣ a space, ↵ a new line.")


def _head_curves(blank: Exhibit, evidence: HeadCurves, name: str) -> Exhibit:
    series = [one for panel in evidence.panels for one in panel.series]
    columns = (str(evidence.xlabel or "x"), *(str(one.name) for one in series))
    rows = tuple(
        (number(x), *(number(one.y[row]) if row < len(one.y) else "none" for one in series))
        for row, x in enumerate(evidence.x)
    )
    key = f"One curve for each {evidence.each or 'head'}, its name at the end." + (
        " Shaded: the interval." if series and series[0].low else ""
    )
    key += " Behind, at the top: the stages." if evidence.stages else ""
    figure = plots_heads.head_curves(evidence, name, blank.title)
    return replace(blank, figure=figure, key=key, grid=Grid(columns, rows), folded="The same as a table")


def _scatter(blank: Exhibit, evidence: Scatter, name: str) -> Exhibit:
    columns = ("head", "kind", str(evidence.xlabel or "x"), str(evidence.ylabel or "y"))
    rows = tuple((str(point.name), str(point.kind), number(point.x), number(point.y)) for point in evidence.points)
    figure = plots_heads.scatter(evidence, name, blank.title)
    return replace(blank, figure=figure, grid=Grid(columns, rows), folded="The same as a table")


def _cluster_map(blank: Exhibit, evidence: ClusterMap, name: str) -> Exhibit:
    heads, kinds = map(str, evidence.heads), map(str, evidence.kinds_of_heads)
    columns = ("method", "index", *(f"{head} ({kind})" for head, kind in zip(heads, kinds, strict=True)))
    rows = tuple(
        (str(row.name), number(row.agreement), *(str(int(one) + 1) for one in row.clusters)) for row in evidence.rows
    )
    key = "First row: the type by its first letter; below: the cluster. Index: adjusted Rand, 1 the same, 0 chance."
    figure = plots_heads.cluster_map(evidence, name, blank.title)
    return replace(blank, figure=figure, key=key, grid=Grid(columns, rows), folded="The same as a table")


def _pattern(blank: Exhibit, evidence: Patterns, name: str) -> Exhibit:
    key = (
        "Row: the token the head looks from; column: where it looks; the darker (on a dark page, the lighter) the more."
    )
    return replace(blank, figure=plots_heads.pattern_panels(evidence, name, blank.title), key=key)


def _grid_map(blank: Exhibit, evidence: GridMap, name: str) -> Exhibit:
    columns = tuple(map(str, evidence.columns))
    cells = evidence.texts or evidence.values
    corner = " / ".join(filter(None, (evidence.ylabel, evidence.xlabel)))
    head = tuple(map(str, evidence.text_columns or columns))
    names = tuple(map(str, evidence.text_rows or evidence.rows))
    rows = tuple((label, *map(number, row)) for label, row in zip(names, cells, strict=True))
    key = f"Outlined: {evidence.mark_label}." if evidence.marks else ""
    folded = str(evidence.folded or "The same as a table")
    figure = grid_map(evidence, name, blank.title)
    return replace(blank, figure=figure, key=key, grid=Grid((corner, *head), rows), folded=folded)


_MAKERS: Mapping[str, Callable[[Exhibit, Any, str], Exhibit]] = {
    "head_map": _head_map,
    "grid_map": _grid_map,
    "bars": _bars,
    "ranked": _ranked,
    "lines": _lines,
    "distribution": _distribution,
    "table": _table,
    "text": _text,
    "stacked": _stacked,
    "passages": _passages,
    "head_curves": _head_curves,
    "scatter": _scatter,
    "cluster_map": _cluster_map,
    "pattern": _pattern,
}
