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

from circuit_claims.api import Interval, Measurement, percentile_interval, permutation_p_value
from circuit_claims.judging.measurement import Status
from circuit_claims.judging.ranking import order_of
from circuit_claims.judging.statistics import LEVEL

CHAINS = {"chains": 4}  # as every cell was recorded
SPOILT = 0.1  # the share of estimates that may fail the gate before a whole table counts as partial


@dataclass(frozen=True)
class HeadTable:
    """Coefficients of `heads` at `steps` on one text, under one loss and setting, with their Monte Carlo errors.

    `sound` says which estimates passed the engine's gate; `facts` where they come from.
    """

    steps: tuple[int, ...]
    heads: tuple[str, ...]
    mean: Float[np.ndarray, "step head"]
    error: Float[np.ndarray, "step head"]
    sound: Bool[np.ndarray, "step head"]
    facts: Mapping[str, Any] = field(default_factory=dict)

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

    @property
    def status(self) -> Status:
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


def group_order(
    table: HeadTable,
    groups: Mapping[str, Sequence[str]],
    draws: int,
    generator: np.random.Generator,
    *,
    shuffle: bool = False,
) -> Measurement:
    """Which group of heads has the highest mean at the last step, which the next: shares of draws over chains.

    With `shuffle` the heads of all groups trade places anew in each draw.
    """
    quantity = "order of mean coefficients, highest first"
    if empty := [name for name, heads in groups.items() if not heads]:
        return absent(table, quantity, f"no heads of the kind {', '.join(empty)}")
    last = table.of([head for heads in groups.values() for head in heads]).at(table.steps[-1])
    ends = np.cumsum([0, *(len(heads) for heads in groups.values())])
    spans = {name: slice(ends[index], ends[index + 1]) for index, name in enumerate(groups)}

    def means(values: Float[np.ndarray, " head"]) -> dict[str, float]:
        return {name: float(values[span].mean()) for name, span in spans.items()}

    orders = []
    for _ in range(draws):
        values = last.draw(generator)[0]
        orders.append(list(means(generator.permutation(values) if shuffle else values).values()))
    exact = means(last.mean[0])
    facts = {"means": exact, "heads": {name: list(heads) for name, heads in groups.items()}}
    ranking = order_of(list(groups), np.array(list(exact.values())), np.array(orders))
    return last.measured(
        quantity, ranking.leader, support=ranking.support, rivals=ranking.rivals, redrawn=CHAINS, facts=facts
    )


def text_order(
    tables: Mapping[str, HeadTable],
    heads: Sequence[str],
    draws: int,
    generator: np.random.Generator,
    *,
    among: Sequence[str] = (),
) -> Measurement:
    """On which text the mean over `heads` is highest at the last step: shares of draws over chains.

    With `among`, as many of those heads are taken at random in each draw: where no head has a type.
    """
    first = next(iter(tables.values()))
    quantity = "order of texts by the heads' mean coefficient, highest first"
    if not heads:
        return absent(first, quantity, "no such heads")
    last = {name: table.of(among or heads).at(table.steps[-1]) for name, table in tables.items()}
    means = {name: float(each.mean.mean()) for name, each in last.items()}
    orders = []
    for _ in range(draws):
        pick = generator.permutation(len(among or heads))[: len(heads)]
        orders.append([each.draw(generator)[0, pick].mean() for each in last.values()])
    status = "complete" if all(each.status == "complete" for each in last.values()) else "partial"
    facts = {"means": means, "heads": list(among or heads)}
    ranking = order_of(list(means), np.array(list(means.values())), np.array(orders))
    return first.measured(quantity, ranking.leader, support=ranking.support, rivals=ranking.rivals, redrawn=CHAINS,
                          facts=facts, status=status)  # fmt: skip


