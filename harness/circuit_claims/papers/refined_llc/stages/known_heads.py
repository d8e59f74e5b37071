"""Scores and composition with a known answer, made of a run's own: a claim is false in them, or true, and no more.

Each takes a stored measurement of `run_measures`, whose arrays hold how the figures may have come out, and gives one
data set with its own interval, by the same functions as the measurement itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circuit_claims.api import Measurement
from circuit_claims.papers.refined_llc.curves.known import CALIBRATION
from circuit_claims.papers.refined_llc.runs.recorded_planted import INDUCTION, PREVIOUS
from circuit_claims.papers.refined_llc.stages import head_quantities as hq

NAMES = "names dealt out to the layer's heads at random"
NAMED_LEAD = "these scores, the highest of them the heads' that the paper names"
UNTRAINED = "the first checkpoint's scores, measured anew, in place of the last's"
RAISED = (
    "the first checkpoint's scores, the leading head on its way to the last's at twice what makes it one of the type"
)
AT_ONCE = "both types with the rise of one of them, each with its own heights and noise"
APART = "rises at a third and at two thirds of the checkpoints, with these heights and noise"
TRADED = "first and last place of pairs traded at random, by the heads of both layers"
RISEN = "these pairs, their mean rise the middle of the recorded ranges"
OTHERS = "as many multigram heads of layer 0 as writers, drawn at random"
RECORDED_RISE = (0.055 + 0.069) / (0.016 + 0.030)  # of the authors' recorded ranges, their middles


def names_dealt_out(own: Measurement, layer: int, generator: np.random.Generator) -> Measurement:
    """The scores of `leading_heads` under other heads' names."""
    return _renamed(own, layer, generator.permutation(len(own.arrays["final"])))


def named_heads_lead(own: Measurement, layer: int) -> Measurement:
    """The scores of `leading_heads`, the highest of them under the names that the paper gives its leading heads."""
    named = [int(head[2:]) for head in (*PREVIOUS, *INDUCTION) if head[0] == str(layer)]
    rest = [head for head in range(len(own.arrays["final"])) if head not in named]
    order = np.empty(len(named) + len(rest), dtype=int)
    order[[*named, *rest]] = np.argsort(-own.arrays["final"], kind="stable")
    return _renamed(own, layer, order)


def _renamed(own: Measurement, layer: int, order: np.ndarray) -> Measurement:
    scores, drawn = own.arrays["final"][order], own.arrays["final_draws"][:CALIBRATION, order]
    ranking = hq.leading(scores, drawn, layer)
    return own.derive(own.quantity, ranking.leader, support=ranking.support, rivals=ranking.rivals)


def never_trained(own: Measurement, generator: np.random.Generator) -> Measurement:
    """Scores of `highest_score` at the last checkpoint as another measurement of the first might have found them."""
    first = own.arrays["first_draws"]
    value = first[generator.integers(len(first))]
    return _best(own, value, first[:CALIBRATION] - first.mean(0))


def one_head_raised(own: Measurement, formed: float) -> Measurement:
    """The first checkpoint's scores, the leading head moved towards its last score until it has twice `formed`.

    Noise goes with the scores: the head's is that of its two scores in the same share, all others have the first's.
    """
    drawn, head = own.arrays["first_draws"].copy(), own.arrays["final"].argmax()
    start, last = float(drawn[:, head].mean()), float(own.arrays["final"][head])
    share = (2 * formed - start) / (last - start) if last > start else 0.0
    drawn[:, head] += share * (own.arrays["final_draws"][:, head] - drawn[:, head])
    value = drawn.mean(0)
    value[head] = start + share * (last - start)
    return _best(own, value, (drawn - value)[:CALIBRATION])


def _best(own: Measurement, value: np.ndarray, noise: np.ndarray) -> Measurement:
    found = hq.best_score(value, value + noise, own.arrays["first_draws"], own.facts["method"])
    return own.derive(
        own.quantity, found.value, interval=found.interval, p_value=found.p_value, unit=found.unit, arrays=found.arrays
    )


