"""What is simulated: each case draws a data set whose truth is known, and says which intervals over it hold the truth.

`before` is what measures did up to version 1.0 of the statistics (percentiles of a bootstrap, or draws of the Monte
Carlo noise alone), `after` is what `judging.statistics` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from circuit_claims.judging import statistics as st
from circuit_claims.judging.measurement import Interval
from scipy.stats import rankdata

DRAWS = 400
Held = tuple[bool, bool]


@dataclass(frozen=True)
class Case:
    """One row of the table: what is estimated, over how many units, by which function; `sample` draws one data set."""

    kind: str
    units: str
    function: str
    sample: Callable[[np.random.Generator], Held]
    least: float = 0.88
    most: float = 0.93
    """How often it may hold the truth: more than 0.93 where the statistic takes few values; less than 0.88 is a limit
    of the method, named in the documentation."""

    def coverage(self, replicates: int, seed: int = 0) -> tuple[float, float]:
        """Share of `replicates` data sets whose truth lies in the interval: before, after."""
        generator = np.random.default_rng(seed)
        held = np.array([self.sample(generator) for _ in range(replicates)])
        return float(held[:, 0].mean()), float(held[:, 1].mean())


def holds(ends: Interval | tuple[float, float], truth: float) -> bool:
    low, high = (ends.low, ends.high) if isinstance(ends, Interval) else ends
    return bool(low - 1e-12 <= truth <= high + 1e-12)


def sizes_of_documents(n: int, generator: np.random.Generator) -> np.ndarray:
    """Cases of a document: 2 to some 30, most have few."""
    return 1 + generator.geometric(0.12, n)


def skewed(n: int, generator: np.random.Generator) -> np.ndarray:
    """Effects of mean 0 and variance 1, skewed as a gamma of shape 2."""
    return (generator.gamma(2.0, 1.0, n) - 2.0) / np.sqrt(2.0)


def document_mean(n: int, generator: np.random.Generator) -> Held:
    """Mean over cases of `n` documents, intraclass correlation 0.3."""
    sizes = sizes_of_documents(n, generator)
    clusters = np.repeat(np.arange(n), sizes)
    values = np.sqrt(0.3) * skewed(n, generator)[clusters] + np.sqrt(0.7) * generator.normal(size=len(clusters))
    before = st.percentiles(st.cluster_means(values, clusters, DRAWS, generator))
    return holds(before, 0.0), holds(st.cluster_interval(values, clusters), 0.0)


def document_ratio(n: int, generator: np.random.Generator) -> Held:
    """One head's share of passed cases over another's on the same documents: 0.6 / 0.4."""
    sizes = sizes_of_documents(n, generator)
    easy = generator.beta(6.0, 4.0, n)  # shares of a document's cases: intraclass correlation 0.09
    passed = generator.binomial(sizes, easy), generator.binomial(sizes, easy * 2 / 3)
    counts = st.bootstrap_counts(n, DRAWS, generator)
    draws = (counts @ passed[0]) / np.maximum(counts @ passed[1], 0.5)
    after = st.percentiles(draws, redrawn=st.effective_clusters(sizes))
    return holds(st.percentiles(draws), 1.5), holds(after, 1.5)


def document_difference(n: int, generator: np.random.Generator) -> Held:
    """Mean over `n` documents of one size, of what two heads, skewed both, differ by."""
    values = skewed(n, generator) - skewed(n, generator)
    return _held_by_percentiles(values, generator)


def skewed_mean(n: int, generator: np.random.Generator) -> Held:
    """The hardest: `n` documents of one size, each of one skewed value."""
    return _held_by_percentiles(skewed(n, generator), generator)


def _held_by_percentiles(values: np.ndarray, generator: np.random.Generator) -> Held:
    draws = st.bootstrap_counts(len(values), DRAWS, generator) @ values / len(values)
    return holds(st.percentiles(draws), 0.0), holds(st.percentiles(draws, redrawn=len(values)), 0.0)


def forms(n: int, share: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """0/1 successes of 1 to 4 forms of each of `n` strings that correlate 0.33: (value, string) of each row."""
    alike = 1 / 0.33 - 1
    clusters = np.repeat(np.arange(n), generator.integers(1, 5, n))
    chance = generator.beta(share * alike, (1 - share) * alike, n)
    return (generator.random(len(clusters)) < chance[clusters]).astype(np.float64), clusters


def share_of_forms(n: int, share: float, generator: np.random.Generator) -> Held:
    """Share of token ids passed, before: token ids redrawn as if independent; after: strings."""
    values, clusters = forms(n, share, generator)
    before = st.percentiles(generator.binomial(len(values), values.mean(), DRAWS) / len(values))
    return holds(before, share), holds(st.cluster_share_interval(values, clusters), share)


STRATA = np.repeat(np.arange(6), [7, 12, 26, 10, 30, 12])


def score_over_tasks(generator: np.random.Generator) -> Held:
    """Mean over six tasks of the share of each one's strings passed, strings redrawn within their task."""
    chance = np.array([0.7, 0.5, 0.4, 0.8, 0.6, 0.3])
    passed = (generator.random(len(STRATA)) < chance[STRATA]).astype(np.float64)
    sizes = np.bincount(STRATA)
    member = (STRATA[:, None] == np.arange(6)) / sizes / 6  # (string, task)
    plain = [st.bootstrap_counts(size, DRAWS, generator) for size in sizes]
    before = st.percentiles((np.concatenate(plain, axis=1) * passed) @ member.sum(1))
    draws = (st.stratified_counts(STRATA, DRAWS, generator) * passed) @ member.sum(1)
    return holds(before, chance.mean()), holds(st.percentiles(draws, redrawn=sizes.tolist()), chance.mean())


