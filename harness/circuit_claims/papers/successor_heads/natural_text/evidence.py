"""Evidence beside the verdicts on real text: bars beside the paper's, tables, and passages that a person can check."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from circuit_claims.api import (
    Bars,
    Evidence,
    PassageExample,
    Passages,
    PassageToken,
    StackedBars,
    StackedRow,
    Table,
    bootstrap_counts,
    expanded_level,
)
from circuit_claims.papers.successor_heads.natural_text import quantities
from circuit_claims.papers.successor_heads.natural_text.behaviours import (
    BEHAVIOURS,
    NAMED,
    VARIANTS,
    variant_agreement,
)
from circuit_claims.papers.successor_heads.natural_text.known import ceiling
from circuit_claims.papers.successor_heads.natural_text.on_text import HeadOnListings, HeadOnText, sweep_settings
from circuit_claims.papers.successor_heads.succession.measures import SuccessorScoreTable
from circuit_claims.papers.successor_heads.succession.quantities import head_label, ranking

SHOWN = 12
PER_BEHAVIOUR = 3
TAIL = 48
REACH_BACK = 12
RowsByName = dict[str, dict[str, Any]]


def paper_shares(beside: str | Path) -> RowsByName:
    """The paper's shares by kind of case, from `behaviours.toml` in the folder of the claim file `beside`."""
    path = Path(beside).with_name("behaviours.toml")
    return {row["cases"]: row for row in tomllib.loads(path.read_text(encoding="utf-8"))["row"]}


def shares_of(row: dict[str, Any]) -> dict[str, float]:
    """A row of the paper's shares as shares, by behaviour; those it does not give are left out."""
    return {name: row[name] / 100 for name in NAMED if name in row}


def shares_by_kind(rows: RowsByName) -> dict[str, dict[str, float]]:
    """The same of every row."""
    return {kind: shares_of(row) for kind, row in rows.items()}


def _about(found: HeadOnText) -> str:
    facts = found.cases.facts
    documents = len(set(facts["documents"]))
    return (
        f"{found.name} on {facts['contexts']} contexts of {found.amounts.length} tokens from {documents} documents; "
        f"losses on the first {facts['loss_contexts']} of them. Text: {facts['text']}; the contexts' token ids have "
        f"sha256 {facts['contexts_digest'][:12]}."
    )


def _counted(found: HeadOnText) -> dict[str, quantities.BehaviourCounts]:
    """Winning cases and the six kinds of loss-reducing ones, counted."""
    reducing = {", ".join(name): quantities.counted(found.cases, row) for row, name in enumerate(quantities.EFFECTS)}
    return {"winning": quantities.counted(found.cases), **reducing}


def behaviour_bars(found: HeadOnText, paper: RowsByName, *kinds: str) -> Evidence:
    """Stacked bars of the behaviours among the cases of each kind, the paper's beside each."""
    rows = []
    for kind, counted in _counted(found).items():
        if kinds and kind not in kinds:
            continue
        rows.append(_measured_row(found, kind, counted))
        if kind in paper:
            rows.append(_paper_row(paper[kind]))
    rows += [] if kinds and "winning" not in kinds else [
        _measured_row(found, "winning, random heads", quantities.winning(found.cases, others=True)),
        _measured_row(found, "winning, random tokens", quantities.counted(found.cases, labels="label_drawn")),
    ]  # fmt: skip
    return StackedBars(
        title="Behaviours by kind of case, beside the paper's",
        caption=f"{_about(found)} Rules: the token it promotes most against the top 5 attended. Random heads: matched "
        "in the size of their effects; random tokens: the same cases judged by random earlier tokens. The paper: L12H0 "
        "of Pythia-1.4B; [P] printed there, [F] read off a figure.",
        segments=list(BEHAVIOURS),
        rows=rows,
        label="share of cases",
    )


def _measured_row(found: HeadOnText, label: str, counted: quantities.BehaviourCounts) -> StackedRow:
    if not counted.n:
        return StackedRow(label=label, n=counted.n, values=[])
    drawn = counted.drawn(quantities.document_counts(found.cases, len(counted.counts), found.draws))
    level = expanded_level(max(2, counted.documents))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return StackedRow(label=label, n=counted.n, values=counted.shares.tolist(), low=low.tolist(), high=high.tolist())


def _paper_row(given: dict[str, Any]) -> StackedRow:
    values = [given[name] / 100 if name in given else None for name in BEHAVIOURS]
    return StackedRow(label=f"  paper [{given['trust']}]", values=values, paper=True)