def formed_at_once(own: Measurement, generator: np.random.Generator) -> Measurement:
    """Curves of `formation` that all have the shape of one type's: no type has formed first.

    Which one is drawn at random among those that formed.
    """
    curves = own.arrays["curves"]
    formed = [curve for curve, score in zip(curves, hq.TYPE_OF, strict=True) if curve[-1] >= hq.FORMED[score]]
    shapes = formed or list(curves)
    shape = _shape(shapes[generator.integers(len(shapes))])
    return _formation(own, [shape] * len(curves), generator.integers(len(own.arrays["drawn"]), size=len(curves)))


def formed_in_turn(own: Measurement) -> Measurement:
    """Curves of `formation` that rise from one checkpoint to the next, one type after the other."""
    count = len(own.arrays["steps"])
    shapes = [(np.arange(count) >= at).astype(float) for at in (count // 3, 2 * count // 3)]
    return _formation(own, shapes, None)


def _shape(curve: np.ndarray) -> np.ndarray:
    height = curve[-1] - curve.min()
    return (curve - curve.min()) / height if height > 0 else np.zeros_like(curve)


def _formation(own: Measurement, shapes: Sequence[np.ndarray], picks: np.ndarray | None) -> Measurement:
    """These shapes at each type's own heights; `picks` names the draw whose noise each curve was found with.

    A type that has not formed here ends at twice what makes a head one of it.
    """
    curves, drawn = own.arrays["curves"], own.arrays["drawn"]
    noise, low = drawn - curves, curves.min(1)
    last = np.maximum(curves[:, -1], [2 * hq.FORMED[score] for score in hq.TYPE_OF])
    values = low[:, None] + (last - low)[:, None] * np.stack(shapes)
    if picks is not None:
        values = values + noise[picks, np.arange(len(curves))]
    found = hq.order_of_rises(own.arrays["steps"], values, values + noise)
    return own.derive(own.quantity, found.value, support=found.support, rivals=found.rivals, status=found.status)


def pairs_traded(own: Measurement, generator: np.random.Generator) -> Measurement:
    """Pairs of `composition_rise` of which some trade their place before with that at the end: no rise on the whole.

    Heads of both layers are marked at random; a pair trades where one of its two heads is marked and the other is not.
    """
    rows, columns = (generator.random(count) < 0.5 for count in own.arrays["pairs"].shape[1:])
    trade = rows[:, None] != columns

    def traded(pairs: np.ndarray) -> np.ndarray:
        return np.where(trade, pairs[..., ::-1, :, :], pairs)

    return _growth(own, traded(own.arrays["pairs"]), traded(own.arrays["pairs_drawn"]), generator)


def pairs_risen(own: Measurement) -> Measurement:
    """Pairs of `composition_rise` whose mean rises as recorded, each as much more or less than the mean as it did."""
    pairs, drawn = own.arrays["pairs"], own.arrays["pairs_drawn"]
    scale = np.array([1.0, RECORDED_RISE * pairs[0].mean() / pairs[1].mean()])[:, None, None]
    return _growth(own, pairs * scale, drawn * scale, np.random.default_rng(own.seed))


def _growth(own: Measurement, pairs: np.ndarray, drawn: np.ndarray, generator: np.random.Generator) -> Measurement:
    found = hq.growth_of_pairs(pairs, hq.means_of_pairs(drawn[:CALIBRATION], generator))
    return own.derive(own.quantity, found.value, interval=found.interval, unit=found.unit)


def other_writers(others: Measurement, count: int, generator: np.random.Generator) -> Measurement:
    """The last value for `count` writers drawn from those of the table `others`, with the same readers."""
    picks = generator.permutation(others.arrays["pairs"].shape[1])[:count]
    pairs, drawn = others.arrays["pairs"][:, picks], others.arrays["pairs_drawn"][:CALIBRATION, :, picks]
    last = hq.means_of_pairs(drawn, generator)[:, -1]
    return hq.mean_at_the_end(
        others.derive(
            others.quantity,
            others.value,
            arrays={"pairs": pairs, "last": last},
            redrawn={"heads": sum(pairs.shape[1:])},
        )
    )
