"""Evidence beside verdicts on heads: curves, clusters, scatter, panels of data, controls, samples, patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.api import (
    ClusterMap,
    ClusterRow,
    Curve,
    Curves,
    Evidence,
    HeadCurves,
    Panel,
    PatternPanel,
    Patterns,
    RankedBars,
    Scatter,
    ScatterPoint,
    Table,
    kept,
)
from circuit_claims.papers.refined_llc.curves.tables import HeadTable

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.curves.clustering import Clustering
    from circuit_claims.papers.refined_llc.curves.findings import Coefficients
    from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations
    from circuit_claims.papers.refined_llc.runs.live import LiveRun
    from circuit_claims.papers.refined_llc.runs.training_run import Score

KINDS = ["previous-token", "current-token", "induction", "bracket", "multigram"]
Z = 1.645
PATTERN_TOKENS = 20


def _where(table: HeadTable) -> str:
    facts = table.facts
    recorded = facts.get("recorded", {})
    source = ", ".join(str(recorded[name]) for name in ("hardware", "date", "commit") if recorded.get(name))
    spoilt = (
        f" {int((~table.sound).sum())} of {table.sound.size} estimates fail the gate." if (~table.sound).any() else ""
    )
    return (
        f"Text: {facts.get('text')}, as {facts.get('role')}; {facts.get('loss')} loss, {facts.get('setting')} setting. "
        f"Recorded: {source}; {facts.get('measured again here', 0)} cells measured again on this machine.{spoilt}"
    )


def wrllc_curves(
    table: HeadTable, types: Mapping[str, str], title: str = "wrLLC of every head over training", ylabel: str = "wrLLC"
) -> HeadCurves:
    """One panel a layer, a curve a head with its 90 % Monte Carlo band, coloured by type."""
    panels = []
    for layer in sorted({head[0] for head in table.heads}):
        series = []
        for column, head in enumerate(table.heads):
            if head[0] == layer:
                mean, error = table.mean[:, column], table.error[:, column]
                low, high = (mean - Z * error).tolist(), (mean + Z * error).tolist()
                series.append(Curve(name=head, kind=types[head], y=mean.tolist(), low=low, high=high))
        panels.append(Panel(name=f"layer {layer}", series=series))
    caption = f"{_where(table)} Bands: 90 %, Monte Carlo error over chains and draws. Types as at the end of training."
    return HeadCurves(
        title=title,
        caption=caption,
        kinds=KINDS,
        x=list(table.steps),
        xlabel="training step",
        ylabel=ylabel,
        xscale="log",
        panels=panels,
    )


def layer_curves(found: Coefficients, loss: str = "next token") -> Evidence:
    """The mean coefficient of each layer's multigram heads over training, with its 90 % Monte Carlo band."""
    table, series = found.table("training mixture", loss=loss), []
    for layer in (0, 1):
        heads = found.layer(layer, "multigram")
        if heads:
            mine = table.of(heads)
            mean = mine.mean.mean(1)
            half = Z * np.sqrt((mine.error**2).sum(1)) / len(heads)
            name = f"layer {layer}: {', '.join(heads)}"
            series.append(Curve(name=name, y=mean.tolist(), low=(mean - half).tolist(), high=(mean + half).tolist()))
    return Curves(
        title="Mean coefficient of each layer's multigram heads",
        x=list(table.steps),
        caption=f"{_where(table)} Bands: 90 %, Monte Carlo error.",
        xlabel="training step",
        ylabel="wrLLC" if loss == "next token" else "rLLC",
        xscale="log",
        series=series,
    )


def score_curves(run: LiveRun) -> list[Evidence]:
    """Previous-token and prefix scores of every head over training, and K-composition's place among them."""
    types, found = run.head_types(), []
    kinds: dict[Score, str] = {"previous": "previous-token score", "prefix": "prefix-matching (induction) score"}
    for score, words in kinds.items():
        curves = run.head_scores(score)
        panels = [
            Panel(
                name=f"layer {layer}",
                series=[
                    Curve(
                        name=f"{layer}:{head}",
                        kind=types[f"{layer}:{head}"],
                        y=curves.values[:, layer, head].tolist(),
                    )
                    for head in range(curves.values.shape[2])
                ],
            )
            for layer in range(curves.values.shape[1])
        ]
        caption = f"{curves.method}. Thresholds: see the table of types; layer 1 has a baseline from short contexts."
        found.append(
            HeadCurves(
                title=f"{words.capitalize()} over training",
                caption=caption,
                kinds=KINDS,
                x=[int(step) for step in curves.steps],
                xlabel="training step",
                ylabel="mean attention",
                xscale="log",
                panels=panels,
            )
        )
    return found


