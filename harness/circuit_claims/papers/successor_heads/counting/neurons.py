"""The neurons of MLP_0 that a head counts by, and how they fire along the index (Gould et al. 2024, section 3): SH-13.

A neuron is what the output matrix of MLP_0 is multiplied by: act(in x) in GPT-2 and GPT-NeoX, act(gate x) * (up x) in
the gated MLPs of Llama, Qwen and Gemma. Ablated, it is zero (the paper does not say what else). Its firing curve is its
value along the index. The paper does not say how it finds a curve's period; here it is the modulus whose residue
classes explain most of the curve, after its straight line is taken off, each modulus charged for its number of classes
(adjusted R^2). A Fourier spectrum gives the same for a sine, but would halve the period of a comb of spikes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.api import Measurement, bootstrap_counts, first_of, percentile_interval
from circuit_claims.models.architectures.layers import CircuitWeights, Mlp
from circuit_claims.papers.successor_heads.counting.features import Logits, successor_probability
from circuit_claims.papers.successor_heads.counting.moduli import DRAWS
from circuit_claims.papers.successor_heads.counting.tokens import NOBODY

TOP = 16
PERIODS = tuple(range(2, 26))
CELLS_AT_ONCE = 1 << 13
NEARLY = 0.01


def neuron_values(weights: CircuitWeights, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_mlp"]:
    """The neurons of MLP_0 on what it reads: W_E(t) of tokens, or residual vectors of a text."""
    return hidden_of(weights.mlp(0), x)


def hidden_of(mlp: Mlp, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n d_mlp"]:
    """What the output matrix of an MLP is multiplied by."""
    x = mlp.norm(x)
    hidden = mlp.activation(mlp.inwards[0](x))
    for up in mlp.inwards[1:]:
        hidden = hidden * up(x)
    return hidden


def ablation_drops(
    mlp: Mlp,
    hidden: Float[Tensor, "n d_mlp"],
    successors: Int[Tensor, " n"],
    logits: Logits,
    beside: Float[Tensor, "n d_model"] | None = None,
) -> Float[np.ndarray, "n d_mlp"]:
    """By how much the successor's probability drops when one neuron is set to zero, for each token and neuron.

    `logits` is what a head makes of vectors, `successors` the columns of the successors (`NOBODY`: none, no drop).
    `beside` is what the head reads besides MLP_0's output (the embedding, on the path `embed+mlp0`).
    """
    bare = mlp.out(hidden)  # (n, d_model), before the norm that Gemma has here
    extra = torch.zeros_like(bare) if beside is None else beside
    columns = mlp.out.weight.T  # (d_mlp, d_model)
    drops = torch.zeros_like(hidden)
    kept = successor_probability(logits(mlp.post_norm(bare) + extra), successors)
    for row in (successors != NOBODY).nonzero()[:, 0].tolist():
        for neurons in torch.arange(len(columns)).split(CELLS_AT_ONCE):
            without = mlp.post_norm(bare[row] - hidden[row, neurons, None] * columns[neurons]) + extra[row]
            left = successor_probability(logits(without), successors[row].expand(len(neurons)))
            drops[row, neurons] = kept[row] - left
    return drops.numpy()


def firing_by_index(
    hidden: Float[Tensor, "n neuron"], index: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " position"], Float[np.ndarray, "position neuron"]]:
    """Each neuron's mean value at every index that has a token (forms averaged), indices ascending."""
    positions, places = np.unique(index, return_inverse=True)
    return positions, _by_index(hidden.numpy().astype(np.float64), index) / np.bincount(places)[:, None]


def spectra(curves: Float[np.ndarray, "position neuron"]) -> Float[np.ndarray, "frequency neuron"]:
    """Share of each curve's variance at each frequency 1/n ... 1/2 per index, its straight line taken off."""
    power = np.abs(np.fft.rfft(_levelled(np.arange(len(curves)), curves), axis=0)[1:]) ** 2
    return power / np.maximum(power.sum(0), 1e-30)


def explained_by_period(
    positions: Int[np.ndarray, " position"],
    curves: Float[np.ndarray, "position neuron"],
    periods: tuple[int, ...] = PERIODS,
) -> Float[np.ndarray, "period neuron"]:
    """Adjusted R^2 of the residue classes of each period, for each curve, its straight line taken off.

    1: the curve is a function of the index mod the period; about 0: no more than chance. A period with fewer than
    two positions a class is not a number.
    """
    level = _levelled(positions, curves)
    level -= level.mean(0)  # 0 but for rounding, which is all that a constant curve has left
    spread = np.maximum((level**2).sum(0), 1e-30)
    n, found = len(positions), np.full((len(periods), curves.shape[1]), np.nan)
    asked = [row for row, period in enumerate(periods) if n >= 2 * period]
    if not asked:
        return found
    # One row for each class of each period: all means come from one product.
    moduli = np.concatenate([np.full(periods[row], periods[row]) for row in asked])
    residues = np.concatenate([np.arange(periods[row]) for row in asked])
    inside = (positions % moduli[:, None] == residues[:, None]).astype(float)  # (class, position)
    size = inside.sum(1)
    between = (inside @ level) ** 2 / np.maximum(size, 1)[:, None]
    starts = np.cumsum([0, *(periods[row] for row in asked[:-1])])
    classes = np.add.reduceat(size > 0, starts, dtype=int)
    explained = np.add.reduceat(between, starts, axis=0) / spread
    found[asked] = 1 - (1 - explained) * ((n - 1) / (n - classes))[:, None]
    return found