def pairs_of_heads(rows: int, columns: int, generator: np.random.Generator) -> Held:
    """Mean over pairs of a head of one layer and one of the next: a third of the variance each, and a third is left."""
    values = np.add.outer(skewed(rows, generator), skewed(columns, generator)) + generator.normal(size=(rows, columns))
    draws = st.bootstrap_counts(values.size, DRAWS, generator) @ values.ravel() / values.size
    return holds(st.percentiles(draws), 0.0), holds(st.two_way_interval(values), 0.0)


def pairs_of_one_set(n: int, generator: np.random.Generator) -> Held:
    """Mean over all pairs of `n` heads: a third of the variance for each of the two, and a third is left."""
    effect, rest = skewed(n, generator), generator.normal(size=(n, n))
    values = np.add.outer(effect, effect) + np.triu(rest, 1) + np.triu(rest, 1).T
    each = values[np.triu_indices(n, 1)]
    draws = st.bootstrap_counts(len(each), DRAWS, generator) @ each / len(each)
    return holds(st.percentiles(draws), 0.0), holds(st.pair_interval(values), 0.0)


def cosine_of_means(runs: int, noise: float, generator: np.random.Generator) -> Held:
    """Mean over ten pairs of the cosine of two mean directions, one over six probes, one over `runs` autoencoders.

    A direction's noise is `noise` times as long as what runs have in common; truly the cosine is 0.7. Before: a
    percentile bootstrap over runs and probes, expanded for the fewer of them.
    """
    size, pairs = 64, 10
    common, row = np.eye(size)[0], 0.7 * np.eye(size)[0] + np.sqrt(1 - 0.7**2) * np.eye(size)[1]
    features = common + noise * generator.normal(size=(runs, pairs, size)) / np.sqrt(size)
    rows = row + 0.1 * generator.normal(size=(6, pairs, size)) / np.sqrt(size)
    weights = [st.bootstrap_counts(len(each), DRAWS, generator) for each in (rows, features)]
    drawn = _mean_cosine(np.tensordot(weights[0], rows, 1), np.tensordot(weights[1], features, 1))
    value = float(_mean_cosine(rows.sum(0), features.sum(0)))
    without = [_mean_cosine(rows.sum(0), features.sum(0) - features), _mean_cosine(rows.sum(0) - rows, features.sum(0))]
    after = st.jackknife_interval(value, without)[1]
    return holds(st.percentiles(drawn, redrawn=min(runs, 6)), 0.7), holds(after, 0.7)


