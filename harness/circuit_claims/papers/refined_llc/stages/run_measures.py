"""What the second paper's claims on a training run measure: leading heads, formation, K-composition (RL-03, 04, 32).

A measure takes a `TrainingRun`, recorded or live, and never sees a claim. `Heads` and `Composition` pair measurements
with their controls: the same measured on a run with wrong labels, one that never trained, and a planted one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from circuit_claims.api import Finding, Interval, Measurement, measure, percentile_interval, permutation_p_value
from circuit_claims.judging.ranking import Ranking, first_of, order_of
from circuit_claims.judging.statistics import LEVEL, percentile_band
from circuit_claims.papers.refined_llc.runs.recorded import PREFIX_FROM, PREVIOUS_FROM
from circuit_claims.papers.refined_llc.runs.training_run import Rearranged, RunCurves, Score, TrainingRun

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
    half = float(np.quantile(np.abs(resampled[:, 1] - value).max(1), LEVEL))
    null, best = resampled[:, 0].max(1), float(value.max())
    return Measurement(
        f"highest {score} score in layer {layer}",
        best,
        Interval(best - half, best + half, LEVEL, f"{curves.method}; simultaneous over heads"),
        unit="mean attention",
        p_value=permutation_p_value(best, null),
        redrawn={"measurements": curves.drawn},
        n=len(value),
        seed=seed,
        arrays={"null": null, "final": value, "first_draws": resampled[:, 0]},
        facts={"head": f"{layer}:{int(value.argmax())}"},
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
    layers = [layer for _, (_, layer) in named]

    def half(which: int, values: np.ndarray) -> float:
        curve = values[:, layers[which], picked[which]].mean(1)
        return last_half_rise(scores[which].steps, curve) if curve[-1] >= FORMED[named[which][0]] else float("inf")

    resampled = np.array([[half(which, one.draw(generator)) for which, one in enumerate(scores)] for _ in range(draws)])
    values = [half(which, one.values) for which, one in enumerate(scores)]
    kinds = [kind for _, (kind, _) in named]
    gaps = np.searchsorted(scores[0].steps, np.array(values)), np.searchsorted(scores[0].steps, resampled)
    ranking = order_of(kinds, -gaps[0], -gaps[1])
    tie = "not resolved by the checkpoints" if np.isfinite(values).any() else "neither"
    resolved = len(set(gaps[0].tolist())) > 1
    return Measurement(
        "step at which each type has made half of its rise",
        ranking.leader if resolved else tie,
        support=ranking.support or {tie: 1.0},
        rivals=ranking.rivals,
        redrawn={"measurements": scores[0].drawn},
        n=len(scores[0].steps),
        seed=seed,
        status="complete" if np.isfinite(values).any() else "partial",
        arrays={
            "half": resampled,
            "steps": scores[0].steps,
            "curves": np.stack([one.values[:, layers[i], picked[i]].mean(1) for i, one in enumerate(scores)]),
        },
        facts={"half": [_finite(value) for value in values], "types": kinds},
    )


def last_half_rise(steps: np.ndarray, curve: Float[np.ndarray, " step"]) -> float:
    """The step where a curve last passes, upwards, half-way from its least value to its last; inf where it does not.

    >>> last_half_rise(np.array([0, 1, 3, 7]), np.array([0.0, 0.0, 1.0, 1.0]))
    1.8284271247461903
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
    means = np.stack([_mean_of_pairs(curves, rows, columns, generator) for _ in range(draws)])  # (draw, step)
    value = curves.values[:, rows][:, :, columns].mean((1, 2))
    ratios = means[:, -1] / means[:, early]
    low, high = percentile_band(means)
    return Measurement(
        f"K-composition of {writers} with multigram heads, last checkpoint over step {curves.steps[early]:,}",
        float(value[-1] / value[early]),
        percentile_interval(ratios, f"{draws:,} bootstrap draws over heads of both layers"),
        unit="times",
        n=len(rows) * len(columns),
        redrawn={"heads": len(rows) + len(columns)},
        seed=seed,
        arrays={"steps": curves.steps, "curve": value, "low": low, "high": high, "last": means[:, -1]},
        facts={"early": int(curves.steps[early]), "writers": [f"0:{head}" for head in rows]},
    )


