"""Refined local learning coefficients of a torch module: a slice of its weights, a loss, some data."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from circuit_claims.errors import ClaimsError, InputError
from circuit_claims.llc.estimate import Gate, LLCEstimate
from circuit_claims.llc.losses import DivergenceFrom, Loss, NextToken, loss_of_knowing_nothing, named_loss
from circuit_claims.llc.module_potential import ModulePotential, held_still
from circuit_claims.llc.sample import estimate
from circuit_claims.llc.sgld import Potential, SGLDSettings
from circuit_claims.llc.slices import Weights, WeightSlice, digest, weight_slice
from circuit_claims.toy.model import AttentionOnly
from circuit_claims.toy.potentials.head import HeadPotential
from circuit_claims.toy.potentials.prefix import AttentionPrefix


class WeightsChanged(ClaimsError, RuntimeError):
    """The caller's weights are not what they were before sampling."""


@dataclass(frozen=True)
class Speed:
    """How to run, never what is computed: which path, what is kept, how many rows at a time.

    `prefix` shares one cache between the heads of a layer, `cache_bytes` bounds a new one, `micro_batch` rows at a time
    bound the memory of the plain path. `readout_dtype` bfloat16 speeds the products with the vocabulary up; its error
    is measured and stated in the estimate's facts.
    """

    path: Literal["auto", "plain", "cached"] = "auto"
    prefix: AttentionPrefix | None = None
    cache_bytes: int = 2 << 30
    readout_dtype: torch.dtype = torch.float32
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        if self.path not in ("auto", "plain", "cached"):
            raise InputError(f"path: expected 'auto', 'plain' or 'cached', found {self.path!r}")


def refined_llc(
    model: nn.Module,
    data: Tensor | tuple[Tensor, ...],
    *,
    weights: Weights = "all",
    loss: str | Loss = "next token",
    biases: bool = True,
    speed: Speed = Speed(),
    ceiling: float | None = None,
    trace_probes: int = 0,
    gate: Gate | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> LLCEstimate:
    """The (weight- and data-) refined local learning coefficient of `model` at its own weights.

    `data` are rows (token sequences for the built-in losses, or a tuple of tensors of one length), `weights` the slice
    that is sampled (see `weight_slice`), `loss` "next token", `DivergenceFrom(reference)`, or any function of
    (forward, batch) that returns one number a row. `settings` are those of `SGLDSettings`, `batch_size` counting rows.
    Heads of the attention-only model take the exact cached path. Raises ValueError for what does not fit,
    `WeightsChanged` if the model was altered meanwhile; it runs in evaluation mode and is returned as it was.
    """
    where, chosen = weight_slice(model, weights, biases=biases), named_loss(loss)
    before = digest(model)
    on_cpu = next(model.parameters()).device.type == "cpu"
    run = SGLDSettings(**{"chains_per_call": 1 if on_cpu else None, "threads": torch.get_num_threads(), **settings})
    with held_still(model):
        potential = make_potential(model, data, where, chosen, speed)
        top = loss_of_knowing_nothing(chosen, model, data) if ceiling is None else ceiling
        facts = _facts(potential, where, chosen, biases, speed, run)
        found = estimate(
            potential, run, ceiling=top, trace_probes=trace_probes, gate=gate, progress=progress, facts=facts
        )
    if digest(model) != before:
        raise WeightsChanged(
            "the model's weights changed while it was sampled\n  expected the digest from before sampling\n"
            "  found    another one: something else wrote to the model. Pass a copy: copy.deepcopy(model)"
        )
    return found


def head_of(where: WeightSlice) -> tuple[int, int] | None:
    """Layer and head that a slice's label names, None for other slices."""
    match = re.fullmatch(r"(\d+):(\d+)", where.label.strip())
    return (int(match[1]), int(match[2])) if match else None


def make_potential(
    model: nn.Module, data: Tensor | tuple[Tensor, ...], where: WeightSlice, loss: Loss, speed: Speed
) -> Potential:
    """The fastest exact potential that `speed` allows. Raises ValueError for a path or prefix that does not fit."""
    head, prefix = head_of(where), speed.prefix
    able = isinstance(model, AttentionOnly) and head is not None and isinstance(loss, (NextToken, DivergenceFrom))
    if speed.path == "cached" and not able:
        raise InputError(
            "path 'cached': expected a head ('1:6') of the attention-only model with a built-in loss, found "
            f"{where.label!r} of {type(model).__name__}. Use path='auto'"
        )
    if speed.path == "plain" or not able:
        return ModulePotential(model, data, where, loss, speed.micro_batch)
    if prefix is None:
        prefix = AttentionPrefix(model, data, head[0], loss, cache_bytes=speed.cache_bytes, dtype=speed.readout_dtype)
    elif (prefix.model is not model) or prefix.layer != head[0] or prefix.data is not data:
        raise InputError(f"prefix: expected one of this model, this data and layer {head[0]}, found another")
    return HeadPotential(prefix, where, head[1])


def _facts(
    potential: Potential, where: WeightSlice, loss: Loss, biases: bool, speed: Speed, run: SGLDSettings
) -> dict[str, Any]:
    cached = isinstance(potential, HeadPotential)
    low = cached and potential.prefix.readout.coarse is not None
    return {
        "weights": where.label,
        "biases": biases,
        "loss_name": getattr(loss, "name", getattr(loss, "__name__", type(loss).__name__)),
        "path": "cached" if cached else "plain",
        "readout_dtype": str(speed.readout_dtype).removeprefix("torch."),
        **(_low_precision_error(potential, run) if low else {}),
    }


def _low_precision_error(potential: HeadPotential, run: SGLDSettings) -> dict[str, float]:
    """Loss and relative gradient error of the low-precision readout, a typical step away from w*, on one batch."""
    prefix = potential.prefix
    exact = AttentionPrefix(prefix.model, prefix.data, prefix.layer, prefix.loss, cache_bytes=0)
    twin = HeadPotential(exact, potential.where, potential.head)
    noise = torch.randn(potential.w_star.shape, generator=torch.Generator().manual_seed(run.seed))
    point = (potential.w_star + (run.eps * 10) ** 0.5 * noise.to(potential.w_star.device))[None]
    rows = torch.arange(min(run.batch_size or prefix.num_rows, prefix.num_rows))[None]
    low, low_grad = potential.value_and_grad(point, rows)
    high, high_grad = twin.value_and_grad(point, rows)
    return {
        "low_precision_loss_error": float((low - high).abs()),
        "low_precision_gradient_error": float((low_grad - high_grad).norm() / high_grad.norm()),
    }