def rules_agree(found: HeadOnText) -> Evidence:
    """How far the two variants of the rules agree, and the first with the correct token in the promoted one's place."""
    table = found.cases
    sets = {"winning": table.arrays["won"][0]}
    changes = zip(quantities.EFFECTS, table.arrays["change"], strict=True)
    sets |= {", ".join(name): change > 0 for name, change in changes}
    (five, one), correct = table.arrays["label"][:, 0], table.arrays["label_correct"][0]
    rows = []
    for name, chosen in sets.items():
        labels = [labels[: len(chosen)][chosen] for labels in (five, one, correct)]
        same, kappa = variant_agreement(labels[0], labels[1])
        other, other_kappa = variant_agreement(labels[0], labels[2])
        rows.append([name, f"{int(chosen.sum()):,}", *map(_two, (same, kappa, other, other_kappa))])
    first, second = VARIANTS
    return Table(
        title="Agreement of the rules' variants",
        caption=f"By the token that the head promotes most: {first} against {second}; and {first}, judged by the "
        "correct token in its place. Kappa: 1 always the same, 0 as by chance.",
        columns=["cases", "how many", "same label", "kappa", "same by correct token", "kappa"],
        rows=rows,
        mark_rows=[],
    )


def ceilings(found: HeadOnText) -> Evidence:
    """What a perfect head could show on these cases, by what it promotes and by the correct token."""
    rows = []
    for kind, row in {"winning": None, **{", ".join(name): row for row, name in enumerate(quantities.EFFECTS)}}.items():
        shares = [ceiling(found.cases, row, name) for name in ("successorship", "acronym", "greater-than")]
        correct = ceiling(found.cases, row, "successorship", by_correct=True)
        rows.append([kind, f"{int(quantities.own_cases(found.cases, row).sum()):,}", *map(_share, [*shares, correct])])
    every = found.cases.arrays["follows"]
    return Table(
        title="What a perfect head could show on these cases",
        caption="Share of the cases in which a token stands before that the behaviour could start from, so that a "
        "head could promote what follows it; and those in which the correct token itself follows one that stands "
        f"before: the most a head can show judged by the correct token ({every.mean():.2%} of all {every.size:,}).",
        columns=["cases", "how many", "successorship", "acronym", "greater-than", "successorship, correct token"],
        rows=rows,
        mark_rows=[],
    )


def _share(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.1%}"


def _percent(share: float) -> str:
    """Whole percents; what rounds to none has no sign."""
    return f"{round(100 * share)} %" if np.isfinite(share) else "none"


def _two(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.2f}"


def passages(found: HeadOnText, kind: str = "winning") -> Evidence:
    """Some cases of each behaviour, drawn with a seed: the end of each prefix with attended and promoted tokens."""
    table = found.cases
    variant, chosen = table.arrays["label"][0, 0], table.arrays["won"][0]
    if kind != "winning":
        chosen = table.arrays["change"][[", ".join(name) for name in quantities.EFFECTS].index(kind)] > 0
    generator, examples = np.random.default_rng(0), []
    for index, behaviour in enumerate(BEHAVIOURS):
        cases = np.argwhere(chosen & (variant[: len(chosen)] == index))
        for place in generator.permutation(len(cases))[:PER_BEHAVIOUR]:
            examples.append(_passage(found, behaviour, *cases[place].tolist()))
    return Passages(
        title=f"A sample of {kind} cases, by behaviour" if kind == "winning" else f"Loss-reducing cases, {kind}",
        caption=f"Up to {PER_BEHAVIOUR} of each behaviour, drawn at random, with the end of the prefix. "
        "Check the label against the marked tokens.",
        examples=examples,
    )


