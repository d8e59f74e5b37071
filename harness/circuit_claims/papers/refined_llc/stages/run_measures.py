"""What the second paper's claims on a training run measure: leading heads, formation, K-composition (RL-03, 04, 32).

A measure takes a `TrainingRun`, recorded or live, and never sees a claim. `Heads` and `Composition` pair measurements
with their controls: the same measured on a run with wrong labels, one that never trained, and a planted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import (
    Finding,
    Interval,
    Measurement,
    bootstrap_counts,
    measure,
    percentile_interval,
    permutation_p_value,
)
from circuit_claims.judging.ranking import Ranking, first_of, order_of
from circuit_claims.judging.statistics import LEVEL, percentile_band
from circuit_claims.papers.refined_llc.runs.recorded import PREFIX_FROM, PREVIOUS_FROM
from circuit_claims.papers.refined_llc.runs.training_run import Rearranged, Score, TrainingRun

TYPE_OF: dict[Score, tuple[str, int]] = {"previous": ("previous-token", 0), "prefix": ("induction", 1)}
# A type has formed where its leading heads' mean score reaches what makes a head one of it.
FORMED: dict[Score, float] = {"previous": PREVIOUS_FROM, "prefix": PREFIX_FROM}
LEADERS = 2
BAND_DRAWS = 400  # for a figure's band, more would only take memory
SHARE_OF_TRAINING = 0.13  # the end of LM2: step 6,500 of 50,000


@measure
def leading_heads(run: TrainingRun, *, score: Score, layer: int, draws: int, seed: int) -> Measurement:
    """The `LEADERS` heads of a layer with the highest score at the last checkpoint, with bootstrap support.

    Arrays: `final` (head,) the scores there, `steps`, `curve` (step, head) with `low` and `high`, each point's own.
    """
    curves, generator = run.head_scores(score), np.random.default_rng(seed)
    last, kept = [], []
    for index in range(draws):
        drawn = curves.draw(generator)[:, layer]  # (step, head)
        last.append(drawn[-1])
        if index < BAND_DRAWS:
            kept.append(drawn)
    ranking = leading(curves.values[-1, layer], np.stack(last), layer)
    low, high = percentile_band(np.stack(kept))
    return Measurement(
        f"the {LEADERS} heads of layer {layer} with the highest {score} score",
        ranking.leader,
        support=ranking.support,
        rivals=ranking.rivals,
        redrawn={"measurements": curves.drawn},
        n=curves.values.shape[2],
        seed=seed,
        arrays={
            "final": curves.values[-1, layer],
            "steps": curves.steps,
            "curve": curves.values[:, layer],
            "low": low,
            "high": high,
            "final_draws": np.stack(last),
        },
        facts={"method": curves.method},
    )


def leading(scores: Float[np.ndarray, " head"], draws: Float[np.ndarray, "draw head"], layer: int) -> Ranking:
    """Which `LEADERS` heads of a layer have the highest scores together, with the rivals of each such set.

    >>> leading(np.array([3.0, 1.0, 2.0]), np.array([[3.0, 1.0, 2.0], [3.1, 1.0, 2.0]]), 0).leader
    '0:0, 0:2'
    """
    sets = list(combinations(range(len(scores)), LEADERS))
    labels = [", ".join(f"{layer}:{head}" for head in each) for each in sets]
    chosen = np.array(sets)
    return first_of(labels, scores[chosen].sum(1), draws[:, chosen].sum(2))


@measure
def highest_score(run: TrainingRun, *, score: Score, layer: int, draws: int, seed: int) -> Measurement:
    """The highest score in a layer at the last checkpoint, its interval simultaneous over the layer's heads.

    The null of the maximum is the highest score in that layer at the first checkpoint, before any head has a type.
    """
    curves, generator = run.head_scores(score), np.random.default_rng(seed)
    resampled = np.stack([curves.draw(generator)[[0, -1], layer] for _ in range(draws)])  # (draw, first and last, head)
    value = curves.values[-1, layer]
    found = best_score(value, resampled[:, 1], resampled[:, 0], curves.method)
    arrays = {**found.arrays, "first_draws": resampled[:, 0], "final_draws": resampled[:, 1]}
    return replace(
        found, quantity=f"highest {score} score in layer {layer}", redrawn={"measurements": curves.drawn}, seed=seed,
        arrays=arrays, facts={"head": f"{layer}:{int(value.argmax())}", "method": curves.method},
    )  # fmt: skip


def best_score(
    value: Float[np.ndarray, " head"],
    drawn: Float[np.ndarray, "draw head"],
    first: Float[np.ndarray, "draw head"],
    method: str,
) -> Measurement:
    """The highest of some heads' scores, its interval simultaneous over them, the null the highest of their `first`."""
    half = float(np.quantile(np.abs(drawn - value).max(1), LEVEL))
    null, best = first.max(1), float(value.max())
    return Measurement(
        "highest score",
        best,
        Interval(best - half, best + half, LEVEL, f"{method}; simultaneous over heads"),
        unit="mean attention",
        p_value=permutation_p_value(best, null),
        n=len(value),
        arrays={"null": null, "final": value},
    )


