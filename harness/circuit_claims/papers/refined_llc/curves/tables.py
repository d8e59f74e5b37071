"""Coefficients of all heads over training as a table, and the quantities that claims read off it. Pure: numpy alone.

Every uncertainty is drawn: a table is measured anew by adding to each estimate a normal error of its own Monte Carlo
size, heads are drawn anew with replacement where a claim speaks of heads in general. Nothing here sees a paper's value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from circuit_claims.api import (
    LEVEL,
    Interval,
    Measurement,
    Rival,
    arrangements,
    cluster_interval,
    correlation,
    correlation_interval,
    correlation_null,
    difference_interval,
    label_p_value,
    order_of,
    percentile_interval,
    permutation_p_value,
    row_correlations,
)

SPOILT = 0.1  # the share of estimates that may fail the gate before a whole table counts as partial


@dataclass(frozen=True)
class HeadTable:
    """Coefficients of `heads` at `steps` on one text, under one loss and setting, with their Monte Carlo errors.

    `sound` says which estimates passed the engine's gate; `chains` how many the estimate with the fewest has; `facts`
    where they come from.
    """

    steps: tuple[int, ...]
    heads: tuple[str, ...]
    mean: Float[np.ndarray, "step head"]
    error: Float[np.ndarray, "step head"]
    sound: Bool[np.ndarray, "step head"]
    facts: Mapping[str, Any] = field(default_factory=dict)
    chains: int = 1

    def __post_init__(self) -> None:
        shape = (len(self.steps), len(self.heads))
        if not self.mean.shape == self.error.shape == self.sound.shape == shape:
            raise ValueError(
                f"head table: expected arrays of {shape[0]} steps x {shape[1]} heads, found {self.mean.shape}"
            )

    def of(self, heads: Sequence[str]) -> HeadTable:
        """The columns of these heads."""
        at = [self.heads.index(head) for head in heads]
        return replace(
            self, heads=tuple(heads), mean=self.mean[:, at], error=self.error[:, at], sound=self.sound[:, at]
        )

    def at(self, *steps: int) -> HeadTable:
        """The rows of these steps."""
        rows = [self.steps.index(step) for step in steps]
        return replace(self, steps=steps, mean=self.mean[rows], error=self.error[rows], sound=self.sound[rows])

    def draw(self, generator: np.random.Generator) -> Float[np.ndarray, "step head"]:
        """The table as another measurement might have found it."""
        return self.mean + generator.normal(size=self.mean.shape) * self.error

    def drawn(self, draws: int, generator: np.random.Generator) -> Float[np.ndarray, "draw step head"]:
        """As many of them."""
        return self.mean + generator.normal(size=(draws, *self.mean.shape)) * self.error

    @property
    def status(self) -> Literal["complete", "partial"]:
        """Complete unless more than a tenth of the estimates failed the gate."""
        return "complete" if np.mean(~self.sound) <= SPOILT else "partial"

    @property
    def origin(self) -> Literal["live", "recorded"]:
        """Where the figures come from: "live" where this run measured (or planted) all of them itself."""
        return "live" if self.facts.get("origin") in ("live", "planted") else "recorded"

    def measured(self, quantity: str, value: float | str | None, **more: Any) -> Measurement:
        """A measurement read off this table, with its status and facts."""
        facts = {
            **self.facts, **more.pop("facts", {}),
            "estimates": int(self.sound.size), "estimates that fail the gate": int((~self.sound).sum()),
        }  # fmt: skip
        status = more.pop("status", self.status)
        return Measurement(
            quantity, value, status=status, facts=facts, n=int(self.mean.size), origin=self.origin, **more
        )


def absent(table: HeadTable, quantity: str, why: str) -> Measurement:
    """A measurement of something this model does not have: partial, and judged inconclusive, with the reason."""
    return table.measured(quantity, None, status="partial", facts={"why": why})


def group_order(table: HeadTable, groups: Mapping[str, Sequence[str]]) -> Measurement:
    """Which of two groups of heads has the higher mean at the last step: heads are the units.

    The support of an order is one less its p-value: the share of all ways to deal the labels out over these heads in
    which the difference is smaller. With 2 heads against 6 there are 28, so only the two highest of all decide. Noise
    of the chains is one reason why heads differ, and is dealt out with them.
    """
    quantity = "order of mean coefficients, highest first"
    if empty := [name for name, heads in groups.items() if not heads]:
        return absent(table, quantity, f"no heads of the kind {', '.join(empty)}")
    (one, own), (other, rest) = groups.items()
    last = table.of([*own, *rest]).at(table.steps[-1])
    values, labels = last.mean[0], np.arange(len(own) + len(rest)) < len(own)
    ways = arrangements(labels)
    above, below = (
        label_p_value(lambda way, sign=sign: sign * (values[way].mean() - values[~way].mean()), ways)
        for sign in (1.0, -1.0)
    )
    support = {f"{one} > {other}": 1 - above, f"{other} > {one}": 1 - below}
    rivals = {f"{one} > {other}": Rival(other, 1 - below), f"{other} > {one}": Rival(one, 1 - above)}
    exact = {one: float(values[labels].mean()), other: float(values[~labels].mean())}
    facts = {
        "means": exact, "heads": {name: list(heads) for name, heads in groups.items()},
        "arrangements": len(ways), "p": above, "method": "permutation of the labels over heads",
    }  # fmt: skip
    redrawn = {"heads": len(labels)}
    return last.measured(quantity, _order(exact), support=support, rivals=rivals, redrawn=redrawn, facts=facts)


def _order(values: Mapping[str, float]) -> str:
    return " > ".join(sorted(values, key=lambda name: -values[name]))


def shares(labels: Sequence[str]) -> dict[str, float]:
    """How often each label comes.

    >>> shares(["a", "b", "a", "a"])
    {'a': 0.75, 'b': 0.25}
    """
    return {label: labels.count(label) / len(labels) for label in dict.fromkeys(sorted(labels))}


def rise_between_texts(higher: HeadTable, lower: HeadTable, heads: Sequence[str]) -> Measurement:
    """By how much `heads` rise from one text to another at the last step: absolutely, and more than the other heads do.

    The value is the smaller of the two: the heads' own mean rise, and that less the mean rise of the others of the
    table. Its interval has the smaller of their low ends and of their high ends, heads being the units: t over the
    heads themselves, and the shifts that no permutation of the labels rejects.
    """
    quantity = "rise of the heads' mean coefficient from one text to the other, and over the other heads' rise"
    if not heads or len(heads) == len(higher.heads):
        return absent(higher, quantity, "no such heads, or no others")
    names = higher.heads
    rises = higher.at(higher.steps[-1]).mean[0] - lower.of(names).at(lower.steps[-1]).mean[0]
    labels = np.isin(names, heads)
    own = cluster_interval(rises[labels], np.arange(labels.sum())) if labels.sum() > 1 else None
    more = difference_interval(rises, labels)
    apart = float(rises[labels].mean() - rises[~labels].mean())
    low, high = (more.low, more.high) if own is None else (min(own.low, more.low), min(own.high, more.high))
    value = min(apart, float(rises[labels].mean()))
    interval = Interval(low, max(low, high), LEVEL, f"t over the heads, and {more.method}")
    status: Literal["complete", "partial"] = "complete" if "complete" == higher.status == lower.status else "partial"
    facts = {
        "own rise": float(rises[labels].mean()), "the others' rise": float(rises[~labels].mean()),
        "rises": dict(zip(names, rises.tolist(), strict=True)), "heads": list(heads),
    }  # fmt: skip
    redrawn = {"heads": len(names)}
    return higher.measured(quantity, value, interval=interval, unit="LLC", facts=facts, status=status, redrawn=redrawn)


def spread_growth(table: HeadTable, draws: int, generator: np.random.Generator) -> Measurement:
    """Standard deviation over a layer's heads at the last step over that at the first, of the layer where it is less.

    Heads are drawn anew within their layer, and each estimate with its Monte Carlo error. That error spreads heads that
    are alike: where they truly start alike the growth is understated.
    """
    layers = [
        [at for at, head in enumerate(table.heads) if head[0] == layer]
        for layer in sorted({head[0] for head in table.heads})
    ]

    def growth(values: Float[np.ndarray, "draw end head"]) -> Float[np.ndarray, " draw"]:
        first, last = values.std(axis=2, ddof=1).T
        return last / np.maximum(first, 1e-12)

    ends = table.at(table.steps[0], table.steps[-1]) if len(table.steps) > 1 else table.at(*2 * table.steps)
    values = ends.drawn(draws, generator)
    found = np.min([growth(_redrawn(values, layer, generator)) for layer in layers], axis=0)
    exact = [float(growth(ends.mean[None, :, layer])[0]) for layer in layers]
    method = f"{draws:,} draws of heads within their layer and of every estimate's Monte Carlo error"
    interval = percentile_interval(found, method, redrawn=[len(layer) for layer in layers])
    facts = {
        "growth by layer": exact, "steps": list(table.steps),
        "spread": table.mean.std(axis=1, ddof=1).tolist(),
    }  # fmt: skip
    redrawn = {"heads": min(len(layer) for layer in layers)}
    quantity = "growth of the spread over heads, in the layer where it is less"
    return table.measured(quantity, min(exact), interval=interval, unit="times", facts=facts, redrawn=redrawn)


def _redrawn(
    values: Float[np.ndarray, "draw step head"], heads: Sequence[int], generator: np.random.Generator
) -> Float[np.ndarray, "draw step head"]:
    """As many of these heads, drawn with replacement, anew in each draw."""
    picks = np.asarray(heads)[generator.integers(len(heads), size=(len(values), len(heads)))]
    return np.take_along_axis(values, picks[:, None, :], axis=2)


StepOf = Callable[[Sequence[int], Float[np.ndarray, "*curve step"]], Float[np.ndarray, "*curve"]]


def half_rise(steps: Sequence[int], values: Float[np.ndarray, "*curve step"]) -> Float[np.ndarray, "*curve"]:
    """The first checkpoint from which on a curve stays above half of the way from its least value to its last one.

    A checkpoint, and nothing between two: what happens between checkpoints was not seen. Inf where the curve ends at
    its least value.

    >>> half_rise([1, 10, 100], np.array([[0.0, 1.5, 2.0], [0.0, 0.5, 2.0], [3.0, 2.0, 1.0]])).tolist()
    [10.0, 100.0, inf]
    """
    least, last = values.min(axis=-1), values[..., -1]
    below = values < (least + (last - least) / 2)[..., None]
    # How many stand from the last one below on; 0 where none is below, which is the first checkpoint then.
    after = np.where(below.any(axis=-1), below.shape[-1] - below[..., ::-1].argmax(axis=-1), 0)
    return np.where(last > least, np.asarray(steps, dtype=float)[np.minimum(after, len(steps) - 1)], np.inf)


def peak(steps: Sequence[int], values: Float[np.ndarray, "*curve step"]) -> Float[np.ndarray, "*curve"]:
    """The step of a curve's highest value."""
    return np.asarray(steps, dtype=float)[values.argmax(axis=-1)]


