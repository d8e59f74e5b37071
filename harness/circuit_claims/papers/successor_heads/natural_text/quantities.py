"""The quantities of SH-21 to SH-23, read off the tables of cases and of listings. Pure: a measurement in, one out.

Intervals come from a bootstrap over documents, since cases of one document are not independent. Where all cases agree
it has no width: the exact binomial interval is taken where it is the wider.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.api import Interval, Measurement, bootstrap_counts, percentile_interval
from circuit_claims.judging.statistics import LEVEL, or_binomial
from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS, NAMED, effective_number
from circuit_claims.papers.successor_heads.natural_text.cases import matched_cases

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from jaxtyping import Bool, Float, Int

EFFECTS = tuple((effect, ablation) for effect in ("direct", "indirect", "total") for ablation in ("mean", "resample"))
# With fewer cases than this no order of four behaviours is worth a verdict.
FEWEST = 20
REST = "the other three behaviours"


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

    def drawn(self, weights: Int[np.ndarray, "draw document"]) -> Float[np.ndarray, "draw behaviour"]:
        """The shares when documents are drawn with these weights; nan in a draw without any case."""
        sums = weights @ self.counts
        total = sums.sum(1, keepdims=True)
        return np.divide(sums, total, out=np.full(sums.shape, np.nan), where=total > 0)


def document_counts(table: Measurement, documents: int, draws: int) -> Int[np.ndarray, "draw document"]:
    """How often each document is drawn in each bootstrap draw: with replacement, as many as there are."""
    generator = np.random.default_rng(0 if table.seed is None else table.seed)
    return bootstrap_counts(documents, draws, generator)


def documents_in(table: Measurement, contexts: int) -> int:
    """How many documents the first `contexts` contexts come from: they are numbered as they appear."""
    return int(table.arrays["cluster"][:contexts].max()) + 1


def count(table: Measurement, chosen: Bool[np.ndarray, "*head context case"], labels: np.ndarray) -> BehaviourCounts:
    """Count the chosen cases by document and behaviour; heads in front, if any, are pooled."""
    cluster = table.arrays["cluster"]
    rows = np.broadcast_to(cluster[: chosen.shape[-2], None], chosen.shape)
    counts = np.zeros((documents_in(table, chosen.shape[-2]), len(BEHAVIOURS)), dtype=np.int64)
    np.add.at(counts, (rows[chosen], labels[chosen].astype(np.int64)), 1)
    return BehaviourCounts(counts)


def winning(table: Measurement, variant: int = 0, others: bool = False) -> BehaviourCounts:
    """The winning cases of the head, or of the matched heads pooled, by one variant of the rules."""
    heads = slice(1, None) if others else slice(0, 1)
    return count(table, table.arrays["won"][heads], table.arrays["label"][variant, heads])


def winning_with(table: Measurement, labels: str) -> BehaviourCounts:
    """The head's winning cases by another array of labels, such as `label_drawn`."""
    found = table.arrays[labels]
    return count(table, table.arrays["won"][0, : len(found)], found)


def reducing(table: Measurement, row: int, variant: int = 0, labels: str = "", other: bool = False) -> BehaviourCounts:
    """Cases in which ablating the head (or the first matched one) raises the loss, under one row of `EFFECTS`."""
    change = table.arrays["other_change" if other else "change"][row]
    found = table.arrays[labels] if labels else table.arrays["label"][variant, int(other)]
    return count(table, change > 0, found[: len(change)])


def behaviour_share(
    table: Measurement, cases: BehaviourCounts, behaviours: tuple[str, ...], draws: int, of: str
) -> Measurement:
    """Share of the cases that show one of `behaviours`."""
    columns = [BEHAVIOURS.index(name) for name in behaviours]
    value = float(cases.shares[columns].sum())
    words = f"share of {of} that show {behaviours[0] if len(behaviours) == 1 else 'one of the four behaviours'}"
    if cases.n == 0:
        return table.derive(words, float("nan"), unit="share of cases", n=0)
    drawn = cases.drawn(document_counts(table, len(cases.counts), draws))[:, columns].sum(1)
    hits = round(value * cases.n)
    interval = widest(drawn, hits, cases.n, f"{draws:,} bootstrap draws over {_documents(cases)} documents")
    return table.derive(words, value, interval=interval, unit="share of cases", n=cases.n)


