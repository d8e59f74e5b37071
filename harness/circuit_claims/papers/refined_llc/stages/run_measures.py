"""What the second paper's claims on a training run measure: leading heads, formation, K-composition (RL-03, 04, 32).

A measure takes a `TrainingRun`, recorded or live, and never sees a claim. `Heads` and `Composition` pair measurements
with their controls: the same measured on a run with wrong labels, one that never trained, and a planted one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from circuit_claims.api import (
    Finding,
    Measurement,
    measure,
    percentile_band,
)
from circuit_claims.papers.refined_llc.runs.training_run import Rearranged, Score, TrainingRun
from circuit_claims.papers.refined_llc.stages.head_quantities import (
    FORMED,
    LEADERS,
    TYPE_OF,
    best_score,
    curves_by_type,
    growth_of_pairs,
    half_rise_of_type,
    leading,
    mean_at_the_end,
    means_of_pairs,
    order_of_rises,
)

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
    half = np.array(
        [[half_rise_of_type(scores[0].steps, *each) for each in curves_by_type(curves)] for curves in resampled]
    )
    return replace(
        found, redrawn={"measurements": scores[0].drawn}, seed=seed,
        arrays={**found.arrays, "half": half, "drawn": resampled[:BAND_DRAWS]},
    )  # fmt: skip


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