def spread_growth(
    table: HeadTable, draws: int, generator: np.random.Generator, *, shuffle: bool = False
) -> Measurement:
    """Standard deviation over heads at the last step over that at the first.

    With `shuffle` the steps' rows are put in a new order in each draw, and the value is the median over draws.

    Monte Carlo noise spreads heads that are alike, and the draws add it again: where heads truly start alike the growth
    is understated.
    """

    def growth(values: Float[np.ndarray, "step head"]) -> float:
        return float(values[-1].std(ddof=1) / max(values[0].std(ddof=1), 1e-12))

    orders = [generator.permutation(len(table.steps)) if shuffle else slice(None) for _ in range(draws)]
    found = np.array([growth(table.draw(generator)[order]) for order in orders])
    interval = percentile_interval(found, f"{draws:,} draws of every estimate's Monte Carlo error")
    value = float(np.median(found)) if shuffle else growth(table.mean)
    facts = {"spread": table.mean.std(axis=1, ddof=1).tolist(), "steps": list(table.steps)}
    return table.measured(
        "growth of the spread over heads", value, interval=interval, unit="times", redrawn=CHAINS, facts=facts
    )


StepOf = Callable[[Sequence[int], Float[np.ndarray, " step"]], float]


def first_half_rise(steps: Sequence[int], values: Float[np.ndarray, " step"]) -> float:
    """Where a curve first has made half of the way from its first value to its highest, between steps by log step.

    >>> round(first_half_rise([1, 10, 100], np.array([0.0, 1.0, 2.0])), 3)
    10.0
    """
    top = int(values.argmax())
    goal = values[0] + (values[top] - values[0]) / 2
    place = int(np.argmax(values >= goal))
    if place == 0:
        return float(steps[0])
    before, after = values[place - 1], values[place]
    share = (goal - before) / (after - before)
    low, high = np.log1p(steps[place - 1]), np.log1p(steps[place])
    return float(np.expm1(low + share * (high - low)))


def peak(steps: Sequence[int], values: Float[np.ndarray, " step"]) -> float:
    """The step of a curve's highest value."""
    return float(steps[int(values.argmax())])


def landmark_order(
    table: HeadTable,
    groups: Mapping[str, Sequence[str]],
    landmark: StepOf,
    draws: int,
    generator: np.random.Generator,
    *,
    shuffle: bool = False,
) -> Measurement:
    """Which group's mean curve reaches its landmark first: shares of draws over chains and over the groups' heads.

    Groups that reach it at the same step are no order. With `shuffle` the steps' rows are put in a new order each draw.
    """
    quantity = "order of groups by step, earliest first"
    if empty := [name for name, heads in groups.items() if not heads]:
        return absent(table, quantity, f"no heads of the kind {', '.join(empty)}")
    columns = {name: [table.heads.index(head) for head in heads] for name, heads in groups.items()}

    def once(values: np.ndarray, pick: Callable[[list[int]], np.ndarray]) -> dict[str, float]:
        return {name: landmark(table.steps, values[:, pick(at)].mean(1)) for name, at in columns.items()}

    labels = []
    for _ in range(draws):
        values = table.draw(generator)
        values = values[generator.permutation(len(values))] if shuffle else values
        labels.append(list(once(values, lambda at: generator.choice(at, size=len(at))).values()))
    exact = once(table.mean, np.asarray)
    ranking = order_of(list(groups), -np.array(list(exact.values())), -np.array(labels))
    redrawn = {"heads": sum(map(len, groups.values())), **CHAINS}
    support = ranking.support or {_earliest(exact): 1.0}  # at one step in every draw
    return table.measured(quantity, _earliest(exact), support=support, rivals=ranking.rivals, redrawn=redrawn,
                          facts={"steps": exact})  # fmt: skip


def _earliest(steps: Mapping[str, float]) -> str:
    ordered = sorted(steps, key=lambda name: steps[name])
    return " = ".join(ordered) if len(set(steps.values())) == 1 else " > ".join(ordered)