@measure
def formation(run: TrainingRun, *, draws: int, seed: int) -> Measurement:
    """When each type's leading heads have made half of their rise: previous-token in layer 0, induction in layer 1.

    The heads are the `LEADERS` highest at the last checkpoint. Half of the rise is from the least mean score of these
    heads to their last one, crossed for the last time upwards, by a straight line in log step. Arrays: `half`
    (draw, type), `steps`, and `curves` (type, step). A type that has not formed by the last checkpoint comes after one
    that has; where neither has, the measurement is partial. Half-rises between the same two checkpoints are no order:
    nothing finer than the spacing of checkpoints was seen.
    """
    generator, named = np.random.default_rng(seed), list(TYPE_OF.items())
    scores = [run.head_scores(score) for score, _ in named]
    picked = [np.argsort(-one.values[-1, layer])[:LEADERS] for one, (_, (_, layer)) in zip(scores, named, strict=True)]

    def means(values: Sequence[np.ndarray]) -> Float[np.ndarray, "type step"]:
        each = zip(values, named, picked, strict=True)
        return np.stack([one[:, layer, heads].mean(1) for one, (_, (_, layer)), heads in each])

    resampled = np.stack([means([one.draw(generator) for one in scores]) for _ in range(draws)])
    found = order_of_rises(scores[0].steps, means([one.values for one in scores]), resampled)
    half = np.array([[_half(scores[0].steps, *each) for each in _by_type(curves)] for curves in resampled])
    return replace(
        found, redrawn={"measurements": scores[0].drawn}, seed=seed,
        arrays={**found.arrays, "half": half, "drawn": resampled[:BAND_DRAWS]},
    )  # fmt: skip


def order_of_rises(
    steps: Int[np.ndarray, " step"],
    curves: Float[np.ndarray, "type step"],
    drawn: Float[np.ndarray, "draw type step"],
) -> Measurement:
    """Which type of `TYPE_OF` has made half of its rise first, by checkpoints; `drawn` are its curves with noise."""
    kinds, formed = [kind for kind, _ in TYPE_OF.values()], np.array([FORMED[score] for score in TYPE_OF])
    places = rise_places(curves, formed)
    ranking = order_of(kinds, -places, -rise_places(drawn, formed))
    some = bool((places < len(steps)).any())
    tie = "not resolved by the checkpoints" if some else "neither"
    return Measurement(
        "step at which each type has made half of its rise",
        ranking.leader if len(set(places.tolist())) > 1 else tie,
        support=ranking.support or {tie: 1.0},
        rivals=ranking.rivals,
        n=len(steps),
        status="complete" if some else "partial",
        arrays={"steps": steps, "curves": curves},
        facts={"half": [_finite(_half(steps, *each)) for each in _by_type(curves)], "types": kinds},
    )


