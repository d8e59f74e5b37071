"""Evidence beside verdicts on a run's training: curves with the stages marked, tables of boundaries and changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import (
    Curve,
    Curves,
    Evidence,
    Finding,
    HeadCurves,
    Measurement,
    NullDistribution,
    Panel,
    Scatter,
    ScatterPoint,
    Table,
)
from circuit_claims.papers.refined_llc.runs.training_run import Score
from circuit_claims.papers.refined_llc.stages.boundaries import PUBLISHED_BOUNDARIES, STAGE_NAMES
from circuit_claims.papers.refined_llc.stages.head_quantities import TYPE_OF
from circuit_claims.papers.refined_llc.stages.measures import LENGTHS, Stages, llc_of
from circuit_claims.papers.refined_llc.stages.run_measures import Composition, Heads

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

KINDS = ["previous-token", "current-token", "induction", "bracket", "multigram"]
Z, NOISE_DRAWS = 1.645, 200
SHOWN = 90  # points a curve: more would only make the page heavy
SCORE_WORDS: dict[Score, str] = {"previous": "previous-token score", "prefix": "prefix-matching (induction) score"}
STAGES = [
    [name, first, last]
    for name, first, last in zip(STAGE_NAMES, PUBLISHED_BOUNDARIES, PUBLISHED_BOUNDARIES[1:], strict=False)
]


def thinned(steps: Int[np.ndarray, " n"] | Float[np.ndarray, " n"], most: int = SHOWN) -> Int[np.ndarray, " m"]:
    """Rows to draw: at most `most`, evenly spread in log step, first and last among them."""
    if len(steps) <= most:
        return np.arange(len(steps))
    places = np.log1p(np.asarray(steps, dtype=np.float64))
    wanted = np.linspace(places[0], places[-1], most)
    return np.unique(np.abs(places[None] - wanted[:, None]).argmin(1))


def _curves(
    run: Any, title: str, caption: str, ylabel: str, kinds: list[str], x: Any, panel: Panel, each: str = ""
) -> Evidence:
    """The published stages are those of the published run: another run's steps have other tokens behind them."""
    stages = () if run.kind == "own" else STAGES
    words = caption if run.kind == "own" else f"{caption} Stages as published."
    return HeadCurves(
        title=title,
        caption=words,
        kinds=kinds,
        xlabel="training step",
        ylabel=ylabel,
        xscale="log",
        x=[round(float(step)) for step in x],
        panels=[panel],
        stages=stages,
        each=each,
    )


def _series(name: str, kind: str, table: Measurement, rows: Any, at: int = 0) -> Curve:
    found = {key: np.asarray(table.arrays[key])[rows] for key in ("curve", "low", "high")}
    found = {key: values[:, at] if values.ndim > 1 else values for key, values in found.items()}
    return Curve(
        name=name, kind=kind, y=found["curve"].tolist(), low=found["low"].tolist(), high=found["high"].tolist()
    )


def head_score_curves(found: Heads, score: Score) -> Evidence:
    """The score over training of every head of the layer that the type is looked for in, named, coloured by type."""
    table, types = found.leaders(score).measurement, found.run.head_types()
    layer, rows = TYPE_OF[score][1], thinned(table.arrays["steps"])
    series = [
        _series(f"{layer}:{head}", types[f"{layer}:{head}"], table, rows, head)
        for head in range(table.arrays["curve"].shape[1])
    ]
    caption = f"Bands: 90 %, {table.facts['method']}. Types as at the end of training."
    return _curves(
        found.run,
        f"{SCORE_WORDS[score].capitalize()} over training",
        caption,
        "mean attention",
        KINDS,
        table.arrays["steps"][rows],
        Panel(name=f"layer {layer}", series=series),
    )


def score_null(found: Heads, score: Score) -> Evidence:
    """The best score before training, against the one at the end."""
    table = found.best(score).measurement
    return NullDistribution(
        title=f"The best head at the first checkpoint: {SCORE_WORDS[score]}",
        caption=f"{table.facts['head']} leads at the end; p = {table.p_value:.2g}.",
        values=table.arrays["null"].tolist(),
        observed=float(table.value),  # type: ignore[arg-type]
        label="highest score in the layer",
    )


def formation_table(found: Heads) -> Evidence:
    """When each type has made half of its rise, with the interval of its draws."""
    table = found.formation().measurement
    rows = []
    for column, kind in enumerate(table.facts["types"]):
        half, draws = table.facts["half"][column], table.arrays["half"][:, column]
        known = draws[np.isfinite(draws)]
        ends = f"{np.quantile(known, 0.05):,.0f} to {np.quantile(known, 0.95):,.0f}" if len(known) else "none"
        rows.append([kind, "never" if half is None else f"{half:,.0f}", ends])
    return Table(
        title="Step at which each type has made half of its rise",
        caption="Mean score of the type's two leading heads, from its least value to its last.",
        columns=["type", "step", "90 % of draws"],
        rows=rows,
        mark_rows=[],
    )


