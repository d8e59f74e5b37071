"""The path without the head, W_U MLP_0(W_E), read plainly and through an affine lens fitted on text (SH-08).

The paper reads this path with a tuned lens. Here the translator has a closed form: the affine map that takes a token's
vector early in the model (MLP_0(W_E), or the residual after block 0) nearest, by ridge least squares over the
positions of a text, to the final residual at that position. Nothing in this module knows a model library: a model or
weights come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.ov_circuit import head_inputs
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.architectures.names import names_of
from circuit_claims.papers.successor_heads.dataset import SuccessionDataset
from circuit_claims.papers.successor_heads.succession.score import SuccessorScores, find_winners, score_heads

RIDGE = 1e-3
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
HELD_OUT = 0.2
WINDOWS_PER_PASS = 4


@dataclass(frozen=True)
class AffineLens:
    """x -> x @ weight + bias, from vectors early in a model to final residuals before the final norm.

    `r_squared` is the share of the final residual's variance that the lens explains on the `held_out` positions, which
    it was not fitted on; `baseline` the share that the fitted positions' mean alone explains there (0 or less).
    """

    weight: Float[Tensor, "d_in d_out"]
    bias: Float[Tensor, " d_out"]
    ridge: float
    fitted: int
    held_out: int
    r_squared: float
    baseline: float

    def __call__(self, x: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_out"]:
        """The final residuals that the lens expects."""
        return x @ self.weight + self.bias


def fit_affine_lens(
    inputs: Float[Tensor, "n d_in"],
    targets: Float[Tensor, "n_targets d_out"],
    *,
    ridge: float = RIDGE,
    held_out: float = HELD_OUT,
) -> AffineLens:
    """The affine map of least squared error, with a ridge of `ridge` times the mean variance of the inputs.

    Rows are positions in the order of the text; the last `held_out` share of them is kept for `r_squared`, in one
    piece, so that no held-out position stands between fitted ones. The bias is not penalised. Solved in float64.
    Raises ValueError when rows do not match or fewer than two are left to fit on.
    """
    return next(fit_affine_lenses(inputs, targets, ridges=(ridge,), held_out=held_out))


def fit_affine_lenses(
    inputs: Float[Tensor, "n d_in"],
    targets: Float[Tensor, "n_targets d_out"],
    *,
    ridges: Sequence[float],
    held_out: float = HELD_OUT,
) -> Iterator[AffineLens]:
    """`fit_affine_lens` for one ridge after another: the products over positions are formed once for all of them."""
    n = len(inputs)
    kept = n - round(n * held_out)
    if len(targets) != n or kept < 2:
        raise ValueError(
            "affine lens: expected as many targets as inputs and at least 2 positions to fit on, found "
            f"{n} inputs, {len(targets)} targets, {kept} to fit on"
        )
    x, y = inputs[:kept].double(), targets[:kept].double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    centred = x - x_mean
    gram, cross = centred.T @ centred, centred.T @ (y - y_mean)  # (d_in, d_in), (d_in, d_out)
    rest_x, rest_y = inputs[kept:].double(), targets[kept:].double()
    baseline = _explained(y_mean.expand_as(rest_y), rest_y)
    for ridge in ridges:
        # A floor keeps constant inputs solvable: their map is then zero and the bias does all the work.
        penalty = ridge * float(gram.diagonal().mean()) + torch.finfo(torch.float64).tiny
        penalised = gram.clone()
        penalised.diagonal().add_(penalty)
        weight = torch.linalg.solve(penalised, cross)
        bias = y_mean - x_mean @ weight
        explained = _explained(rest_x @ weight + bias, rest_y)
        yield AffineLens(weight.float(), bias.float(), ridge, kept, n - kept, explained, baseline)


def _explained(found: Float[Tensor, "n d"], wanted: Float[Tensor, "n d"]) -> float:
    """Share of the variance around the wanted rows' own mean; nan where there is none."""
    spread = float((wanted - wanted.mean(0)).square().sum()) if len(wanted) else 0.0
    return 1.0 - float((found - wanted).square().sum()) / spread if spread > 0 else float("nan")


@dataclass(frozen=True)
class Residuals:
    """Residual vectors at the positions of a text, in its order: `final` is before the final norm."""

    tokens: Int[Tensor, " n"]
    final: Float[Tensor, "n d_model"]