def widest(drawn: np.ndarray, hits: int, n: int, method: str) -> Interval:
    """The bootstrap interval of a share, or the exact binomial one at the ends where that is wider."""
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(*or_binomial((low, high), hits, n), LEVEL, f"{method}, or exact binomial if wider")


def _documents(cases: BehaviourCounts) -> int:
    return int((cases.counts.sum(1) > 0).sum())


def leads(table: Measurement, rows: list[BehaviourCounts], behaviour: str, draws: int, of: str) -> Measurement:
    """Whether `behaviour` is the commonest of the four in every one of `rows`, by bootstrap draw.

    With fewer than `FEWEST` cases in a row the measurement is partial: it gives no verdict.
    """
    at, named = BEHAVIOURS.index(behaviour), [BEHAVIOURS.index(name) for name in NAMED]
    rest = [index for index in named if index != at]
    weights = document_counts(table, len(rows[0].counts), draws)
    first, last = np.ones(draws, dtype=bool), np.zeros(draws, dtype=bool)
    for cases in rows:
        shares = cases.drawn(weights)
        best = shares[:, rest].max(1)
        first &= shares[:, at] > best
        last |= shares[:, at] < best
    orders = (f"{behaviour} > {REST}", f"{REST} > {behaviour}")
    support = dict(zip(orders, (float(first.mean()), float(last.mean())), strict=True))
    n = min(cases.n for cases in rows)
    changes = {"support": support, "n": n, "status": "complete" if n >= FEWEST else "partial"}
    return table.derive(f"commonest behaviour among {of}", max(orders, key=lambda name: support[name]), **changes)


