"""Refined local learning coefficients of a torch module: a slice of its weights, a loss, some data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from circuit_claims.errors import ClaimsError, InputError
from circuit_claims.llc.estimate import LLCEstimate
from circuit_claims.llc.gate import Gate
from circuit_claims.llc.losses import Loss, loss_of_knowing_nothing, named_loss
from circuit_claims.llc.module_potential import ModulePotential, held_still
from circuit_claims.llc.sample import estimate
from circuit_claims.llc.sgld import Potential, SGLDSettings
from circuit_claims.llc.slices import WeightSelection, WeightSlice, digest, weight_slice


class WeightsChanged(ClaimsError, RuntimeError):
    """The caller's weights are not what they were before sampling."""


@runtime_checkable
class CachedPotential(Potential, Protocol):
    """An exact potential that keeps what the sampled weights do not change.

    `prefix` is the part that potentials of the same layer, model and data may share: handed on in `Speed.prefix`.
    """

    prefix: Any

    def precision_error(self, run: SGLDSettings) -> dict[str, float]:
        """Facts on the error of low precision under these settings; empty where the potential is fp32 throughout."""
        ...


@runtime_checkable
class HasFastPotential(Protocol):
    """A model that knows a faster exact way to the losses of some of its slices than running itself.

    The attention-only transformer is one, for its heads and the built-in losses. Same numbers, to rounding, as
    `ModulePotential` gives.
    """

    def fast_potential(
        self,
        data: Any,
        where: WeightSlice,
        loss: Loss,
        *,
        prefix: Any = None,
        cache_bytes: int = 2 << 30,
        readout_dtype: torch.dtype = torch.float32,
    ) -> CachedPotential | None:
        """The potential of a slice, None where there is no faster one. Raises ValueError for a prefix of others."""
        ...


@dataclass(frozen=True)
class Speed:
    """How to run, never what is computed: which path, what is kept, how many rows at a time.

    `prefix` shares one cache between the heads of a layer, `cache_bytes` bounds a new one, `micro_batch` rows at a time
    bound the memory of the plain path. `readout_dtype` bfloat16 speeds the products with the vocabulary up; its error
    is measured and stated in the estimate's facts.
    """

    path: Literal["auto", "plain", "cached"] = "auto"
    prefix: Any = None
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
    weights: WeightSelection = "all",
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
    A model that has a faster exact path (`HasFastPotential`) takes it. Raises ValueError for what does not fit,
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


def make_potential(
    model: nn.Module, data: Tensor | tuple[Tensor, ...], where: WeightSlice, loss: Loss, speed: Speed
) -> Potential:
    """The fastest exact potential that `speed` allows. Raises ValueError for a path or prefix that does not fit."""
    fast = None
    if speed.path != "plain" and isinstance(model, HasFastPotential):
        how = {"prefix": speed.prefix, "cache_bytes": speed.cache_bytes, "readout_dtype": speed.readout_dtype}
        fast = model.fast_potential(data, where, loss, **how)
    if fast is None and speed.path == "cached":
        raise InputError(
            "path 'cached': expected a head ('1:6') of the attention-only model with a built-in loss, found "
            f"{where.label!r} of {type(model).__name__}. Use path='auto'"
        )
    # It has data, so the rows it is given are never None.
    return fast or cast("Potential", ModulePotential(model, data, where, loss, speed.micro_batch))


def _facts(
    potential: Potential, where: WeightSlice, loss: Loss, biases: bool, speed: Speed, run: SGLDSettings
) -> dict[str, Any]:
    cached = isinstance(potential, CachedPotential)
    return {
        "weights": where.label,
        "biases": biases,
        "loss_name": getattr(loss, "name", getattr(loss, "__name__", type(loss).__name__)),
        "path": "cached" if cached else "plain",
        "readout_dtype": str(speed.readout_dtype).removeprefix("torch."),
        **(potential.precision_error(run) if cached else {}),
    }
