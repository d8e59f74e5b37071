"""The quantities of SH-21 to SH-23, read off the tables of cases and of listings. Pure: a measurement in, one out.

Documents are what is drawn anew, since cases of one document are not independent: a share's interval is that of as many
independent cases as its documents are worth, and draws that decide an order are stretched for the few they rest on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.api import (
    LEVEL,
    Interval,
    Measurement,
    Rival,
    bootstrap_counts,
    cluster_share_interval,
    expansion,
    first_of,
    percentile_interval,
)
from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS, NAMED, OTHER, effective_number
from circuit_claims.papers.successor_heads.natural_text.cases import matched_cases

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from jaxtyping import Bool, Float, Int

EFFECTS = tuple((effect, ablation) for effect in ("direct", "indirect", "total") for ablation in ("mean", "resample"))
# With fewer cases than this no order of four behaviours is worth a verdict.
FEWEST = 20
NONE_LEADS = "none in all of them"


@dataclass(frozen=True)
class BehaviourCounts:
    """How many cases of each behaviour each document has, (document, behaviour), and how many cases in all."""

    counts: Int[np.ndarray, "document behaviour"]

    @property
    def n(self) -> int:
        """All cases."""
        return int(self.counts.sum())

    @property
    def shares(self) -> Float[np.ndarray, " behaviour"]:
        """Share of the cases by behaviour; nan where there is none."""
        return self.counts.sum(0) / self.n if self.n else np.full(len(BEHAVIOURS), np.nan)

    @property
    def documents(self) -> int:
        """Documents with a case."""
        return int((self.counts.sum(1) > 0).sum())

    def drawn(self, weights: Int[np.ndarray, "draw document"]) -> Float[np.ndarray, "draw behaviour"]:
        """The shares when documents are drawn with these weights; nan in a draw without any case."""
        sums = weights.astype(np.float64) @ self.counts.astype(np.float64)  # whole numbers multiply without BLAS
        total = sums.sum(1, keepdims=True)
        return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def document_counts(
    table: Measurement, documents: int, draws: int, generator: np.random.Generator | None = None
) -> Int[np.ndarray, "draw document"]:
    """How often each document is drawn in each bootstrap draw: with replacement, as many as there are."""
    generator = generator or np.random.default_rng(0 if table.seed is None else table.seed)
    return bootstrap_counts(documents, draws, generator)


def documents_in(table: Measurement, contexts: int) -> int:
    """How many documents the first `contexts` contexts come from: they are numbered as they appear."""
    return int(table.arrays["cluster"][:contexts].max()) + 1


def count(table: Measurement, chosen: Bool[np.ndarray, "*head context case"], labels: np.ndarray) -> BehaviourCounts:
    """Count the chosen cases by document and behaviour; heads in front, if any, are pooled. Cases without a label,
    of which it is not known what the head promotes there, are left out."""
    cluster = table.arrays["cluster"]
    chosen = chosen & (labels >= 0)
    rows = np.broadcast_to(cluster[: chosen.shape[-2], None], chosen.shape)
    counts = np.zeros((documents_in(table, chosen.shape[-2]), len(BEHAVIOURS)), dtype=np.int64)
    np.add.at(counts, (rows[chosen], labels[chosen].astype(np.int64)), 1)
    return BehaviourCounts(counts)


def winning(table: Measurement, variant: int = 0, others: bool = False) -> BehaviourCounts:
    """The winning cases of the head, or of the matched heads pooled, by one variant of the rules."""
    heads = slice(1, None) if others else slice(0, 1)
    return count(table, table.arrays["won"][heads], table.arrays["label"][variant, heads])


def own_cases(table: Measurement, row: int | None = None) -> Bool[np.ndarray, "context case"]:
    """The head's winning cases, or those whose loss it reduces under one row of `EFFECTS`."""
    return table.arrays["won"][0] if row is None else table.arrays["change"][row] > 0


def own_labels(table: Measurement, labels: str = "label", variant: int = 0) -> Int[np.ndarray, "context case"]:
    """The head's labels by one array of them, and one variant where the array has several."""
    found = table.arrays[labels]
    return found[variant, 0] if labels == "label" else found[variant] if found.ndim == 3 else found