def _mean_cosine(rows: np.ndarray, features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=-1) * np.linalg.norm(features, axis=-1)
    return ((rows * features).sum(-1) / lengths).mean(-1)


def share_of_items(n: int, low: float, high: float, exact: bool, generator: np.random.Generator) -> Held:
    """Share of `n` independent items, its truth anywhere between `low` and `high`."""
    truth = generator.uniform(low, high)
    passed = int(generator.binomial(n, truth))
    return holds(_bootstrap_of_share(passed, n), truth), holds(st.item_share_interval(passed, n, exact=exact), truth)


@cache
def _bootstrap_of_share(passed: int, n: int) -> tuple[float, float]:
    return st.percentiles(np.random.default_rng(0).binomial(n, passed / n, 5_000) / n)


def two_groups(
    labelled: int, heads: int, layers: int, spread: float, welch: bool, generator: np.random.Generator
) -> Held:
    """By how much heads of a kind exceed the others: skewed values, chains' noise half their spread.

    Before: draws of the chains' noise alone, the heads held fixed. The labelled heads' spread is `spread` times as
    large; layers lie two standard deviations apart.
    """
    labels = np.arange(heads) < labelled
    layer = np.arange(heads) % layers
    values = skewed(heads, generator) * np.where(labels, spread, 1.0) + labels + 2.0 * layer
    values = values + generator.normal(0.0, 0.5, heads)
    centred = labels - np.array([labels[layer == each].mean() for each in layer])
    noise = values + generator.normal(0.0, 0.5, (DRAWS, heads))
    before = st.percentiles(noise @ centred / (labels @ centred))
    if welch:
        return holds(before, 1.0), holds(st.welch_interval(values, labels), 1.0)
    return holds(before, 1.0), holds(st.difference_interval(values, labels, layer if layers > 1 else None), 1.0)


def heads_of_two_measures(n: int, rho: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two skewed measures of `n` heads (lognormal), each with Monte Carlo noise of 0.3 standard deviations."""
    x = generator.normal(size=n)
    y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=n)
    x, y = np.exp(0.7 * x), np.exp(0.7 * y)
    return x + generator.normal(0, 0.3, n), y + generator.normal(0, 0.3, n)


@cache
def _true_rank_correlation(rho: float) -> float:
    return st.correlation(*heads_of_two_measures(400_000, rho, np.random.default_rng(99)), ranks=True)


def rank_correlation(n: int, rho: float, generator: np.random.Generator) -> Held:
    """Spearman's correlation over `n` heads, before: percentiles of a bootstrap over the heads."""
    x, y = heads_of_two_measures(n, rho, generator)
    picks = generator.integers(n, size=(100, n))
    ranks = rankdata(np.stack([x[picks], y[picks]]), axis=-1)  # a head drawn twice is a tie
    ranks -= ranks.mean(-1, keepdims=True)
    draws = (ranks[0] * ranks[1]).sum(-1) / np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))
    truth = _true_rank_correlation(rho)
    return holds(st.percentiles(draws), truth), holds(st.correlation_interval(x, y, ranks=True), truth)


def correlation_within_layers(n: int, rho: float, generator: np.random.Generator) -> Held:
    """Pearson's correlation of near normal values over `n` heads of two layers that lie apart in both measures.

    Before: the layers pooled.
    """
    layer = np.arange(n) % 2
    x = generator.normal(size=n)
    y = rho * x + np.sqrt(1 - rho**2) * generator.normal(size=n)
    x, y = x + 2 * layer, y + 2 * layer
    return holds(st.correlation_interval(x, y), rho), holds(st.correlation_interval(x, y, layer), rho)