def _passage(found: HeadOnText, behaviour: str, context: int, case: int) -> PassageExample:
    table, reading = found.cases, found.reading
    strings = reading.strings(table.arrays["tokens"][context].tolist())
    attended = table.arrays["attended"][0, context, case].tolist()
    ranks = {position: rank for rank, position in enumerate((p for p in attended if p > 0), start=1) if rank <= 5}
    shares = dict(zip(attended, table.arrays["attention"][context, case].tolist(), strict=True))
    # As far back as what is looked at most, if that is near enough to be shown.
    near = [position for position in ranks if position > case - 4 * TAIL]
    start = max(0, min([case - TAIL, *(position - REACH_BACK for position in near)]))
    tokens = [PassageToken(text="… ")] if start else []
    for position in range(start, case + 1):
        mark = {"rank": ranks[position], "share": shares[position]} if position in ranks else {}
        tokens.append(PassageToken(text=strings[position], **mark))
    far = sum(position < start for position in ranks)
    promoted = table.arrays["promoted"][context, case].tolist()
    lost = table.arrays["drop"][0, context, case]
    note = f"{lost:.2f} nats of logit lost without the head; {table.facts['documents'][context]}"
    return PassageExample(
        label=behaviour,
        note=note + (f"; {far} of the attended tokens lie further back" if far else ""),
        tokens=tokens,
        next=strings[case + 1],
        promoted=list(
            zip(reading.strings(promoted), table.arrays["promoted_logit"][context, case].tolist(), strict=True)
        ),
    )


def heads_by_wins(found: HeadOnText) -> Evidence:
    """The heads that win most cases, and where the head asked about stands among them."""
    table = found.cases
    wins, heads, n = table.arrays["wins"], table.arrays["all_heads"], table.n
    order = np.argsort(-wins, kind="stable")
    own = int(np.flatnonzero((heads == np.asarray(found.head)).all(1))[0])
    rank = int(np.flatnonzero(order == own)[0])
    rows = list(dict.fromkeys([*order[:SHOWN].tolist(), own]))
    cells = [
        [
            f"L{heads[row][0]}H{heads[row][1]}", f"{int(np.flatnonzero(order == row)[0]) + 1}", f"{wins[row] / n:.2%}",
            f"{table.arrays['wins_frozen'][row] / n:.2%}", f"{table.arrays['size'][row]:.3f}",
        ]
        for row in rows
    ]  # fmt: skip
    return Table(
        title="Which heads win most cases",
        caption=f"{n:,} cases; {found.name} is number {rank + 1} of {len(heads)}. Frozen: with the final norm's "
        f"scale kept as it was. Contributions of all heads and the rest add up to the logit within "
        f"{table.facts['largest gap']:.1g}.",
        columns=["head", "rank", "cases won", "cases won, norm frozen", "mean |logit lost|"],
        rows=cells,
        mark_rows=[rows.index(own)],
        mark_label="asked about",
    )


def head_chosen(found: HeadOnText) -> Evidence:
    """Why this head: the sweep's best by the path that chooses, beside the paper's own path."""
    subject, rows = found.reading.subject, []
    chosen = SuccessorScoreTable(subject, sweep_settings(subject))
    for scores in (chosen, SuccessorScoreTable(subject, type(chosen.settings)())):
        table = scores.table
        best, second = ranking(table, "score")[:2]
        value, band = table.arrays["score"], np.quantile(table.arrays["score_null"], 0.975)
        rows.append([
            scores.settings.label, head_label(table, int(best)), f"{value[best]:.2f}", f"{value[second]:.2f}",
            f"{band:.2f}", "yes" if value[best] > 0.5 and value[best] > band else "no",
        ])  # fmt: skip
    return Table(
        title=f"The head asked about: {found.name}",
        caption="The leader of the sweep on what heads read in the running model, with the token itself left out "
        "(Pythia-1.4B: the paper's own L12H0). Where no head stands out, what follows is about the best there is.",
        columns=[
            "input path",
            "leader",
            "its score",
            "runner-up",
            "null of the maximum, 97.5 %",
            "above 0.5 and null",
        ],
        rows=rows,
        mark_rows=[],
    )


def spread_bars(found: HeadOnText) -> Evidence:
    """Over how many behaviours the winning cases of the head and of each matched random head spread."""
    counts = quantities.named_counts(found.cases)
    documents = counts.shape[1]
    generator = np.random.default_rng(found.amounts.seed)
    value = quantities.spreads(counts, np.ones((1, documents), dtype=np.int64))[:, 0]
    drawn = quantities.spreads(counts, bootstrap_counts(documents, found.draws, generator))
    n = counts.sum((1, 2))
    kept = [head for head in range(len(value)) if n[head]]
    names = [f"L{layer}H{head}" for layer, head in found.cases.arrays["heads"].tolist()]
    level = expanded_level(documents)
    ends = [np.nanquantile(drawn[head], [(1 - level) / 2, (1 + level) / 2]) for head in kept]
    return Bars(
        title="Spread over behaviours of the winning cases",
        caption="e to the entropy of the shares of the four behaviours: 1 for one alone, 4 for all alike; in brackets "
        f"how many cases show one of them. Those with fewer than {quantities.FEWEST} are not compared. First the head "
        "asked about, then random heads matched in the size of their effects.",
        labels=[f"{names[head]} ({n[head]})" for head in kept],
        values=[float(value[head]) for head in kept],
        low=[float(low) for low, _ in ends],
        high=[float(high) for _, high in ends],
        label="effective number of behaviours",
    )