def counted(table: Measurement, row: int | None = None, labels: str = "label", variant: int = 0) -> BehaviourCounts:
    """The head's winning cases, or loss-reducing ones of a row of `EFFECTS`, by one array of labels."""
    chosen = own_cases(table, row)
    return count(table, chosen, own_labels(table, labels, variant)[: len(chosen)])


def reducing_of_other(table: Measurement, row: int) -> BehaviourCounts:
    """Labelled cases whose loss the first matched head reduces, under one of the first rows of `EFFECTS`."""
    change = table.arrays["other_change"][row]
    return count(table, change > 0, table.arrays["label"][0, 1, : len(change)])


def behaviour_share(table: Measurement, cases: BehaviourCounts, behaviours: tuple[str, ...], of: str) -> Measurement:
    """Share of the cases that show one of `behaviours`; documents are drawn anew."""
    columns = [BEHAVIOURS.index(name) for name in behaviours]
    words = f"share of {of} that show {behaviours[0] if len(behaviours) == 1 else 'one of the four behaviours'}"
    redrawn = {"documents": cases.documents}
    if cases.n == 0:
        return table.derive(words, float("nan"), unit="share of cases", n=0, redrawn=redrawn)
    sizes = cases.counts.sum(1)
    shown = cases.counts[:, columns].sum(1)
    # One row a case: those of a document that show it, then those that do not.
    values = np.repeat(np.tile([1.0, 0.0], len(sizes)), np.stack([shown, sizes - shown], axis=1).ravel())
    interval = cluster_share_interval(values, np.repeat(np.arange(len(sizes)), sizes))
    value = float(shown.sum() / cases.n)
    return table.derive(words, value, interval=interval, unit="share of cases", n=cases.n, redrawn=redrawn)


def stretched(draws: np.ndarray, value: np.ndarray | float, units: int) -> np.ndarray:
    """Bootstrap draws about their value, as far out as draws over so few units have to lie (`statistics.expansion`)."""
    return value + (draws - value) * expansion(units) if units > 1 else draws


def leads(
    table: Measurement, rows: list[BehaviourCounts], draws: int, of: str, generator: np.random.Generator | None = None
) -> Measurement:
    """Which of the four behaviours is the commonest, in every one of `rows`; documents are drawn anew.

    A rival is named by the row in which it is most firmly ahead, all rows and rivals allowed for. With fewer than
    `FEWEST` cases of the four in a row the measurement is partial: it gives no verdict.
    """
    # Cases that show none of the four, and documents of such cases alone, say nothing of which of them leads.
    named = [BehaviourCounts(cases.counts[:, :OTHER]) for cases in rows]
    documents, n = min(cases.documents for cases in named), min(cases.n for cases in named)
    words, redrawn = f"commonest behaviour among {of}", {"documents": documents}
    if n < FEWEST:
        return table.derive(words, NONE_LEADS, n=n, redrawn=redrawn, status="partial")
    weights = document_counts(table, len(rows[0].counts), draws, generator)
    leaders, first, rivals = [], np.ones((draws, OTHER), dtype=bool), dict[str, Rival]()
    for cases in rows:
        value = cases.shares[:OTHER]
        drawn = stretched(np.nan_to_num(cases.drawn(weights)[:, :OTHER]), value, documents)
        ranking = first_of(NAMED, value, drawn)
        best = np.sort(drawn, axis=1)
        first &= (drawn == best[:, -1:]) & (best[:, -1:] > best[:, -2:-1])
        leaders.append(ranking.leader if np.sum(value == value.max()) == 1 else NONE_LEADS)
        for name, rival in ranking.rivals.items():
            ahead = max(1 - len(rows) * (1 - rival.ahead), 0.0)
            if name not in rivals or ahead > rivals[name].ahead:
                rivals[name] = Rival(rival.label, ahead)
    support = dict(zip(NAMED, first.mean(0).tolist(), strict=True))
    leader = leaders[0] if len(set(leaders)) == 1 else NONE_LEADS
    return table.derive(words, leader, support=support, rivals=rivals, n=n, redrawn=redrawn)