def landmark_order(
    table: HeadTable, groups: Mapping[str, Sequence[str]], landmark: StepOf, draws: int, generator: np.random.Generator
) -> Measurement:
    """Which group's mean curve reaches its landmark first: shares of draws over the groups' heads and over chains.

    Groups that reach it at the same checkpoint are no order: nothing finer was seen.
    """
    quantity = "order of groups by step, earliest first"
    if empty := [name for name, heads in groups.items() if not heads]:
        return absent(table, quantity, f"no heads of the kind {', '.join(empty)}")
    columns = {name: [table.heads.index(head) for head in heads] for name, heads in groups.items()}

    exact = {name: float(landmark(table.steps, table.mean[:, at].mean(1))) for name, at in columns.items()}
    values, names = table.drawn(draws, generator), list(groups)
    drawn = [landmark(table.steps, _redrawn(values, at, generator).mean(2)) for at in columns.values()]
    far = float(max(table.steps)) * 10  # a landmark that is never reached comes after all
    earlier = -np.minimum(np.stack(drawn, axis=1), far)
    ranking = order_of(names, -np.minimum([exact[name] for name in names], far), earlier)
    redrawn = {"heads": sum(map(len, columns.values()))}
    return table.measured(
        quantity, _earliest(exact), support=ranking.support, rivals=ranking.rivals, redrawn=redrawn,
        facts={"steps": exact},
    )  # fmt: skip