def cases() -> Iterator[Case]:
    """All rows of the table."""
    for n in (6, 8, 10, 20, 50):
        yield Case(
            "mean over documents of unequal sizes", f"{n} documents", "cluster_interval", partial(document_mean, n)
        )
    for n in (6, 8, 10, 20, 50, 200):
        yield Case("ratio of two heads' shares", f"{n} documents", "percentile_interval", partial(document_ratio, n))
    for n in (6, 8, 10, 20, 50):
        yield Case("difference of two heads", f"{n} documents", "percentile_interval", partial(document_difference, n))
    for n in (6, 10, 20, 50):
        sample = partial(skewed_mean, n)
        yield Case("mean of one skewed value each", f"{n} documents", "percentile_interval", sample, 0.84)
    yield Case("mean over tasks, strings within tasks", "97 strings of 6 tasks", "stratified_counts", score_over_tasks)
    for n, share in ((10, 0.5), (20, 0.5), (60, 0.4), (120, 0.4), (20, 0.8), (60, 0.9), (120, 0.95)):
        sample = partial(share_of_forms, n, share)
        yield Case(f"share {share} of forms of strings", f"{n} strings", "cluster_share_interval", sample, most=0.95)
    for runs, noise, least in ((6, 0.5, 0.88), (8, 0.5, 0.88), (100, 1.0, 0.88), (8, 1.0, 0.85)):
        name = f"cosine of mean directions, noise {noise:g} times as long"
        sample = partial(cosine_of_means, runs, noise)
        yield Case(name, f"{runs} runs, 6 probes", "jackknife_interval", sample, least)
    yield from cases_of_shares()
    yield from cases_of_heads()


def cases_of_shares() -> Iterator[Case]:
    """Shares of independent items, their truth anywhere in a range."""
    for n, low, high in (
        (7, 0.05, 0.95),
        (7, 0.8, 1.0),
        (20, 0.05, 0.95),
        (20, 0.9, 1.0),
        (50, 0.9, 1.0),
        (200, 0.9, 1.0),
    ):
        for exact in (False, True):
            name = f"share of items, {low:g} to {high:g}{', exact' if exact else ''}"
            sample = partial(share_of_items, n, low, high, exact)
            yield Case(name, f"{n} items", "item_share_interval", sample, most=1.0 if exact else 0.95)


def cases_of_heads() -> Iterator[Case]:
    """Where heads are what is drawn anew, by themselves or in pairs."""
    for rows, columns in ((6, 6), (8, 8), (12, 16)):
        sample = partial(pairs_of_heads, rows, columns)
        yield Case("mean over pairs, layer by layer", f"{rows} x {columns} heads", "two_way_interval", sample)
    for n in (6, 8, 16):
        yield Case("mean over all pairs of one set", f"{n} heads", "pair_interval", partial(pairs_of_one_set, n))
    for labelled, heads, layers in ((2, 8, 1), (5, 16, 1), (6, 16, 2)):
        within = " within layers" if layers > 1 else ""
        sample = partial(two_groups, labelled, heads, layers, 1, False)
        name = f"difference of two groups{within}"
        yield Case(name, f"{labelled} of {heads} heads", "difference_interval", sample, most=0.94)
    for labelled, heads in ((2, 8), (5, 16)):
        for welch, function in ((False, "difference_interval"), (True, "welch_interval")):
            sample = partial(two_groups, labelled, heads, 1, 2, welch)
            name = "the same, the labelled twice as spread"
            yield Case(name, f"{labelled} of {heads} heads", function, sample, 0.80, 0.95)
    for n in (8, 16):
        for rho in (0.0, 0.5, 0.8):
            sample = partial(rank_correlation, n, rho)
            name = f"rank correlation, {rho} before skew and noise"
            yield Case(name, f"{n} heads", "correlation_interval", sample, most=0.95)
    for n in (8, 16):
        sample = partial(correlation_within_layers, n, 0.5)
        yield Case("correlation 0.5 within two layers", f"{n} heads", "correlation_interval", sample)