def named_counts(table: Measurement, variant: int = 0) -> Int[np.ndarray, "head document behaviour"]:
    """Winning cases that show one of the four behaviours, by head: the head's first, then the matched ones'."""
    heads = range(len(table.arrays["won"]))
    found = [count(table, table.arrays["won"][head], table.arrays["label"][variant, head]) for head in heads]
    return np.stack([one.counts[:, :OTHER] for one in found])


def spreads(
    counts: Int[np.ndarray, "head document behaviour"], weights: Int[np.ndarray, "draw document"]
) -> Float[np.ndarray, "head draw"]:
    """Over how many of the four behaviours each head's cases spread, by draw of documents: e to the entropy.

    The entropy of few cases falls short of that of many: it is corrected as Miller and Madow do, since heads differ
    in how many cases they win. nan where a draw has no case.
    """
    sums = np.matmul(weights.astype(np.float64), counts.astype(np.float64))
    n = sums.sum(-1)
    shares = np.divide(sums, n[..., None], out=np.zeros(sums.shape), where=n[..., None] > 0)
    number = effective_number(shares) * np.exp(((shares > 0).sum(-1) - 1) / (2 * np.maximum(n, 1)))
    return np.where(n > 0, number, np.nan)


HEAD_FIRST, OTHERS_FIRST = SPREAD_ORDERS = (
    "the head > matched random heads",
    "matched random heads > the head",
)


def spread_order(
    table: Measurement,
    counts: Int[np.ndarray, "head document behaviour"],
    draws: int,
    generator: np.random.Generator | None = None,
) -> Measurement:
    """Whether the first head spreads over more of the four behaviours than a matched random head; documents and random
    heads are drawn anew.

    In each draw it is held against one of the others, drawn at random: to be ahead in 95 % is to be beyond what a
    random head shows, not beyond their mean. Heads with fewer than `FEWEST` cases of the four are left out.
    """
    n = counts.sum((1, 2))
    able = 1 + np.flatnonzero(n[1:] >= FEWEST)
    documents = int((counts[0].sum(1) > 0).sum())
    redrawn = {"documents": documents, "heads": len(able)}
    words = "behaviours among winning cases"
    if n[0] < FEWEST or len(able) == 0:
        return table.derive(words, OTHERS_FIRST, n=int(n[0]), redrawn=redrawn, status="partial")
    generator = generator or np.random.default_rng(0 if table.seed is None else table.seed)
    weights = bootstrap_counts(counts.shape[1], draws, generator)
    kept = counts[[0, *able]]
    value = spreads(kept, np.ones((1, counts.shape[1]), dtype=np.int64))
    drawn = stretched(spreads(kept, weights), value, documents)
    against = drawn[1 + generator.integers(len(able), size=draws), np.arange(draws)]
    shares = (float(np.mean(drawn[0] > against)), float(np.mean(drawn[0] < against)))
    support = dict(zip(SPREAD_ORDERS, shares, strict=True))
    rivals = {
        HEAD_FIRST: Rival("matched random heads", shares[1]),
        OTHERS_FIRST: Rival("the head", shares[0]),
    }
    best = max(SPREAD_ORDERS, key=lambda name: support[name])
    return table.derive(words, best, support=support, rivals=rivals, n=int(n[0]), redrawn=redrawn)


SUCCESSION_FIRST, MATCHED_FIRST = SAVED_ORDERS = ("succession > matched", "matched > succession")


@dataclass(frozen=True)
class Saved:
    """Mean loss (nats a case) that the head saves by kind of case, with draws, and the share it saves on succession.

    Keys of `means`: succession, matched, all. `share` is succession's part of all the loss the head saves, `part` its
    part of the cases; `documents` have a succession case that something is matched to.
    """

    means: dict[str, tuple[float, Interval]]
    drawn: dict[str, np.ndarray]
    share: tuple[float, Interval]
    part: float
    n: dict[str, int]
    documents: int