def types_table(run: LiveRun) -> Evidence:
    """Every head's scores at the end of training, the type they give, and the thresholds."""
    from circuit_claims.heads.head_types import Thresholds

    scores, types = run.scores_at(run.steps[-1]).means(), run.head_types()
    columns = ["previous", "current", "prefix", "bracket", "closing"]
    rows = [
        [head, kind, *(f"{scores[name][int(head[0]), int(head[2:])]:.3f}" for name in columns)]
        for head, kind in types.items()
    ]
    at = Thresholds()
    caption = (
        f"Thresholds: previous-token {at.previous} and current-token {at.current} in layer 0, prefix {at.prefix} in "
        f"layer 1, bracket {at.bracket} with a closing rank of {at.closing}; the rest are multigram heads. Bracket and "
        "current-token rules are this project's: the authors give none."
    )
    return Table(
        title="Head types at the end of training",
        caption=caption,
        columns=["head", "type", *columns],
        rows=rows,
        mark_rows=[index for index, row in enumerate(rows) if row[1] != "multigram"],
        mark_label="no multigram head",
    )


def controls_table(found: Coefficients, ablations: PathAblations) -> Evidence:
    """Beside each head's final wrLLC: the same weights at n beta = 0, as noise, by curvature, ablated, untrained."""
    table, chosen = found.last("training mixture"), found.cells.settings["paper"]
    start = found.untrained("training mixture")
    resampled = ablations.effects(ablations.end, resample=True).mean((2, 3))
    cells = found.cells.select(
        checkpoint=str(found.run.steps[-1]), text=str(table.facts["text"]), loss="next token", setting="paper"
    )
    by_head = {key.weights: cell.numbers for key, cell in cells.items()}
    rows = []
    for column, head in enumerate(table.heads):
        numbers = by_head[head]
        rows.append(
            [
                head,
                found.types[head],
                f"{table.mean[0, column]:.2f} ± {table.error[0, column]:.2f}",
                f"{start.mean[0, column]:.2f}",
                f"{numbers['control_llc']:.2f}",
                f"{numbers['noise_llc']:.2f}",
                f"{chosen.n_beta / (2 * chosen.gamma) * numbers['hessian_trace']:.2f}",
                f"{resampled[int(head[0]), int(head[2:])]:.4f}",
            ]
        )
    caption = (
        f"{_where(table)} Untrained: the same on the initialisation. n beta = 0: weights that never saw the loss. "
        "Noise: isotropic, as long as the chains' displacement. Curvature: n beta / (2 gamma) times the Hessian trace, "
        "the limit of small curvature. Ablation: loss added, in nats, when the head's output comes from another row."
    )
    columns = ["head", "type", "wrLLC", "untrained", "n beta = 0", "noise", "curvature", "ablation"]
    return Table(
        title="Final wrLLC of each head, and its controls", caption=caption, columns=columns, rows=rows, mark_rows=[]
    )


def code_panels(found: Coefficients) -> list[Evidence]:
    """Layer 1 on the training mixture beside code, at the checkpoints where it was recorded on both."""
    heads, roles = found.layer(1), ("training mixture", "code")
    mixture, code = (found.recorded_steps(role, heads) for role in roles)
    steps = [step for step in mixture if step in code]
    if len(steps) < 2:
        return [_ends(found)]
    curves = [
        wrllc_curves(found.table(role, steps, heads=heads), found.types, f"Layer 1 on {role}", "wrLLC on this text")
        for role in roles
    ]
    panels = [
        panel.replaced(name=f"layer 1, {role}") for role, one in zip(roles, curves, strict=True) for panel in one.panels
    ]
    caption = " ".join(one.caption for one in curves)
    title = "wrLLC of layer 1 on the training mixture and on code"
    return [curves[0].replaced(title=title, panels=panels, caption=caption)]


def _ends(found: Coefficients) -> Evidence:
    heads = found.layer(1)
    tables = {role: found.last(role).of(heads) for role in ("training mixture", "code")}
    labels = [f"{head} {role}" for head in heads for role in tables]
    values = [float(table.mean[0, column]) for column in range(len(heads)) for table in tables.values()]
    errors = [float(table.error[0, column]) for column in range(len(heads)) for table in tables.values()]
    return RankedBars(
        title="Final coefficients of layer 1 on the training mixture and on code",
        caption=" ".join(_where(table) for table in tables.values()),
        labels=labels,
        values=values,
        low=[v - Z * e for v, e in zip(values, errors, strict=True)],
        high=[v + Z * e for v, e in zip(values, errors, strict=True)],
        label="coefficient",
    )


def cluster_evidence(found: Coefficients) -> Evidence:
    """Layer 1's curves clustered by every method, against the types."""
    from circuit_claims.papers.refined_llc.curves.clustering import clusterings_of, methods_compared

    def compared(curves: HeadTable, types: list[str]) -> list[Clustering]:
        store, k = found.run.context.store, max(2, len(set(types)))
        return clusterings_of(kept(store, methods_compared, curves.mean.T, curves.heads, types, k))

    table = found.table("training mixture").of(found.layer(1))
    kinds = [found.types[head] for head in table.heads]
    methods = compared(table, kinds)
    both = found.table("training mixture")
    whole = [found.types[head] for head in both.heads]
    wide = compared(both, whole)
    caption = (
        f"{_where(table)} As many clusters as types. Scaled: each curve to mean 0 and variance 1. "
        "With both layers together the index is " + "; ".join(f"{one.label} {one.agreement:.2f}" for one in wide) + "."
    )
    rows = [ClusterRow(name=one.label, clusters=list(one.clusters), agreement=one.agreement) for one in methods]
    return ClusterMap(
        title="Clusters of layer 1's wrLLC curves and head types",
        caption=caption,
        heads=list(table.heads),
        kinds_of_heads=kinds,
        rows=rows,
    )


