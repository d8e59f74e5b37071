"""What is shown beside a verdict, as types: one for each kind of figure the report draws, checked when it is made.

A wrong field, a shape that does not fit, a label too few is an `EvidenceError` where the evidence is made, with the
name of the field that was meant; not a gap in the finished report. `to_json` is what the event stream holds,
`from_json` its inverse. A paper that needs another kind derives from `Evidence` and declares how it is drawn.

Numbers may be None or NaN where there is none; arrays of numpy are taken as they are. Read `Evidence` first.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainValidator, ValidationError, model_validator

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.evidence_fields import (
    Cells,
    Number,
    NumberRows,
    Numbers,
    Places,
    Scale,
    Word,
    Words,
    band_field,
    null_field,
    promoted_field,
    stages_field,
    wholes_field,
)


class EvidenceError(ClaimsError, ValueError):
    """Evidence that cannot be drawn as it was given; the text names the field and what it should hold.

    >>> try:
    ...     ScatterPoint(name="L5H1", x="far", y=0.8)
    ... except EvidenceError as error:
    ...     print("x" in str(error))
    True
    """


T = TypeVar("T")
Many = Annotated[Sequence[T], AfterValidator(tuple)]


class Part(BaseModel):
    """Base of evidence and of its parts: immutable, every field checked when made. Raises `EvidenceError`."""

    # A session that only collects makes no evidence: what checks the fields is built when a first one is made.
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    if not TYPE_CHECKING:  # a type checker reads the fields

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise EvidenceError(_refusal(type(self), fields, error)) from None

    def replaced(self, **fields: Any) -> Self:
        """The same with `fields` changed, checked anew."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | fields)


def _refusal(kind: type[Part], fields: Mapping[str, Any], error: ValidationError) -> str:
    name = next((repr(fields[key]) for key in ("title", "name", "label") if isinstance(fields.get(key), str)), "")
    lines = [f"{kind.__name__} {name}".rstrip() + " cannot be drawn as it was given"]
    for one in error.errors():
        place = ".".join(map(str, one["loc"]))
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(one["loc"][-1]), kind.model_fields, n=1, cutoff=0.5)
            message = "no such field" + (f"; did you mean {near[0]!r}?" if near else "")
            message += f" The fields are {', '.join(kind.model_fields)}."
        elif one["type"] == "missing":
            message = "is missing"
        lines.append(f"  {place}: {message}" if place else f"  {message}")
    return "\n".join(lines)


def _fit(what: str, found: Sequence[Any] | None, where: str, expected: int) -> None:
    if found is not None and len(found) != expected:
        raise ValueError(f"{what}: expected {expected} entries, as many as {where}, found {len(found)}")