def rise_places(
    curves: Float[np.ndarray, "*batch type step"], formed: Float[np.ndarray, " type"]
) -> Int[np.ndarray, "*batch type"]:
    """The first checkpoint after which each curve stays above half of its rise; their number where it never formed.

    >>> rise_places(np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0]]), np.array([0.5, 0.5])).tolist()
    [2, 4]
    """
    level = ((curves.min(-1) + curves[..., -1]) / 2)[..., None]
    rises = (curves[..., :-1] < level) & (curves[..., 1:] >= level)
    last = curves.shape[-1] - 1 - rises[..., ::-1].argmax(-1)
    return np.where(rises.any(-1) & (curves[..., -1] >= formed), last, curves.shape[-1])


def _by_type(curves: Float[np.ndarray, "type step"]) -> list[tuple[np.ndarray, float]]:
    return [(curve, FORMED[score]) for score, curve in zip(TYPE_OF, curves, strict=True)]


def _half(steps: np.ndarray, curve: Float[np.ndarray, " step"], formed: float) -> float:
    return last_half_rise(steps, curve) if curve[-1] >= formed else float("inf")


def last_half_rise(steps: np.ndarray, curve: Float[np.ndarray, " step"]) -> float:
    """The step where a curve last passes, upwards, half-way from its least value to its last; inf where it does not.

    >>> round(last_half_rise(np.array([0, 1, 3, 7]), np.array([0.0, 0.0, 1.0, 1.0])), 6)
    1.828427
    """
    level = (float(curve.min()) + float(curve[-1])) / 2
    rises = np.flatnonzero((curve[:-1] < level) & (curve[1:] >= level))
    if not len(rises):
        return float("inf")
    at = int(rises[-1])
    share = (level - curve[at]) / (curve[at + 1] - curve[at])
    left, right = np.log1p(steps[at]), np.log1p(steps[at + 1])
    return float(np.expm1(left + share * (right - left)))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


@measure
def composition_rise(run: TrainingRun, *, writers: str, draws: int, seed: int) -> Measurement:
    """Mean K-composition of layer-0 heads of the type `writers` with layer-1 multigram heads, last over earlier.

    Earlier is the checkpoint nearest to 13 % of training. The interval resamples heads of both layers. Arrays: `steps`,
    `curve` (step,) with `low` and `high`, each point's own. Partial where the run has no such heads.
    """
    curves, generator = run.k_composition(), np.random.default_rng(seed)
    rows, columns = _typed(run, writers, layer=0), _typed(run, "multigram", layer=1)
    if not rows or not columns:
        reason = f"no {writers} heads in layer 0 or no multigram heads in layer 1"
        return Measurement(f"K-composition of {writers} heads", None, status="partial", facts={"reason": reason})
    early = curves.at(SHARE_OF_TRAINING * curves.steps[-1])
    ends, means, kept = [early, len(curves.steps) - 1], [], []
    own = curves.values[:, rows][:, :, columns]
    for index in range(draws):
        drawn = curves.draw(generator)[:, rows][:, :, columns]  # (step, row, column)
        means.append(means_of_pairs(drawn[None], generator)[0])
        if index < BAND_DRAWS:
            kept.append(drawn[ends])
    means = np.stack(means)  # (draw, step)
    low, high = percentile_band(means, redrawn=min(own.shape[1:]))
    return replace(
        growth_of_pairs(own[ends], means[:, ends]),
        quantity=f"K-composition of {writers} with multigram heads, last checkpoint over step {curves.steps[early]:,}",
        seed=seed,
        arrays={"steps": curves.steps, "curve": own.mean((1, 2)), "low": low, "high": high, "last": means[:, -1],
                "pairs": own[ends], "pairs_drawn": np.stack(kept)},
        facts={"early": int(curves.steps[early]), "writers": [f"0:{head}" for head in rows]},
    )  # fmt: skip


def growth_of_pairs(pairs: Float[np.ndarray, "2 row column"], means: Float[np.ndarray, "draw 2"]) -> Measurement:
    """The mean over pairs of heads at the end over that before, `means` being both as drawn over heads and their noise.

    The percentiles are expanded for the heads of the layer that has fewer.
    """
    before, after = pairs.mean((1, 2))
    method = f"{len(means):,} bootstrap draws over heads of both layers"
    return Measurement(
        "growth of a mean over pairs of heads",
        float(after / before),
        percentile_interval(means[:, 1] / means[:, 0], method, redrawn=min(pairs.shape[1:])),
        unit="times",
        n=pairs[0].size,
        redrawn={"heads": sum(pairs.shape[1:])},
    )