def multigram_scatter(found: Coefficients, counts: Mapping[str, int]) -> Evidence:
    """Final wrLLC against multigrams, a point a head."""
    table = found.last("training mixture")
    points = [
        ScatterPoint(
            name=head,
            kind=found.types[head],
            x=counts[head],
            y=float(table.mean[0, column]),
            low=float(table.mean[0, column] - Z * table.error[0, column]),
            high=float(table.mean[0, column] + Z * table.error[0, column]),
        )
        for column, head in enumerate(table.heads)
    ]
    caption = (
        f"{_where(table)} Multigrams: different n-grams and skip n-grams among the tokens each head's ablation costs."
    )
    return Scatter(
        title="Final wrLLC against memorised multigrams",
        caption=caption,
        kinds=KINDS,
        xlabel="different multigrams",
        ylabel="wrLLC",
        points=points,
    )


def attention_patterns(
    run: LiveRun, text: str = "def area(width, height): return width * height\nprint(area(width"
) -> Evidence:
    """Where one head of each type looks, on a line of code."""
    import torch

    from circuit_claims.heads.head_types import attention_rows
    from circuit_claims.papers.refined_llc.recording.rows import tokenizer_of

    tokenizer, types = tokenizer_of(run), run.head_types()
    ids = [run.probes.bos, *map(int, tokenizer.encode(text))][-PATTERN_TOKENS - 1 :]
    tokens = torch.tensor([ids]).expand(len(ids), -1)
    looks = attention_rows(run.model(run.steps[-1]), tokens, torch.arange(len(ids))).numpy()
    scores = run.scores_at(run.steps[-1]).means()
    by_kind = {"previous-token": "previous", "current-token": "current", "induction": "prefix", "bracket": "bracket"}
    panels = []
    for kind in KINDS:
        heads = [head for head, found in types.items() if found == kind]
        if heads:
            score = scores.get(by_kind.get(kind, ""), np.zeros((2, 8)))
            head = max(heads, key=lambda name: score[int(name[0]), int(name[2:])])
            rows = looks[:, int(head[0]), int(head[2:])].tolist()
            panels.append(
                PatternPanel(name=f"{head} {kind}", tokens=[tokenizer.decode([each]) for each in ids], rows=rows)
            )
    return Patterns(
        title="Where one head of each type looks",
        panels=panels,
        caption="The head of each type with the highest score, at the end of training.",
    )


def measured_again(found: Coefficients) -> Evidence:
    """The recorded cells that this run measured anew, beside what was recorded."""
    from circuit_claims.papers.refined_llc.recording.compare import FALSE_ALARM

    rows = [
        [
            str(one.key),
            f"{one.recorded:.3f}",
            f"{one.live:.3f}",
            f"{one.allowed:.3f}",
            "agrees" if one.agrees else "differs",
        ]
        for one in found.again
    ]
    caption = (
        "Chosen at random in each run, with other random numbers. Allowed: the difference that Monte Carlo error alone "
        f"goes beyond once in {1 / FALSE_ALARM:,.0f} comparisons."
    )
    if not rows:
        caption = (
            "None: no text that cells were recorded on is here as it was then (Python's own change with its version; "
            "others are given with --texts FOLDER), or all cells were measured anew."
        )
    return Table(
        title="Recorded cells measured again on this machine",
        caption=caption,
        columns=["cell", "recorded", "live", "allowed difference", "outcome"],
        rows=rows,
        mark_rows=[],
    )


def by_data(found: Coefficients) -> Evidence:
    """The drLLC on each data set, with every chain's own value in the table."""
    measured = found.data_refined().measurement
    cells = found.cells.select(checkpoint=str(found.run.steps[-1]), weights="all", loss="next token", setting="paper")
    ordered = sorted(cells.values(), key=lambda cell: -cell.mean)
    caption = (
        "All weights sampled, at the end of training. Bars: 90 %, Monte Carlo error. "
        f"Failing the gate: {', '.join(measured.facts['fail the gate']) or 'none'}."
    )
    return RankedBars(
        title="drLLC by data set",
        caption=caption,
        label="drLLC",
        labels=[cell.key.text for cell in ordered],
        values=[cell.mean for cell in ordered],
        low=[cell.mean - Z * cell.error for cell in ordered],
        high=[cell.mean + Z * cell.error for cell in ordered],
    )