def token_windows(tokens: list[int], length: int, count: int) -> Int[Tensor, "window length"]:
    """The first `count` windows of `length` tokens of a text, one after another.

    Raises ValueError when the text is too short for one window; a short text gives fewer than `count`.
    """
    whole = min(count, len(tokens) // length)
    if whole < 1:
        raise ValueError(f"text of {len(tokens)} tokens: expected at least one window of {length}; use a longer text")
    return torch.tensor(tokens[: whole * length], dtype=torch.long).reshape(whole, length)


@torch.inference_mode()
def collect_residuals(
    network: Any, windows: Int[Tensor, "window length"], *, skip: int = 1, device: str = "cpu"
) -> Residuals:
    """Run a transformers model over windows of a text and keep what its final norm reads.

    The first `skip` positions of each window are left out: most models park an outlier there that would dominate a
    squared error. fp32 on the CPU. Logits are not formed: with a vocabulary of 262,144 they would cost as much as all
    the layers.
    """
    body, seen = network.base_model, list[Tensor]()
    last = body.get_submodule(names_of(network.config.to_dict()).final_norm)
    hook = last.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, skip:].float().cpu()))
    try:
        for part in windows.split(WINDOWS_PER_PASS):
            body(part.to(device), use_cache=False)
    finally:
        hook.remove()
    return Residuals(windows[:, skip:].flatten(), torch.cat(seen).flatten(0, 1))


def static_inputs(weights: CircuitWeights, tokens: Int[Tensor, " n"], path: str = "mlp0") -> Float[Tensor, "n d_model"]:
    """The circuit's input for each token of a text: MLP_0(W_E) for `mlp0`. Each distinct id is computed once."""
    distinct, places = torch.unique(tokens, return_inverse=True)
    return next(islice(head_inputs(weights, distinct, path), 1))[places]


def fit_text_lens(
    weights: CircuitWeights, residuals: Residuals, *, path: str = "mlp0", ridges: Sequence[float] = RIDGES
) -> AffineLens:
    """The lens for one static path: from each token's input to the final residual at its positions in the text.

    Of several ridges the one that explains most on the held-out positions is taken: how much a text of this length
    can carry is not known beforehand, and successor scores play no part in the choice.
    """
    inputs = static_inputs(weights, residuals.tokens, path)
    return max(fit_affine_lenses(inputs, residuals.final, ridges=ridges), key=_explains)


def _explains(lens: AffineLens) -> float:
    return lens.r_squared


def answers_lens(weights: CircuitWeights, dataset: SuccessionDataset, *, path: str = "mlp0") -> AffineLens:
    """A lens fitted on the answers: from each token's input straight to a vector that unembeds to its successor.

    The control for SH-08: a score found with a lens means little if the lens cannot score at all. Fitted on the
    dataset's own pairs with next to no ridge and nothing held out. Raises ValueError with fewer than two pairs.
    """
    pairs, columns = dataset.pairs, dataset.columns
    groups = columns.group[pairs.column]
    following = [dataset.groups[group].candidates[place] for group, place in zip(groups, pairs.target, strict=True)]
    unembed = weights.unembed(torch.tensor(following, dtype=torch.long)).T  # (pair, d_model)
    wanted = unembed - unembed.mean(0)
    scale = weights.final_norm.weight
    if scale is not None:
        wanted = wanted / torch.where(scale.abs() > 1e-3, scale, torch.ones_like(scale))
    inputs = static_inputs(weights, torch.from_numpy(pairs.token), path)
    return fit_affine_lens(inputs, wanted, ridge=1e-9, held_out=0.0)


def headless_scores(
    weights: CircuitWeights,
    dataset: SuccessionDataset,
    *,
    generator: np.random.Generator,
    lens: Callable[[Tensor], Tensor] | None = None,
    path: str = "mlp0",
    exclude_self: bool = False,
    bootstrap_draws: int = 2000,
) -> SuccessorScores:
    """Successor score of W_U norm(lens(x)), x the circuit's input without any head (SH-08); one row, as one head.

    `lens` None is the plain readout W_U norm(MLP_0(W_E)). Raises ValueError for `residual`, which has no single x.
    """
    if path == "residual":
        raise ValueError("readout without a head: expected a path that does not depend on the layer, found 'residual'")
    candidates = torch.unique(torch.tensor([token for group in dataset.groups for token in group.candidates]))
    inputs = torch.unique(torch.tensor([token for group in dataset.groups for token in group.inputs]))
    resid = static_inputs(weights, inputs, path)  # (input, d_model)
    resid = weights.final_norm(resid if lens is None else lens(resid))
    table = resid @ weights.unembed(candidates)  # (input, candidate)
    logits = [
        table[torch.searchsorted(inputs, torch.tensor(group.inputs))][
            None, :, torch.searchsorted(candidates, torch.tensor(group.candidates))
        ]  # (1, n, c)
        for group in dataset.groups
    ]
    return score_heads(
        find_winners([logits], dataset),
        dataset,
        generator=generator,
        exclude_self=exclude_self,
        bootstrap_draws=bootstrap_draws,
    )