def explained_in_draws(
    positions: Int[np.ndarray, " position"],
    curves: Float[np.ndarray, "position neuron"],
    weights: Int[np.ndarray, "draw position"],
) -> Float[np.ndarray, "draw period neuron"]:
    """`explained_by_period` of each of `PERIODS` where a draw takes each position so often; -inf where it says nothing.

    Positions drawn twice hold a curve no better: a draw is charged for its classes as one of as many positions of equal
    weight as carry as much. The straight line is that of the whole curve.
    """
    level, weights = _levelled(positions, curves), weights.astype(np.float64)
    sizes, sums = weights.sum(1), weights @ level
    whole = weights @ level**2  # (draw, neuron)
    total = np.maximum(whole - sums**2 / sizes[:, None], 1e-30)
    worth = sizes**2 / (weights**2).sum(1)
    found = np.full((len(weights), len(PERIODS), curves.shape[1]), -np.inf)
    for row, period in enumerate(PERIODS):
        left, classes = whole.copy(), np.zeros(len(weights))
        for residue in np.unique(positions % period):
            members = positions % period == residue
            size = weights[:, members].sum(1)
            left -= (weights[:, members] @ level[members]) ** 2 / np.maximum(size, 1)[:, None]
            classes += size > 0
        free = worth - classes
        charged = 1 - left / total * ((worth - 1) / np.maximum(free, 1))[:, None]
        found[:, row] = np.where((free >= classes)[:, None], charged, -np.inf)
    return found


def _levelled(positions: np.ndarray, curves: np.ndarray) -> np.ndarray:
    line = np.stack([np.ones(len(positions)), positions - positions.mean()], axis=1)
    return curves - line @ np.linalg.lstsq(line, curves, rcond=None)[0]


@dataclass(frozen=True)
class NeuronPeriods:
    """Neurons from the most to the less important, with the period of each and how sure it is.

    `explained` is the adjusted R^2 of the best period; `p_value` the share of shuffled indices under which any period
    explains as much (with the +1 correction): the choice among periods is paid for.
    """

    neurons: Int[np.ndarray, " neuron"]
    drop: Float[np.ndarray, " neuron"]
    period: Int[np.ndarray, " neuron"]
    explained: Float[np.ndarray, " neuron"]
    p_value: Float[np.ndarray, " neuron"]
    positions: Int[np.ndarray, " position"]
    curves: Float[np.ndarray, "position neuron"]
    by_period: Float[np.ndarray, "period neuron"]
    periods: tuple[int, ...] = PERIODS


def neuron_periods(
    hidden: Float[Tensor, "n d_mlp"],
    drops: Float[np.ndarray, "n d_mlp"],
    index: Int[np.ndarray, " n"],
    generator: np.random.Generator,
    *,
    top: int = TOP,
    shuffles: int = 999,
    periods: tuple[int, ...] = PERIODS,
) -> NeuronPeriods:
    """The `top` neurons by mean drop over the rows of `drops`, their firing curves along `index`, and their periods.

    Rows are tokens: a token whose successor is nobody has no drop but counts in the curve. Raises `ValueError` where
    no period has two tokens a class.
    """
    mean = drops.mean(0)
    best = np.argsort(-mean, kind="stable")[:top]
    positions, curves = firing_by_index(hidden[:, torch.from_numpy(best.copy())], index)
    by_period = explained_by_period(positions, curves, periods)
    if np.isnan(by_period).all():
        raise ValueError(f"periods of neurons: expected at least {2 * min(periods)} indices, found {len(positions)}")
    chosen, explained = best_periods(by_period, periods)
    beaten = np.zeros(len(best))
    for _ in range(shuffles):
        null = explained_by_period(positions, curves[generator.permutation(len(positions))], periods)
        beaten += np.nanmax(null, axis=0) >= explained
    p_value = (1 + beaten) / (1 + shuffles)
    return NeuronPeriods(best, mean[best], chosen, explained, p_value, positions, curves, by_period, periods)