def means_of_pairs(
    drawn: Float[np.ndarray, "draw step row column"], generator: np.random.Generator
) -> Float[np.ndarray, "draw step"]:
    """The mean over pairs of each draw, its rows and its columns drawn anew as well: the same at every step."""
    draws, _, rows, columns = drawn.shape
    left, right = (bootstrap_counts(count, draws, generator) / count for count in (rows, columns))
    return np.einsum("dsrc,dr,dc->ds", drawn, left, right, optimize=True)


def _typed(run: TrainingRun, kind: str, layer: int) -> list[int]:
    types = run.head_types().items()
    return [int(name.split(":")[1]) for name, found in types if found == kind and name.startswith(f"{layer}:")]


@dataclass(frozen=True)
class Heads:
    """The typed heads of one run, as findings."""

    run: TrainingRun
    seed: int = 0

    @property
    def draws(self) -> int:
        """Bootstrap draws, as the run's profile has them."""
        return self.run.context.profile.bootstrap_draws

    def leaders(self, score: Score) -> Finding:
        """Which two heads lead (RL-03)."""
        from circuit_claims.papers.refined_llc.stages import known_heads as known

        layer = TYPE_OF[score][1]

        def measured(run: Any) -> Measurement:
            return leading_heads(run, score=score, layer=layer, draws=self.draws, seed=self.seed)

        own = measured(self.run)
        return Finding(
            own,
            controls_of(self.run, measured),
            false={known.NAMES: partial(known.names_dealt_out, own, layer)},
            oracles={known.NAMED_LEAD: partial(known.named_heads_lead, own, layer)},
        )

    def best(self, score: Score) -> Finding:
        """How high the best head scores, against a layer before training (RL-03)."""
        from circuit_claims.papers.refined_llc.stages import known_heads as known

        def measured(run: Any) -> Measurement:
            return highest_score(run, score=score, layer=TYPE_OF[score][1], draws=self.draws, seed=self.seed)

        own = measured(self.run)
        return Finding(
            own,
            controls_of(self.run, measured),
            false={known.UNTRAINED: partial(known.never_trained, own)},
            oracles={known.RAISED: partial(known.one_head_raised, own, FORMED[score])},
        )

    def formation(self) -> Finding:
        """Which type forms first (RL-04)."""
        from circuit_claims.papers.refined_llc.stages import known_heads as known

        def measured(run: Any) -> Measurement:
            return formation(run, draws=self.draws, seed=self.seed)

        own = measured(self.run)
        return Finding(
            own,
            controls_of(self.run, measured),
            false={known.AT_ONCE: partial(known.formed_at_once, own)},
            oracles={known.APART: partial(known.formed_in_turn, own)},
        )


def controls_of(run: TrainingRun, measured: Callable[[Any], Measurement]) -> dict[str, Callable[[], Measurement]]:
    """The controls that every measure of a run's heads has: wrong labels, no training, and a planted run."""
    return {
        "shuffled head labels": lambda: measured(Rearranged(run, shuffle="heads")),
        "shuffled steps": lambda: measured(Rearranged(run, shuffle="steps")),
        "untrained model": lambda: measured(Rearranged(run, frozen=True)),
        "planted heads": lambda: measured(planted_run(run)),
        "planted composition": lambda: measured(planted_run(run)),
    }


def planted_run(run: TrainingRun, *, first_generation: bool = True) -> TrainingRun:
    """A made-up run in which every recorded finding holds, in the context of `run`."""
    from circuit_claims.papers.refined_llc.runs.recorded import RecordedRun
    from circuit_claims.papers.refined_llc.runs.recorded_planted import planted_data

    return RecordedRun(planted_data(first_generation=first_generation), run.context, name="planted run")