def _earliest(steps: Mapping[str, float]) -> str:
    ordered = sorted(steps, key=lambda name: steps[name])
    return " = ".join(ordered) if len(set(steps.values())) == 1 else " > ".join(ordered)


def separation_rank(
    code: HeadTable, mixture: HeadTable, pair: Sequence[str], draws: int, generator: np.random.Generator
) -> Measurement:
    """How much farther apart two heads are on code than on the mixture at the last step, among all pairs of the table.

    The value is the share of the other pairs that separate less, by the ratio of their differences. Two heads alone say
    nothing: any two are farther apart on one of two texts, by chance on code as often as not.
    """
    quantity = "share of the other pairs of heads that separate less on code than the two"
    if len(pair) != 2:
        return absent(code, quantity, f"expected two induction heads, found {len(pair)}")
    names = code.heads
    tables = [each.of(names).at(each.steps[-1]) for each in (code, mixture)]
    first, second = np.triu_indices(len(names), 1)
    own = [{names[one], names[other]} == set(pair) for one, other in zip(first, second, strict=True)].index(True)

    def ratios(values: Sequence[np.ndarray]) -> Float[np.ndarray, "*draw pair"]:
        apart = [np.abs(each[..., 0, first] - each[..., 0, second]) for each in values]
        return apart[0] / np.maximum(apart[1], 1e-12)

    def rank(values: Sequence[np.ndarray]) -> Float[np.ndarray, "*draw"]:
        every = ratios(values)
        return (np.delete(every, own, axis=-1) < every[..., [own]]).mean(axis=-1)

    found = rank([each.drawn(draws, generator) for each in tables])
    status = "complete" if all(each.status == "complete" for each in tables) else "partial"
    exact = [each.mean for each in tables]
    facts = {
        "heads": list(pair), "code over mixture": float(ratios(exact)[own]), "pairs": len(first),
        **{name: each.of(pair).mean[0].tolist() for name, each in zip(("code", "mixture"), tables, strict=True)},
    }  # fmt: skip
    interval = percentile_interval(found, f"{draws:,} draws of every estimate's Monte Carlo error")
    redrawn = {"heads": len(names), "chains": min(each.chains for each in tables)}
    return code.measured(
        quantity, float(rank(exact)), interval=interval, unit="share of pairs", facts=facts, status=status,
        redrawn=redrawn,
    )  # fmt: skip