def saved(
    table: Measurement,
    change: Float[np.ndarray, "context case"],
    draws: int,
    succession: Bool[np.ndarray, "context case"] | None = None,
    generator: np.random.Generator | None = None,
) -> Saved:
    """What ablating the head adds to the loss (`change`) of succession cases, of matched ones and of all.

    `succession` marks the cases in place of the table's own marks.
    """
    values, here = change.astype(np.float64), len(change)
    kind, marks, cluster = (table.arrays[name][:here] for name in ("kind", "succession", "cluster"))
    marks = marks if succession is None else succession
    weights = document_counts(table, documents_in(table, here), draws, generator)
    # All sums by document: succession, everything, and how many cases.
    sums = np.zeros((weights.shape[1], 3))
    np.add.at(sums, cluster, np.stack([(values * marks).sum(1), values.sum(1), [values.shape[1]] * here], axis=1))
    compared = matched_cases(values, kind, marks, cluster, (len(sums), max(1, len(table.facts["kinds"]))))
    documents = compared.documents
    drawn_sums = weights @ sums
    drawn: dict[str, np.ndarray] = dict(zip(("succession", "matched"), compared.means(weights), strict=True))
    drawn["all"] = drawn_sums[:, 1] / np.maximum(drawn_sums[:, 2], 1)
    own, matched = compared.means(np.ones((1, weights.shape[1])))
    points = {"succession": float(own[0]), "matched": float(matched[0]), "all": float(values.mean())}
    method = f"{draws:,} bootstrap draws over documents"
    means = {name: (points[name], _quantiles(drawn[name], method, len(sums))) for name in points}
    total = sums[:, 1].sum()
    share = float(sums[:, 0].sum() / total) if total else float("nan")
    on_succession = drawn_sums[:, 0] / np.where(drawn_sums[:, 1] == 0, np.nan, drawn_sums[:, 1])
    n = {"succession": int(marks.sum()), "matched": int((~marks & (kind >= 0)).sum()), "all": values.size}
    part = n["succession"] / values.size
    return Saved(means, drawn, (share, _quantiles(on_succession, method, len(sums))), part, n, documents)


def _quantiles(drawn: np.ndarray, method: str, documents: int) -> Interval:
    known = drawn[np.isfinite(drawn)]
    if len(known) == 0:
        return Interval(-np.inf, np.inf, LEVEL, "no draw has a case")
    return percentile_interval(known, method, redrawn=max(2, documents))


def saves_on_succession(table: Measurement, found: Saved) -> Measurement:
    """Whether ablating the head costs more on succession cases than on matched ones, and costs anything there.

    Documents are drawn anew; those count that have a succession case with a match. With none it is partial.
    """
    units = {"documents": found.documents}
    words, n = "loss saved by the head", found.n["succession"]
    if found.documents == 0:
        return table.derive(words, MATCHED_FIRST, n=n, redrawn=units, status="partial")
    point, drawn = {name: value for name, (value, _) in found.means.items()}, found.drawn
    ahead = point["succession"] - point["matched"]
    lead = stretched(drawn["succession"] - drawn["matched"], ahead, found.documents)
    own = stretched(drawn["succession"], point["succession"], found.documents)
    # A draw without any succession case is for neither.
    shares = (float(np.mean((lead > 0) & (own > 0))), float(np.mean(lead < 0)))
    nothing = float(np.mean(own < 0))
    rivals = {
        SUCCESSION_FIRST: Rival(
            "matched" if shares[1] >= nothing else "nothing", max(1 - 2 * (1 - max(shares[1], nothing)), 0.0)
        ),
        MATCHED_FIRST: Rival("succession", shares[0]),
    }
    support = dict(zip(SAVED_ORDERS, shares, strict=True))
    best = max(SAVED_ORDERS, key=lambda name: support[name])
    return table.derive(words, best, support=support, rivals=rivals, n=n, redrawn=units)


def prompts_won(table: Measurement, hits: Float[np.ndarray, " prompt"]) -> Measurement:
    """Share of the listings a head wins: it costs the correct number most of all (SH-23). Documents are drawn anew."""
    cluster = table.arrays["cluster"]
    interval = cluster_share_interval(hits, cluster)
    return table.derive(
        "share of listings won", float(hits.mean()), interval=interval, unit="share of prompts", n=len(hits),
        redrawn={"documents": len(np.unique(cluster))},
    )  # fmt: skip


def wins_of(table: Measurement, rows: list[int]) -> Float[np.ndarray, " prompt"]:
    """Which of the listings a head wins; of several heads, the share of them that do."""
    drop = table.arrays["drop"]  # (prompt, head)
    return np.stack([drop.argmax(1) == row for row in rows]).mean(0)