def loss_curves(run: LiveRun) -> list[Evidence]:
    """Loss on batches and on held-out rows over training, and its first steps in bf16 beside the same in fp32."""
    own, plain = run.run.losses(), run.run.losses(fp32=True)
    return ([_losses(own)] if own else []) + ([_precisions(own, plain)] if own and plain else [])


def _losses(own: dict[str, list[float]]) -> Evidence:
    tested = np.flatnonzero(np.isfinite(own["test_loss"]))
    rows = np.union1d(thinned(np.asarray(own["step"])), tested[thinned(np.asarray(own["step"])[tested])])
    named = {"training batch": "train_loss", "held-out rows": "test_loss"}
    series = [Curve(name=name, y=[own[key][row] for row in rows]) for name, key in named.items()]
    return Curves(
        title="Loss over training",
        caption="Mean over tokens, in nats.",
        x=[own["step"][row] for row in rows],
        xlabel="training step",
        ylabel="loss",
        xscale="log",
        series=series,
    )


def _precisions(own: dict[str, list[float]], plain: dict[str, list[float]]) -> Evidence:
    """The training loss at the steps that both curves have."""
    rounded, exact = (dict(zip(each["step"], each["train_loss"], strict=True)) for each in (own, plain))
    steps = [step for step in exact if step in rounded and np.isfinite(exact[step]) and np.isfinite(rounded[step])]
    apart = [rounded[step] - exact[step] for step in steps]
    widest = max(map(abs, apart), default=float("nan"))
    caption = (
        "The same initialisation, batches and settings. The two differ by at most "
        f"{widest:.4f} nats, {float(np.mean(apart)):+.4f} in the mean."
    )
    return Curves(
        title="The first steps in bf16 and in fp32",
        caption=caption,
        x=steps,
        xlabel="training step",
        ylabel="loss on the training batch",
        xscale="log",
        series=[
            Curve(name="bf16 products", y=[rounded[step] for step in steps]),
            Curve(name="fp32", y=[exact[step] for step in steps]),
        ],
    )


def composition_curves(found: Composition) -> Evidence:
    """Mean K-composition with multigram heads of layer 1 over training, by the type of the writing head."""
    series, x = [], []
    for writers, name in (("multigram", "multi"), ("previous-token", "prev.")):
        table = found.table(found.run, writers)
        if table.status == "complete":
            rows = thinned(table.arrays["steps"])
            series.append(_series(name, writers, table, rows))
            x = table.arrays["steps"][rows]
    caption = "Bands: 90 %, bootstrap over heads of both layers. An initialisation has 1/16 = 0.0625."
    return _curves(
        found.run,
        "K-composition with multigram heads of layer 1 over training",
        caption,
        "K-composition",
        ["multigram", "previous-token"],
        x,
        Panel(name="by type of writer", series=series),
        "type of writing head",
    )


def coefficient_curves(found: Stages) -> Evidence:
    """The LLC as published and corrected at single checkpoints, not smoothed; the stages shaded."""
    series, x = [], []
    for corrected, name, kind in ((False, "pub.", "as published"), (True, "corr.", "corrected")):
        curves = llc_of(found.run, corrected=corrected)
        rows = thinned(curves.steps)
        x, draws = curves.steps[rows], np.random.default_rng(found.seed)
        spread = np.stack([curves.draw(draws)[rows] for _ in range(NOISE_DRAWS)]).std(0)
        values = curves.values[rows]
        series.append(
            Curve(
                name=name,
                kind=kind,
                y=values.tolist(),
                low=(values - Z * spread).tolist(),
                high=(values + Z * spread).tolist(),
            )
        )
    caption = (
        f"Single checkpoints, {len(x)} of them drawn; bands: 90 %, {curves.method}. Corrected: less 10.26 times the "
        "test loss, which the published first-generation estimator leaves in."
    )
    return _curves(
        found.run,
        "The model's LLC over training",
        caption,
        "LLC",
        ["as published", "corrected"],
        x,
        Panel(name="two-layer model", series=series),
        "estimator",
    )