def commonest_period(
    hidden: Float[Tensor, "n d_mlp"],
    drops: Float[np.ndarray, "n d_mlp"],
    index: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
    top: int = TOP,
    shuffles: int = 999,
    alpha: float = 0.05,
) -> Measurement:
    """The commonest period of the firing curves of the `top` neurons (SH-13).

    Only neurons whose curve has a period at all count (p below `alpha` / `top` against shuffled indices); 0 where none
    has. Strings (all tokens of one index) are drawn anew, and in each draw the neurons ranked and their periods found.
    """
    generator = np.random.default_rng(seed)
    found = neuron_periods(hidden, drops, index, generator, top=top, shuffles=shuffles)
    least = _chance(found, generator, shuffles, alpha / top)
    weights = bootstrap_counts(len(found.positions), DRAWS // 4, generator)
    redrawn = np.argsort(-(weights @ _by_index(drops, index)), axis=1, kind="stable")[:, :top]
    named, places = np.unique(np.vstack([found.neurons, redrawn]), return_inverse=True)
    ranked = places.reshape(-1, top)
    positions, curves = firing_by_index(hidden[:, torch.from_numpy(named)], index)
    return replace(
        votes_on(positions, curves, ranked, least, weights),
        quantity=f"commonest period of the top {top} neurons",
        seed=seed,
        arrays={
            **tables(found),
            "spectra": spectra(found.curves),
            "named/curves": curves,
            "named/ranked": ranked.astype(np.int32),
            "named/weights": weights.astype(np.int16),
        },
        facts={
            "periodic": int((found.p_value < alpha / top).sum()),
            "periods": list(found.periods),
            "least explained": least,
        },
    )


def votes_on(
    positions: Int[np.ndarray, " position"],
    curves: Float[np.ndarray, "position neuron"],
    ranked: Int[np.ndarray, "row place"],
    least: float,
    weights: Int[np.ndarray, "draw position"],
) -> Measurement:
    """The commonest period of the neurons in the first row of `ranked`, and of those in each other row in its draw.

    Neurons are columns of `curves`, the most important first in each row; `weights` says how often each draw takes the
    string of each position. A neuron whose best period explains no more than `least` of the whole curve has no vote.
    """
    by_period, redrawn = explained_by_period(positions, curves), explained_in_draws(positions, curves, weights)
    period_of, explained = best_periods(by_period)
    drawn_period = best_periods(redrawn.swapaxes(0, 1).reshape(len(PERIODS), -1))[0].reshape(len(weights), -1)
    sure = explained > least
    votes = np.stack(
        [_votes(periods[row], sure[row]) for periods, row in zip([period_of, *drawn_period], ranked, strict=True)]
    )
    found = first_of([str(period) for period in PERIODS], votes[0], votes[1:].astype(np.float64))
    leading = np.where(votes.max(1) > 0, np.asarray(PERIODS)[votes.argmax(1)], 0)
    method = f"{len(weights):,} bootstrap draws over strings"
    return Measurement(
        f"commonest period of {ranked.shape[1]} neurons",
        float(leading[0]),
        percentile_interval(leading[1:], method, redrawn=len(positions)),
        unit="indices",
        support=found.support,
        rivals=found.rivals,
        redrawn={"strings": len(positions)},
        n=ranked.shape[1],
    )


def tables(found: NeuronPeriods) -> dict[str, np.ndarray]:
    """The arrays of a set of neurons by name."""
    return {name: value for name, value in vars(found).items() if isinstance(value, np.ndarray)}


def best_periods(
    by_period: Float[np.ndarray, "period neuron"], periods: tuple[int, ...] = PERIODS
) -> tuple[Int[np.ndarray, " neuron"], Float[np.ndarray, " neuron"]]:
    """The shortest period that explains nearly as much as any, and how much the best explains.

    A multiple of a period is a period too: the two differ by chance only.
    """
    best = np.nanmax(by_period, axis=0)
    return np.asarray(periods)[np.argmax(np.nan_to_num(by_period, nan=-np.inf) >= best - NEARLY, axis=0)], best


def _chance(found: NeuronPeriods, generator: np.random.Generator, shuffles: int, alpha: float) -> float:
    """What the best of all periods explains of a curve with shuffled indices, exceeded with probability `alpha`.

    The curves of the top neurons stand for all: shuffling thousands of curves would take long.
    """
    orders = [generator.permutation(len(found.positions)) for _ in range(max(shuffles // 10, 1))]
    null = [np.nanmax(explained_by_period(found.positions, found.curves[order]), axis=0) for order in orders]
    return float(np.quantile(np.concatenate(null), 1 - alpha))


def _by_index(values: Float[np.ndarray, "n neuron"], index: Int[np.ndarray, " n"]) -> np.ndarray:
    """Sums over the tokens of each index, indices ascending: forms of one string together."""
    positions, places = np.unique(index, return_inverse=True)
    sums = np.zeros((len(positions), values.shape[1]))
    np.add.at(sums, places, values)
    return sums


def _votes(periods: np.ndarray, sure: np.ndarray) -> Int[np.ndarray, " period"]:
    """How many of some neurons have each period, of those that have one at all."""
    return np.bincount(periods[sure] - PERIODS[0], minlength=len(PERIODS))