def text_ratio(per_chain: Float[np.ndarray, "text chain"], names: Sequence[str]) -> Measurement:
    """By what factor the coefficients of two texts differ, typically: texts are the units.

    The exponential of the root mean square difference of two texts' log coefficients, what their chains' error adds
    taken off. The interval is that of a variance between normal values (chi-square over the texts), less the same. Two
    coefficients of zero or less have no ratio: partial.
    """
    from scipy.stats import chi2

    means, (texts, chains) = per_chain.mean(1), per_chain.shape
    quantity, redrawn = "typical ratio of the coefficients of two texts", {"texts": texts, "chains": chains}
    facts: dict[str, Any] = {"means": dict(zip(names, means.tolist(), strict=True))}
    if not (means > 0).all():
        facts["why"] = "a coefficient of zero or less has no ratio to another"
        return Measurement(quantity, None, status="partial", n=texts, facts=facts, redrawn=redrawn, origin="recorded")
    noise = float((per_chain.var(axis=1, ddof=1) / chains / means**2).mean())
    spread, freedom = float(np.log(means).var(ddof=1)), texts - 1

    def factor(variance: float) -> float:
        return float(np.exp(np.sqrt(2 * max(variance - noise, 0.0))))

    low, high = (factor(freedom * spread / chi2.ppf(side, freedom)) for side in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    interval = Interval(low, high, LEVEL, f"chi-square over {texts} texts, their chains' error taken off")
    facts |= {"largest ratio": float(means.max() / means.min()), "chains' error, relative": float(np.sqrt(noise))}
    return Measurement(quantity, factor(spread), interval=interval, unit="times", n=texts, facts=facts, redrawn=redrawn,
                       origin="recorded")  # fmt: skip


def rank_correlation(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    shuffles: int,
    generator: np.random.Generator,
    within: Sequence[str] | None = None,
) -> Measurement:
    """Spearman's correlation over heads, of ranks within groups (layers) where `within` names each head's.

    Fisher's interval with heads as units, and a p-value over shuffles within the groups: two things that both differ by
    layer correlate over all heads whatever they have to do with each other.
    """
    groups = None if within is None else np.asarray(within)
    value = correlation(x, y, groups, ranks=True)
    null = correlation_null(x, y, shuffles, generator, groups, ranks=True)
    p_value = permutation_p_value(value, null) if np.isfinite(value) else 1.0
    return Measurement(
        "rank correlation" + ("" if within is None else " within layers"),
        value if np.isfinite(value) else None,
        interval=correlation_interval(x, y, groups, ranks=True),
        p_value=p_value,
        unit="correlation",
        n=len(x),
        status="complete" if np.isfinite(value) else "partial",
        redrawn={"heads": len(x)},
        arrays={"null": null},
    )


def pair_correlation(
    x: Float[np.ndarray, "first second"],
    y: Float[np.ndarray, "first second"],
    draws: int,
    generator: np.random.Generator,
) -> Measurement:
    """Spearman's correlation over pairs of heads, of one layer with another: both layers' heads are drawn anew.

    Pairs that share a head are no independent items: 64 of 8 heads by 8 are drawn as 8 and 8, and the percentiles
    expanded for as few. The p-value is over orders of the second layer's heads and of the first's.
    """
    rows, columns = x.shape
    value = correlation(x.ravel(), y.ravel(), ranks=True)
    picks = generator.integers(rows, size=(draws, rows, 1)), generator.integers(columns, size=(draws, 1, columns))
    found = row_correlations(x[picks].reshape(draws, -1), y[picks].reshape(draws, -1), ranks=True)
    kept = found[np.isfinite(found)]
    method = f"{draws:,} bootstrap draws over the heads of both layers"
    orders = [generator.permuted(np.tile(np.arange(size), (draws, 1)), axis=1) for size in (rows, columns)]
    shuffled = y[orders[0][:, :, None], orders[1][:, None, :]].reshape(draws, -1)
    null = row_correlations(np.tile(x.ravel(), (draws, 1)), shuffled, ranks=True)
    sure = np.isfinite(value) and len(kept) > draws / 2
    return Measurement(
        "rank correlation over pairs of heads",
        value if np.isfinite(value) else None,
        interval=percentile_interval(kept, method, redrawn=min(rows, columns)) if sure else None,
        p_value=permutation_p_value(value, null) if sure else 1.0,
        unit="correlation",
        n=x.size,
        status="complete" if sure else "partial",
        redrawn={"heads": min(rows, columns)},
        arrays={"null": null},
    )


def shuffled_pairs(
    y: Float[np.ndarray, "first second"], generator: np.random.Generator
) -> Float[np.ndarray, "first second"]:
    """The same pairs under other names of the heads of both layers."""
    return y[np.ix_(generator.permutation(len(y)), generator.permutation(y.shape[1]))]