def separation_ratio(
    code: HeadTable, mixture: HeadTable, pair: Sequence[str], draws: int, generator: np.random.Generator
) -> Measurement:
    """How far apart two heads are on code over how far on the mixture, at the last step."""
    quantity = "difference of two heads on code over that on the mixture"
    if len(pair) != 2:
        return absent(code, quantity, f"expected two induction heads, found {len(pair)}")
    tables = [each.of(pair).at(each.steps[-1]) for each in (code, mixture)]

    def ratio(values: Sequence[np.ndarray]) -> float:
        apart = [abs(float(each[0, 0] - each[0, 1])) for each in values]
        return apart[0] / max(apart[1], 1e-12)

    found = np.array([ratio([each.draw(generator) for each in tables]) for _ in range(draws)])
    status = "complete" if all(each.status == "complete" for each in tables) else "partial"
    method = f"{draws:,} draws of every estimate's Monte Carlo error"
    facts = {
        "heads": list(pair),
        **{name: each.mean[0].tolist() for name, each in zip(("code", "mixture"), tables, strict=True)},
    }
    value = ratio([each.mean for each in tables])
    interval = percentile_interval(found, method)
    return code.measured(quantity, value, interval=interval, unit="times", facts=facts, status=status, redrawn=CHAINS)


def between_share(
    per_chain: Float[np.ndarray, "data chain"], names: Sequence[str], generator: np.random.Generator | None = None
) -> Measurement:
    """Share of the variance over chains and data sets that lies between data sets, with its exact normal interval.

    The intraclass correlation of one-way analysis of variance (Searle 1971). With a `generator` the values are dealt
    out to the data sets at random first: a control.
    """
    from scipy.stats import f

    values = per_chain if generator is None else generator.permutation(per_chain.flatten()).reshape(per_chain.shape)
    sets, chains = len(values), per_chain.shape[1]
    between = chains * values.mean(1).var(ddof=1)
    within = max(float(values.var(axis=1, ddof=1).mean()), 1e-300)
    ratio, freedom = between / within, (sets - 1, sets * (chains - 1))

    def share(x: float) -> float:
        return float((x - 1) / (x + chains - 1))

    low, high = (ratio / f.ppf(side, *freedom) for side in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    interval = Interval(share(low), share(high), LEVEL, "F distribution, chains as replicates")
    facts = {"means": dict(zip(names, values.mean(1).tolist(), strict=True))}
    return Measurement("share of variance between data sets", share(ratio), interval=interval, unit="share of variance",
                       n=values.size, facts=facts, redrawn={"chains": chains}, origin="recorded")  # fmt: skip


def rank_correlation(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    draws: int,
    generator: np.random.Generator,
    unit: str = "heads",
) -> Measurement:
    """Spearman's correlation with a bootstrap interval over the items and a permutation p-value."""
    value = spearman(x, y)
    found = []
    for _ in range(draws):
        pick = generator.integers(len(x), size=len(x))
        found.append(spearman(x[pick], y[pick]))
    null = np.array([spearman(x, generator.permutation(y)) for _ in range(draws)])
    kept = np.array(found)[np.isfinite(found)]
    interval = percentile_interval(kept, f"{draws:,} bootstrap draws over {len(x)} items") if len(kept) else None
    p_value = permutation_p_value(value, null) if np.isfinite(value) else 1.0
    status = "complete" if interval is not None and np.isfinite(value) else "partial"
    return Measurement("rank correlation", value if np.isfinite(value) else None, interval=interval, p_value=p_value,
                       unit="correlation", n=len(x), status=status, redrawn={unit: len(x)},
                       arrays={"null": null})  # fmt: skip


def shuffled_correlation(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], draws: int, generator: np.random.Generator
) -> Measurement:
    """The same under labels dealt out at random: the mean over shuffles, with their central interval."""
    null = np.array([spearman(x, generator.permutation(y)) for _ in range(draws)])
    null = null[np.isfinite(null)] if np.isfinite(null).any() else np.zeros(1)
    interval = percentile_interval(null, f"{draws:,} shuffles of the labels")
    return Measurement("rank correlation under shuffled labels", float(null.mean()), interval=interval, n=len(x))


def spearman(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side does not vary.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    from scipy.stats import rankdata

    first, second = rankdata(x), rankdata(y)
    spread = first.std() * second.std()
    return (
        float(round(((first - first.mean()) * (second - second.mean())).mean() / spread, 12))
        if spread > 0
        else float("nan")
    )