def spreads(table: Measurement, draws: int, variant: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Effective number of behaviours among each head's winning cases: value, draws (head, draw) and cases a head.

    The first head is the one asked about. The entropy of few cases falls short of that of many: it is corrected
    as Miller and Madow do, since heads differ in how many cases they win.
    """
    weights = document_counts(table, documents_in(table, table.arrays["won"].shape[1]), draws)
    heads = range(len(table.arrays["won"]))
    counted = [count(table, table.arrays["won"][head], table.arrays["label"][variant, head]) for head in heads]
    value = np.array([_corrected(one.shares, one.n) for one in counted])
    drawn = np.array([_corrected(one.drawn(weights), (weights @ one.counts).sum(1)) for one in counted])
    return value, drawn, np.array([one.n for one in counted])


def _corrected(shares: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """e to the entropy with Miller and Madow's correction for few cases: + (labels seen - 1) / 2n."""
    seen = (np.nan_to_num(shares) > 0).sum(-1)
    return effective_number(shares) * np.exp((seen - 1) / (2 * np.maximum(n, 1)))


def spread_order(table: Measurement, draws: int, place: int | None = 0) -> Measurement:
    """Whether the head spreads over more behaviours than the mean of the matched random heads, by bootstrap draw.

    Heads with fewer than `FEWEST` winning cases are left out.

    `place` None puts each matched head in turn in the head's place, and pools the support: the control.
    """
    _, drawn, n = spreads(table, draws)
    able = [head for head in range(1, len(n)) if n[head] >= FEWEST]
    heads = able if place is None else [place]
    names = ("the head", "matched random heads")
    orders = (" > ".join(names), " > ".join(names[::-1]))
    more, less = [], []
    for head in heads:
        others = [other for other in able if other != head]
        if not others:
            continue
        mean = drawn[others].mean(0)
        more.append(float(np.mean(drawn[head] > mean)))
        less.append(float(np.mean(drawn[head] < mean)))
    shares = (float(np.mean(more)), float(np.mean(less))) if more else (0.0, 0.0)
    support = dict(zip(orders, shares, strict=True))
    best = max(orders, key=lambda name: support[name])
    enough = bool(more) and n[heads].min() >= FEWEST
    changes = {"support": support, "n": int(n[heads].sum()), "status": "complete" if enough else "partial"}
    return table.derive("behaviours among winning cases", best, **changes)


@dataclass(frozen=True)
class Saved:
    """Mean loss (nats a case) that the head saves by kind of case, with draws, and the share it saves on succession.

    Keys of `means`: succession, matched, all. `share` is succession's part of all the loss the head saves, `part` its
    part of the cases.
    """

    means: dict[str, tuple[float, Interval]]
    drawn: dict[str, np.ndarray]
    share: tuple[float, Interval]
    part: float
    n: dict[str, int]


def saved(table: Measurement, row: int, draws: int, change: np.ndarray | None = None) -> Saved:
    """What ablating the head adds to the loss of succession cases, of matched ones and of all (a row of `EFFECTS`)."""
    values = (table.arrays["change"][row] if change is None else change).astype(np.float64)
    here = len(values)
    kind, succession, cluster = (table.arrays[name][:here] for name in ("kind", "succession", "cluster"))
    weights = document_counts(table, documents_in(table, here), draws)
    # All sums by document: succession, everything, and how many cases.
    sums = np.zeros((weights.shape[1], 3))
    np.add.at(sums, cluster, np.stack([(values * succession).sum(1), values.sum(1), [values.shape[1]] * here], axis=1))
    compared = matched_cases(values, kind, succession, cluster, (len(sums), max(1, len(table.facts["kinds"]))))
    drawn_sums = weights @ sums
    drawn: dict[str, np.ndarray] = dict(zip(("succession", "matched"), compared.means(weights), strict=True))
    drawn["all"] = drawn_sums[:, 1] / np.maximum(drawn_sums[:, 2], 1)
    own, matched = compared.means(np.ones((1, weights.shape[1])))
    points = {"succession": float(own[0]), "matched": float(matched[0]), "all": float(values.mean())}
    method = f"{draws:,} bootstrap draws over documents"
    means = {name: (points[name], _quantiles(drawn[name], method)) for name in points}
    total = sums[:, 1].sum()
    share = float(sums[:, 0].sum() / total) if total else float("nan")
    on_succession = drawn_sums[:, 0] / np.where(drawn_sums[:, 1] == 0, np.nan, drawn_sums[:, 1])
    n = {"succession": int(succession.sum()), "matched": int((~succession & (kind >= 0)).sum()), "all": values.size}
    return Saved(means, drawn, (share, _quantiles(on_succession, method)), n["succession"] / values.size, n)


def _quantiles(drawn: np.ndarray, method: str) -> Interval:
    known = drawn[np.isfinite(drawn)]
    if len(known) == 0:
        return Interval(-np.inf, np.inf, LEVEL, "no draw has a case")
    return percentile_interval(known, method)


def saves_on_succession(table: Measurement, row: int, draws: int, change: np.ndarray | None = None) -> Measurement:
    """Whether ablating the head costs more on succession cases than on matched ones, and costs anything there."""
    found = saved(table, row, draws, change)
    own, other = found.drawn["succession"], found.drawn["matched"]
    orders = ("succession > matched", "matched > succession")
    support = {orders[0]: float(np.mean((own > other) & (own > 0))), orders[1]: float(np.mean(own < other))}
    n = found.n["succession"]
    changes = {"support": support, "n": n, "status": "complete" if n >= FEWEST else "partial"}
    return table.derive("loss saved by the head", max(orders, key=lambda name: support[name]), **changes)


def prompts_won(table: Measurement, rows: list[int], draws: int) -> Measurement:
    """Share of the listings in which a head costs the correct number most of all heads; `rows` are pooled (SH-23)."""
    drop = table.arrays["drop"]  # (prompt, head)
    hits = np.stack([drop.argmax(1) == row for row in rows]).mean(0)
    documents = np.zeros((documents_in(table, len(hits)), 2))
    np.add.at(documents, table.arrays["cluster"], np.stack([hits, np.ones_like(hits)], axis=1))
    sums = document_counts(table, len(documents), draws) @ documents
    drawn = sums[:, 0] / np.maximum(sums[:, 1], 1)
    interval = widest(drawn, round(float(hits.sum())), len(hits), f"{draws:,} bootstrap draws over documents")
    return table.derive(
        "share of listings won", float(hits.mean()), interval=interval, unit="share of prompts", n=len(hits)
    )