def loss_bars(found: HeadOnText) -> list[Evidence]:
    """What ablating the head adds to the loss of succession cases, of matched ones and of all; and the shares."""
    shown = []
    for name in (("direct", "mean"), ("total", "mean")):
        change = found.cases.arrays["change"][quantities.EFFECTS.index(name)]
        saved = quantities.saved(found.cases, change, found.draws)
        words = {"succession": "involves succession", "matched": "matched, does not", "all": "all cases"}
        kept = [key for key in words if np.isfinite(saved.means[key][0])]
        share, interval = saved.share
        part = f"Ablating it does not raise the loss over all cases; {saved.part:.1%} are succession cases."
        if saved.means["all"][0] > 0:
            part = (
                f"Of all the loss the head saves, {_percent(share)} [{_percent(interval.low)}, "
                f"{_percent(interval.high)}] is on "
                f"succession cases, which are {saved.part:.1%} of all."
            )
        shown.append(Bars(
            title=f"Loss that ablating {found.name} adds: {' effect, '.join(name)} ablation",
            caption=f"{part} Matched: the correct token is of the same list, and nothing before it in the context "
            f"is what it follows. 90 % bootstrap intervals over documents; {saved.documents} have succession cases.",
            labels=[f"{words[key]} ({saved.n[key]:,})" for key in kept],
            values=[saved.means[key][0] for key in kept],
            low=[saved.means[key][1].low for key in kept],
            high=[saved.means[key][1].high for key in kept],
            label="nats a case",
        ))  # fmt: skip
    return shown


def heads_on_listings(found: HeadOnListings) -> Evidence:
    """Rank and size: how often each head wins on the listings, and how much of the right number's logit it gives."""
    table = found.table
    drop, heads = table.arrays["drop"], table.arrays["all_heads"]
    won = np.bincount(drop.argmax(1), minlength=len(heads)) / len(drop)
    mean, rank = drop.mean(0), (drop[:, :, None] < drop[:, None, :]).sum(2).mean(0) + 1
    rows = list(dict.fromkeys([*np.lexsort((-mean, -won))[:SHOWN].tolist(), found.row]))
    documents = len(set(table.facts["documents"]))
    return Table(
        title="Every head on numbered lists: rank and size",
        caption=f"{len(drop)} prompts from {documents} documents, each cut before the next number of a list. Text: "
        f"{table.facts['text']}.",
        columns=["head", "prompts won", "mean rank", "mean logit lost by the number", "least", "most"],
        rows=[
            [
                f"L{heads[row][0]}H{heads[row][1]}", f"{won[row]:.0%}", f"{rank[row]:.1f}", f"{mean[row]:+.3f}",
                f"{drop[:, row].min():+.3f}", f"{drop[:, row].max():+.3f}",
            ]
            for row in rows
        ],
        mark_rows=[rows.index(found.row)],
        mark_label="asked about",
    )  # fmt: skip


def listing_passages(found: HeadOnListings) -> Evidence:
    """The ends of some of the prompts, and the number that came next."""
    table, reading = found.table, found.on_text.reading
    examples = []
    for place in range(min(6, len(table.arrays["drop"]))):
        case = int(table.arrays["cases"][place])
        strings = reading.strings(table.arrays["tokens"][place].tolist())
        start = max(0, case - 2 * TAIL)
        drop = table.arrays["drop"][place]
        best = int(drop.argmax())
        layer, head = table.arrays["all_heads"][best].tolist()
        examples.append(
            PassageExample(
                label=f"won by L{layer}H{head}",
                note=f"{drop[best]:.2f} nats; {found.on_text.name} {drop[found.row]:+.2f}; "
                f"{table.facts['documents'][place]}",
                tokens=[PassageToken(text=text) for text in strings[start : case + 1]],
                next=strings[case + 1],
            )
        )
    return Passages(
        title="The first prompts",
        caption="Drawn with the seed; each is shown from some way before its number on.",
        examples=examples,
    )