class Evidence(Part):
    """One figure, table or text beside a verdict. `title` is required; `caption` says how to read it and from what.

    >>> TextBlock(title="A note", text="said").to_json()
    {'type': 'text', 'title': 'A note', 'text': 'said'}
    >>> TextBlock(title="A note", txt="said")
    Traceback (most recent call last):
    circuit_claims.judging.evidence.EvidenceError: TextBlock 'A note' cannot be drawn as it was given
      text: is missing
      txt: no such field; did you mean 'text'? The fields are title, caption, text.
    """

    type: ClassVar[str] = ""
    title: Word
    caption: Word = ""

    @model_validator(mode="after")
    def _titled(self) -> Self:
        if not self.title:
            raise ValueError("title: expected words that say what is shown, found none")
        return self

    def to_json(self) -> dict[str, Any]:
        """The fields that were given, as plain lists, numbers and texts, under the name of the `type`."""
        return {"type": self.type, **_plain(self.model_dump(exclude_unset=True))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


class HeadMap(Evidence):
    """A heat map over layers (rows) and heads (columns) of one model.

    `mark` lists heads, (layer, head), outlined and named; `head_names` "1:6" names heads as the second
    paper does. `vmin` and `vmax` are the ends of the scale, by default around the values.

    >>> HeadMap(title="Score of every head", values=[[0.1, 0.9], [0.2, None]], mark=[(0, 1)]).mark
    ((0, 1),)
    """

    type: ClassVar[str] = "head_map"
    values: NumberRows
    label: Word = ""
    vmin: Number = None
    vmax: Number = None
    mark: Places = ()
    head_names: Literal["L12H0", "1:6"] = "L12H0"

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if not any(map(len, self.values)):
            raise ValueError("values: expected a row of heads for each layer, found none")
        _marks_inside("mark", self.mark, self.values)
        return self


def _marks_inside(what: str, marks: Sequence[Any], values: Sequence[Sequence[Any]]) -> None:
    for row, column in marks:
        if not (0 <= row < len(values) and 0 <= column < len(values[row])):
            raise ValueError(f"{what}: ({row}, {column}) lies outside the map of {len(values)} rows")


class GridMap(Evidence):
    """A heat map with named rows and columns; the cells in `marks`, (row, column), are outlined.

    `texts`, with `text_rows` and `text_columns`, is the table behind it where that should say something else.

    >>> GridMap(title="Cosines", rows=["P0"], columns=["f0", "f1"], values=[[1.0, 0.1]]).columns
    ('f0', 'f1')
    """

    type: ClassVar[str] = "grid_map"
    rows: Words
    columns: Words
    values: NumberRows
    label: Word = ""
    vmin: Number = None
    vmax: Number = None
    marks: Places = ()
    mark_label: Word = ""
    ylabel: Word = ""
    xlabel: Word = ""
    folded: Word = ""
    texts: Cells | None = None
    text_rows: Words | None = None
    text_columns: Words | None = None

    @model_validator(mode="after")
    def _shaped(self) -> Self:
        _shape("values", self.values, self.rows, self.columns)
        if self.texts is not None:
            _shape("texts", self.texts, self.text_rows or self.rows, self.text_columns or self.columns)
        _marks_inside("marks", self.marks, self.values)
        if self.marks and not self.mark_label:
            raise ValueError("mark_label: expected what the outlined cells are, found none")
        return self


def _shape(what: str, cells: Sequence[Sequence[Any]], rows: Sequence[str], columns: Sequence[str]) -> None:
    _fit(what, cells, "rows", len(rows))
    for number, row in enumerate(cells):
        _fit(f"{what}, row {number}", row, "columns", len(columns))


class Bars(Evidence):
    """One bar a label, with its interval where `low` and `high` are given, the paper's `threshold` and the `null`.

    `null` is one number for all bars, or for each a number or a pair.

    >>> Bars(title="By task", labels=["days", "months"], values=[0.4, 0.5], low=[0.3])
    Traceback (most recent call last):
    circuit_claims.judging.evidence.EvidenceError: Bars 'By task' cannot be drawn as it was given
      low: expected 2 entries, as many as labels, found 1
    """

    type: ClassVar[str] = "bars"
    labels: Words
    values: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    label: Word = ""
    threshold: Number = None
    null: Annotated[Any, PlainValidator(null_field)] = None
    null_band: Annotated[Sequence[float | None] | None, PlainValidator(lambda band: band and band_field(band))] = None

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        for name in ("values", "low", "high"):
            _fit(name, getattr(self, name), "labels", len(self.labels))
        if isinstance(self.null, tuple):
            _fit("null", self.null, "labels", len(self.labels))
        return self


class RankedBars(Bars):
    """One point a label with its interval, best first as given; `null_band` is where the best would lie by chance.

    >>> RankedBars(title="Best heads", labels=["L5H1"], values=[0.9], null_band=[0.1, 0.2]).type
    'ranked'
    """

    type: ClassVar[str] = "ranked"


class Curve(Part):
    """One curve: its name, a number for each x, a band where `low` and `high` are given, and what `kind` it is of.

    >>> Curve(name="L5H1", y=[0.0, 0.5]).y
    (0.0, 0.5)
    """

    name: Word
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    kind: Word = ""


def _curves_fit(curves: Sequence[Curve], x: Sequence[Any]) -> None:
    for curve in curves:
        for name in ("y", "low", "high"):
            _fit(f"{name} of {curve.name!r}", getattr(curve, name), "x", len(x))


class Curves(Evidence):
    """Up to six curves over one x, drawn in one figure.

    >>> Curves(title="Loss", x=[1, 10], series=[Curve(name="train", y=[9.0, 5.0])], xscale="log").series[0].name
    'train'
    """

    type: ClassVar[str] = "lines"
    x: Numbers
    series: Many[Curve]
    xlabel: Word = ""
    ylabel: Word = ""
    xscale: Scale = "linear"

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        _curves_fit(self.series, self.x)
        return self


class Panel(Part):
    """One of several figures below each other: a name and its curves.

    >>> Panel(name="layer 0", series=[Curve(name="L0H1", y=[0.1, 0.7])]).series[0].name
    'L0H1'
    """

    name: Word
    series: Many[Curve]


class HeadCurves(Evidence):
    """Panels of curves, one a head, named at its end and coloured by its kind; `kinds` gives the order of colours.

    A kind that is not listed is grey. `stages` are (name, first x, last x), shaded behind; `each` says what a curve
    is where it is not a head.

    >>> one = Curve(name="L0H1", y=[0.1, 0.7], kind="induction")
    >>> panel = Panel(name="layer 0", series=[one])
    >>> HeadCurves(title="Scores", x=[0, 100], panels=[panel], kinds=["induction"]).panels[0].name
    'layer 0'
    """

    type: ClassVar[str] = "head_curves"
    x: Numbers
    panels: Many[Panel]
    kinds: Words = ()
    xlabel: Word = ""
    ylabel: Word = ""
    xscale: Scale = "linear"
    stages: Annotated[Sequence[Any], PlainValidator(stages_field)] = ()
    each: Word = ""

    @model_validator(mode="after")
    def _as_long(self) -> Self:
        for panel in self.panels:
            _curves_fit(panel.series, self.x)
        return self


class NullDistribution(Evidence):
    """A histogram of draws under the null, and the observed value as a line.

    >>> NullDistribution(title="Best of all heads", values=[0.1, 0.2], observed=0.9, label="score").observed
    0.9
    """

    type: ClassVar[str] = "distribution"
    values: Numbers
    observed: Number = None
    label: Word = ""


class Table(Evidence):
    """A table: names of columns, rows of texts and numbers; `mark_rows` are set off, `mark_label` says as what.

    >>> Table(title="Heads", columns=["head", "score"], rows=[["L5H1"]])
    Traceback (most recent call last):
    circuit_claims.judging.evidence.EvidenceError: Table 'Heads' cannot be drawn as it was given
      rows, row 0: expected 2 entries, as many as columns, found 1
    """

    type: ClassVar[str] = "table"
    columns: Words
    rows: Cells
    mark_rows: Annotated[
        Sequence[int] | None, PlainValidator(lambda rows: None if rows is None else wholes_field(rows))
    ] = None
    mark_label: Word = ""

    @model_validator(mode="after")
    def _shaped(self) -> Self:
        for number, row in enumerate(self.rows):
            _fit(f"rows, row {number}", row, "columns", len(self.columns))
        outside = [row for row in self.mark_rows or () if not 0 <= row < len(self.rows)]
        if outside:
            raise ValueError(f"mark_rows: expected rows from 0 to {len(self.rows) - 1}, found {outside[0]}")
        return self


class TextBlock(Evidence):
    """Words alone, line by line as written.

    >>> TextBlock(title="What was left out", text="Rows without a bracket.").text
    'Rows without a bracket.'
    """

    type: ClassVar[str] = "text"
    text: Word


class StackedRow(Part):
    """One stacked bar: a share for each segment, None for one that is not given, or no shares where `n` is 0.

    >>> StackedRow(label="the paper's", values=[0.3, None], paper=True).values
    (0.3, None)
    """

    label: Word
    values: Numbers
    low: Numbers = ()
    high: Numbers = ()
    n: Number = None
    paper: bool = False


class StackedBars(Evidence):
    """Stacked bars of shares from 0 to 1; a row with `paper` set is the paper's and is drawn with a bold edge.

    >>> row = StackedRow(label="measured", values=[0.5, 0.5], n=40)
    >>> StackedBars(title="Kinds of case", segments=["copies", "other"], rows=[row]).rows[0].n
    40
    """

    type: ClassVar[str] = "stacked"
    segments: Words
    rows: Many[StackedRow]
    label: Word = ""

    @model_validator(mode="after")
    def _shaped(self) -> Self:
        for row in self.rows:
            for name in ("values", "low", "high"):
                if getattr(row, name):
                    _fit(f"{name} of {row.label!r}", getattr(row, name), "segments", len(self.segments))
        return self


class PassageToken(Part):
    """A token of a passage; `rank` n marks the n-th most attended, with its `share` of the attention.

    >>> PassageToken(text=" Monday", rank=1, share=0.75).share
    0.75
    """

    text: Word
    rank: int = 0
    share: Number = None


class PassageExample(Part):
    """The end of a prefix, the token that came `next`, and the tokens `promoted` with their logits.

    >>> example = PassageExample(tokens=[PassageToken(text=" Monday")], next=" Tuesday", promoted=[[" Tuesday", 9.5]])
    >>> example.tokens[0].text, example.next
    (' Monday', ' Tuesday')
    """

    tokens: Many[PassageToken]
    next: Word
    label: Word = ""
    note: Word = ""
    promoted: Annotated[Sequence[Any], PlainValidator(promoted_field)] = ()


class Passages(Evidence):
    """Passages of text for a person to check, the tokens that a head attends to marked.

    >>> tokens = [PassageToken(text="on"), PassageToken(text=" Monday", rank=1, share=0.75)]
    >>> Passages(title="A sample", examples=[PassageExample(tokens=tokens, next=" Tuesday")]).examples[0].next
    ' Tuesday'
    """

    type: ClassVar[str] = "passages"
    examples: Many[PassageExample]


class ScatterPoint(Part):
    """A named point, with an interval along y where `low` and `high` are given.

    >>> ScatterPoint(name="L5H1", x=0.9, y=0.8, low=0.7, high=0.85).high
    0.85
    """

    name: Word
    x: Number
    y: Number
    kind: Word = ""
    low: Number = None
    high: Number = None


class Scatter(Evidence):
    """Named points, coloured by kind; `kinds` gives the order of colours, a kind that is not listed is grey.

    >>> point = ScatterPoint(name="L5H1", x=0.9, y=0.8)
    >>> Scatter(title="Matching and copying", points=[point], xlabel="matching", ylabel="copying").points[0].x
    0.9
    """

    type: ClassVar[str] = "scatter"
    points: Many[ScatterPoint]
    kinds: Words = ()
    xlabel: Word = ""
    ylabel: Word = ""


class ClusterRow(Part):
    """One way of clustering: the cluster of each head, and how well it agrees with the types.

    >>> ClusterRow(name="k-means", clusters=[0, 1, 0], agreement=0.5).clusters
    (0, 1, 0)
    """

    name: Word
    clusters: Annotated[Sequence[int], PlainValidator(wholes_field)]
    agreement: Number


class ClusterMap(Evidence):
    """Clusters of heads by several methods, beside the heads' types.

    >>> row = ClusterRow(name="k-means", clusters=[0, 1], agreement=1.0)
    >>> ClusterMap(title="Clusters", heads=["1:0", "1:6"], kinds_of_heads=["a", "b"], rows=[row]).heads
    ('1:0', '1:6')
    """

    type: ClassVar[str] = "cluster_map"
    heads: Words
    kinds_of_heads: Words
    rows: Many[ClusterRow]

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        _fit("kinds_of_heads", self.kinds_of_heads, "heads", len(self.heads))
        for row in self.rows:
            _fit(f"clusters of {row.name!r}", row.clusters, "heads", len(self.heads))
        return self


class PatternPanel(Part):
    """One head's attention: a row for each token it looks from, a column for each it looks at.

    >>> PatternPanel(name="L5H1", tokens=["a", "b"], rows=[[1, 0], [0.2, 0.8]]).rows[1]
    (0.2, 0.8)
    """

    name: Word
    tokens: Words
    rows: NumberRows

    @model_validator(mode="after")
    def _square(self) -> Self:
        _shape("rows", self.rows, self.tokens, self.tokens)
        return self


class Patterns(Evidence):
    """Attention patterns as triangles, tokens on both sides.

    >>> panel = PatternPanel(name="L5H1", tokens=["a", "b"], rows=[[1, 0], [0.2, 0.8]])
    >>> Patterns(title="Where it looks", panels=[panel]).panels[0].rows[1]
    (0.2, 0.8)
    """

    type: ClassVar[str] = "pattern"
    panels: Many[PatternPanel]


KINDS: Mapping[str, type[Evidence]] = {
    kind.type: kind
    for kind in (
        HeadMap, GridMap, Bars, RankedBars, Curves, HeadCurves, NullDistribution, Table, TextBlock, StackedBars,
        Passages, Scatter, ClusterMap, Patterns,
    )
}  # fmt: skip


def evidence_from_json(record: Mapping[str, Any], kinds: Mapping[str, type[Evidence]] = KINDS) -> Evidence:
    """The evidence that `to_json` wrote; `kinds` by type, the papers' own among them. Raises `EvidenceError`.

    >>> from_json({"type": "tabel", "title": "Heads"})
    Traceback (most recent call last):
    circuit_claims.judging.evidence.EvidenceError: evidence of the unknown type 'tabel'; did you mean 'table'?
    """
    fields = dict(record)
    name = str(fields.pop("type", None))
    if name not in kinds:
        near = difflib.get_close_matches(name, kinds, n=1)
        raise EvidenceError(f"evidence of the unknown type {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return kinds[name](**fields)