def boundaries_table(found: Stages) -> Evidence:
    """Stage boundaries under every smoothing length, as published and corrected, in steps."""
    rows = []
    for corrected, words in ((False, "as published"), (True, "corrected")):
        for length in LENGTHS:
            table = found.table(corrected=corrected, length=length)
            name = f"{length:g}" if length else f"likeliest ({table.facts['length']:.2g})"
            rows.append([words, name, *(_place(table, at) for at in range(len(table.arrays["y"])))])
    ends = [f"end of {name}" for name in STAGE_NAMES[:-1]]
    return Table(
        title="Stage boundaries by smoothing and correction",
        caption="Steps, in brackets the simultaneous 90 % band. Published: 900; 6,500; 8,500; 17,000. The first "
        "row is the setting that is judged; length is the smoothing kernel's, in e-foldings of the step.",
        columns=["curve", "length", *ends],
        rows=rows,
        mark_rows=[],
    )


def _place(table: Measurement, at: int) -> str:
    value, low, high = (float(table.arrays[name][at]) for name in ("y", "low", "high"))
    if np.isnan(value):
        return "none"
    band = f" ({2**low:,.0f} to {2**high:,.0f})" if np.isfinite([low, high]).all() else ""
    return f"{2**value:,.0f}{band}"


def changes_table(found: Stages) -> Evidence:
    """Change of the LLC over each published stage: two-layer model as published and corrected, one-layer model."""
    columns = [found.changes(), found.changes(corrected=True), found.changes(n_layers=1)]
    rows = [
        [f"{name}: {first:,} to {last:,}", *(_change(table, at) for table in columns)]
        for at, (name, first, last) in enumerate(STAGES)
    ]
    return Table(
        title="Change of the LLC over each stage",
        caption="In brackets the simultaneous 90 % band, noise of single checkpoints. The last stage ends "
        "at the last checkpoint that has a coefficient.",
        columns=["stage", "two layers, as published", "two layers, corrected", "one layer, as published"],
        rows=rows,
        mark_rows=[STAGE_NAMES.index("LM3")],
        mark_label="the fall",
    )


def _change(table: Measurement, at: int) -> str:
    value, low, high = (float(table.arrays[name][at]) for name in ("y", "low", "high"))
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def apart(values: Float[np.ndarray, " n"], rows: Int[np.ndarray, " m"], least: float = 0.05) -> list[int]:
    """Those of `rows` whose values lie at least the share `least` of their range from one kept before, the last first.

    >>> apart(np.array([9.0, 5.0, 4.9, 1.0, 1.1]), np.arange(5))
    [4, 2, 0]
    """
    gap, kept = least * float(np.ptp(values[rows])), list[int]()
    for row in map(int, rows[::-1]):
        if all(abs(values[row] - values[other]) >= gap for other in kept):
            kept.append(row)
    return kept


def spread_scatter(found: Stages) -> Evidence:
    """The LLC's spread over chains against the test loss at some checkpoints, named by step."""
    table = found.spread().measurement
    rows = apart(table.arrays["loss"], thinned(table.arrays["steps"], most=16))
    points = [
        ScatterPoint(
            name=f"{int(table.arrays['steps'][row]):,}",
            kind="checkpoint",
            x=float(table.arrays["loss"][row]),
            y=float(table.arrays["spread"][row]),
        )
        for row in rows
    ]
    facts = table.facts
    caption = (
        f"A point a checkpoint, {len(rows)} of {table.n}, named by its step. Over all: correlation "
        f"{facts['correlation']:.3f}, median ratio {facts['median ratio']:.2f}, line with an intercept "
        f"{facts['slope']:.2f} x loss + {facts['offset']:.2f}. 20 chains that agree perfectly give 6.39 x loss."
    )
    return Scatter(
        title="Spread of the LLC over chains against the test loss",
        caption=caption,
        kinds=["checkpoint"],
        xlabel="test loss in nats",
        ylabel="spread of the LLC",
        points=points,
    )


def seeds_table(found: Finding) -> Evidence:
    """The claimed seed and the others against the run's first checkpoint."""
    matches = [found.measurement, *(measured() for measured in found.controls.values())]
    rows = [
        [
            str(match.seed),
            f"{match.value:.4f}",
            f"{match.facts['largest_difference']:.4f}",
            f"{match.facts['total_norm']:.3f}",
            f"{match.facts['recorded_total_norm']:.3f}",
        ]
        for match in matches
    ]
    return Table(
        title="Initialisations by seed, against the published run after one update",
        caption="Row norms of W_pos. One step of AdamW moves each of a row's 256 numbers by 0.001, so a norm by "
        "0.016 at the very most and by about 0.001 if the signs are as good as random.",
        columns=["seed", "correlation", "largest difference of a row", "norm of all weights", "published"],
        rows=rows,
        mark_rows=[0],
        mark_label="published seed",
    )