def _typed(run: TrainingRun, kind: str, layer: int) -> list[int]:
    types = run.head_types().items()
    return [int(name.split(":")[1]) for name, found in types if found == kind and name.startswith(f"{layer}:")]


def _mean_of_pairs(
    curves: RunCurves, rows: list[int], columns: list[int], generator: np.random.Generator
) -> np.ndarray:
    values = curves.draw(generator)
    left, right = generator.choice(rows, len(rows)), generator.choice(columns, len(columns))
    return values[:, left][:, :, right].mean((1, 2))


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
        layer = TYPE_OF[score][1]
        return self._controlled(
            lambda run: leading_heads(run, score=score, layer=layer, draws=self.draws, seed=self.seed)
        )

    def best(self, score: Score) -> Finding:
        """How high the best head scores, against a layer before training (RL-03)."""
        layer = TYPE_OF[score][1]
        return self._controlled(
            lambda run: highest_score(run, score=score, layer=layer, draws=self.draws, seed=self.seed)
        )

    def formation(self) -> Finding:
        """Which type forms first (RL-04)."""
        return self._controlled(lambda run: formation(run, draws=self.draws, seed=self.seed))

    def _controlled(self, measured: Callable[[Any], Measurement]) -> Finding:
        return Finding(measured(self.run), controls_of(self.run, measured))


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
        controls = controls_of(self.run, lambda run: self.table(run, "multigram"))
        controls["previous-token to multigram"] = lambda: self.table(self.run, "previous-token")
        return Finding(self.table(self.run, "multigram"), controls)

    def settings(self) -> list[dict[str, Finding]]:
        """The rise under other thresholds of head types: one table, or none for a run whose types hang on none."""
        others = getattr(self.run, "other_types", dict)()
        runs = {"as judged": self.run, **others}
        return [{name: Composition(run).rise() for name, run in runs.items()}] if others else []

    def at_the_end(self) -> Finding:
        """K-composition of previous-token with multigram heads at the last checkpoint."""
        controls = controls_of(self.run, lambda run: self.last(run, "previous-token"))
        controls["multigram to multigram"] = lambda: self.last(self.run, "multigram")
        return Finding(self.last(self.run, "previous-token"), controls)

    def last(self, run: TrainingRun, writers: str) -> Measurement:
        """The last value of the curve with its interval."""
        table = self.table(run, writers)
        if table.status != "complete":
            return table
        interval = percentile_interval(table.arrays["last"], table.interval.method if table.interval else "")
        quantity = f"K-composition of {writers} with multigram heads at the last checkpoint"
        return table.derive(quantity, float(table.arrays["curve"][-1]), interval=interval, unit="composition")


@measure
def initialisation(run: TrainingRun, *, seed: int) -> Measurement:
    """How an initialisation drawn from `seed` compares with the run's first checkpoint (RL-01)."""
    from circuit_claims.papers.refined_llc.stages.published_seed import seed_match

    norms, total = run.position_norms()
    return seed_match(norms, total, seed=seed)


def seed_of(run: TrainingRun) -> Finding:
    """Whether the published seed drew this run; other seeds must not have."""
    from circuit_claims.papers.refined_llc.stages.published_seed import OTHER_SEEDS, PUBLISHED_SEED

    controls = {f"seed {seed}": lambda seed=seed: initialisation(run, seed=seed) for seed in OTHER_SEEDS}
    return Finding(initialisation(run, seed=PUBLISHED_SEED), controls)


def heads(run: TrainingRun) -> Heads:
    """The typed heads of a run."""
    return Heads(run)


def composition_over_training(run: TrainingRun) -> Composition:
    """The K-composition of a run's heads."""
    return Composition(run)
