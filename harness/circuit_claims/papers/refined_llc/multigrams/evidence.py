"""Evidence beside verdicts on multigrams and on heads that work together: samples, maps of pairs, nested brackets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Evidence, GridMap, RankedBars, Table

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations


def pair_map(
    ablations: PathAblations,
    title: str,
    caption: str,
    label: str,
    values: np.ndarray,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Evidence:
    """A cell for each pair of a layer-0 head (row) and a layer-1 head (column), pairs of multigram heads outlined."""
    marks = [[row, column] for row in ablations.multigram_heads(0) for column in ablations.multigram_heads(1)]
    return GridMap(
        title=title,
        caption=caption,
        values=values.tolist(),
        label=label,
        rows=[f"0:{head}" for head in range(len(values))],
        columns=[f"1:{head}" for head in range(len(values[0]))],
        marks=marks,
        mark_label="pairs of multigram heads",
        ylabel="head of layer 0",
        xlabel="head of layer 1",
        folded="Every pair as a table",
        vmin=vmin,
        vmax=vmax,
    )


def overlap_maps(ablations: PathAblations) -> list[Evidence]:
    """How far the tokens that two heads affect most coincide, for every pair of a layer-0 and a layer-1 head."""
    from circuit_claims.papers.refined_llc.multigrams.ratios import TOP, overlaps

    tables = {name: overlaps(ablations.effects(name)) for name in (ablations.early, ablations.end)}
    highest = max(float(table.max()) for table in tables.values())
    caption = (
        f"Jaccard overlap of the {TOP:.0%} of tokens that each of two heads' ablation costs most; sets that have "
        f"nothing to do with each other share {TOP / (2 - TOP):.1%}."
    )
    return [
        pair_map(ablations, f"Affected tokens in common at step {int(name):,}", caption, "overlap", table, 0.0, highest)
        for name, table in tables.items()
    ]


def overlap_bars(ablations: PathAblations) -> Evidence:
    """The mean overlap over pairs of multigram heads before training, early on and at the end, with its interval."""
    rows = [(name, ablations.mean_overlap(name)) for name in ("untrained", ablations.early, ablations.end)]
    labels = ["untrained" if name == "untrained" else f"step {int(name):,}" for name, _ in rows]
    found = [interval for _, interval in rows]
    return RankedBars(
        title="Mean overlap over pairs of multigram heads",
        labels=labels,
        caption="Bars: 90 %, bootstrap over rows of text. The claim is on the last over the one before it.",
        label="overlap of affected tokens",
        values=[value for value, _, _ in found],
        low=[low for _, low, _ in found],
        high=[high for _, _, high in found],
    )


def sample_table(ablations: PathAblations) -> list[Evidence]:
    """Counts of labels of each head under both sets of rules, and samples that a person can check."""
    from circuit_claims.papers.refined_llc.multigrams.labels import LABELS
    from circuit_claims.papers.refined_llc.multigrams.measures import RULES

    found, heads = ablations.samples(ablations.end), ablations.samples(ablations.end).facts["heads"]
    counts = [ablations.counts(rule=rule) for rule in RULES]
    rows = []
    for number, head in enumerate(heads):
        mine = found.arrays["label"][found.arrays["head"] == number]
        each = [(mine == label).sum(0) for label in range(len(LABELS))]
        labels = [f"{by_context} / {by_source}" for by_context, by_source in each]
        rows.append([head, ablations.types[head], counts[0][head], counts[1][head], *labels])
    same, kappa = found.facts["agreement"], found.facts["kappa"]
    words = (
        "no samples"
        if same is None
        else f"both agree on {same:.0%}" + ("" if kappa is None else f", kappa {kappa:.2f}")
    )
    rules = found.facts["rules"]
    caption = (
        f"Mean-ablated at step {ablations.end} on {' and '.join(found.facts['texts'])}; a token is affected when it "
        f"loses {rules['at_least']} nats or more. Each cell: by context / by source; of {found.n:,} samples {words}."
    )
    columns = ["head", "type", "multigrams", "by source", *LABELS]
    costs = Table(title="What each head's ablation costs", caption=caption, columns=columns, rows=rows, mark_rows=[])
    return [costs, _samples_by_hand(found.facts["samples"])]


def _samples_by_hand(samples: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            one["head"],
            *map(spaces_shown, (one["context"][-70:], one["target"])),
            one["effect"],
            spaces_shown(one["found at"]),
            *(one[name] for name in ("tokens back", "by context", "by source")),
        ]
        for one in samples
    ]
    return Table(
        title="Samples to check by hand",
        columns=["head", "context", "token", "nats lost", "found at", "tokens back", "by context", "by source"],
        caption="The strongest of each head, each label first. ↵ a new line, ␣ a space at an end or of several.",
        rows=rows,
        mark_rows=[],
    )


def spaces_shown(text: str) -> str:
    """A text on one line, with the white space that would not be seen written out.

    >>> spaces_shown("  if a:" + chr(10) + " ")
    '␣␣if a:↵␣'
    """
    text = re.sub(r"\s{2,}|^\s|\s$", lambda found: found[0].replace(" ", "␣"), text)
    return text.replace("\r", "").replace("\n", "↵").replace("\t", "→")


def path_ablation_maps(ablations: PathAblations) -> list[Evidence]:
    """Composition and path ablation of all 64 pairs, side by side."""
    from circuit_claims.papers.refined_llc.multigrams.measures import path_ablation_table

    arrays = path_ablation_table(ablations.run, checkpoint=ablations.end, text=ablations.text).arrays
    words = {"K": ("K-composition", "K-composition"), "size": ("Path ablation through keys", "loss changed, nats")}
    caption = "Row: the head of layer 0 that writes; column: the head of layer 1 that reads."
    return [pair_map(ablations, title, caption, label, arrays[name]) for name, (title, label) in words.items()]


def nested_table(ablations: PathAblations) -> Sequence[Evidence]:
    """Nested brackets: how often the right mark is preferred, and which paths and heads carry it."""
    found = ablations.nested()
    margins, outer = found.arrays["margins"], found.arrays["outer"].astype(bool)
    rows = [
        ["inner bracket open", f"{(margins[~outer] > 0).mean():.0%}", f"{margins[~outer].mean():.2f}"],
        ["inner one closed again", f"{(margins[outer] > 0).mean():.0%}", f"{margins[outer].mean():.2f}"],
    ]
    size = found.arrays["path_margin"]
    limit = float(np.abs(size).max())
    return [
        Table(
            title="Nested brackets and quotes: is the right one closed?",
            rows=rows,
            mark_rows=[],
            columns=["asked", "right one preferred", "margin in nats"],
            caption=f"{len(margins)} made-up rows of words with one pair inside another; 50 % is chance.",
        ),
        pair_map(
            ablations,
            "Margin lost when a head of layer 1 no longer sees one of layer 0",
            "Mean over all rows: how much less the right closing mark is preferred to the wrong one.",
            "margin lost, nats",
            size,
            vmin=-limit,
            vmax=limit,
        ),
    ]