@dataclass(frozen=True)
class Composition:
    """K-composition of one run's heads, as findings (RL-32)."""

    run: TrainingRun
    seed: int = 0

    def table(self, run: TrainingRun, writers: str) -> Measurement:
        """The stored measurement for one type of writing heads."""
        draws = self.run.context.profile.bootstrap_draws
        return composition_rise(run, writers=writers, draws=draws, seed=self.seed)

    def rise(self) -> Finding:
        """By how much multigram heads come to compose after LM2; previous-token heads with them must not."""
        from circuit_claims.papers.refined_llc.stages import known_heads as known

        controls = controls_of(self.run, lambda run: self.table(run, "multigram"))
        controls["previous-token to multigram"] = lambda: self.table(self.run, "previous-token")
        own = self.table(self.run, "multigram")
        if own.status != "complete":
            return Finding(own, controls)
        return Finding(
            own,
            controls,
            false={known.TRADED: partial(known.pairs_traded, own)},
            oracles={known.RISEN: partial(known.pairs_risen, own)},
        )

    def settings(self) -> list[dict[str, Finding]]:
        """The rise under other thresholds of head types: one table, or none for a run whose types hang on none."""
        others = getattr(self.run, "other_types", dict)()
        runs = {"as judged": self.run, **others}
        return [{name: Composition(run).rise() for name, run in runs.items()}] if others else []

    def at_the_end(self) -> Finding:
        """K-composition of previous-token with multigram heads at the last checkpoint.

        False are other writers of layer 0, as many, with the same readers. No oracle: the value is read off one file.
        """
        from circuit_claims.papers.refined_llc.stages import known_heads as known

        controls = controls_of(self.run, lambda run: self.last(run, "previous-token"))
        controls["multigram to multigram"] = lambda: self.last(self.run, "multigram")
        own = self.last(self.run, "previous-token")
        count = len(self.table(self.run, "previous-token").facts.get("writers", ()))
        others = self.table(self.run, "multigram")
        if own.status != "complete" or others.status != "complete" or count > others.arrays["pairs"].shape[1]:
            return Finding(own, controls)
        return Finding(own, controls, false={known.OTHERS: partial(known.other_writers, others, count)})

    def last(self, run: TrainingRun, writers: str) -> Measurement:
        """The last value of the curve with its interval."""
        table = self.table(run, writers)
        return table if table.status != "complete" else mean_at_the_end(table)


def mean_at_the_end(table: Measurement) -> Measurement:
    """The mean over pairs at the last checkpoint, of a table of `composition_rise`."""
    draws, pairs = table.arrays["last"], table.arrays["pairs"]
    method = f"{len(draws):,} bootstrap draws over heads of both layers"
    interval = percentile_interval(draws, method, redrawn=min(pairs.shape[1:]))
    quantity = f"{table.quantity.partition(',')[0]} at the last checkpoint"
    return table.derive(quantity, float(pairs[1].mean()), interval=interval, unit="composition")


@measure
def initialisation(run: TrainingRun, *, seed: int) -> Measurement:
    """How an initialisation drawn from `seed` compares with the run's first checkpoint (RL-01)."""
    from circuit_claims.papers.refined_llc.stages.published_seed import seed_match

    norms, total = run.position_norms()
    return seed_match(norms, total, seed=seed)


def seed_of(run: TrainingRun) -> Finding:
    """Whether the published seed drew this run; other seeds must not have.

    False are the recorded norms under other rows, true those of the seed's own rows after one step up or down.
    """
    from circuit_claims.papers.refined_llc.stages import published_seed as ps

    controls = {f"seed {seed}": lambda seed=seed: initialisation(run, seed=seed) for seed in ps.OTHER_SEEDS}
    own = initialisation(run, seed=ps.PUBLISHED_SEED)
    return Finding(
        own,
        controls,
        false={"recorded norms dealt out to the rows at random": partial(ps.rows_dealt_out, own)},
        oracles={"the seed's own rows, every number one step up or down": ps.one_update_on},
    )


def heads(run: TrainingRun) -> Heads:
    """The typed heads of a run."""
    return Heads(run)


def composition_over_training(run: TrainingRun) -> Composition:
    """The K-composition of a run's heads."""
    return Composition(run)
