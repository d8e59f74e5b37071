"""From a potential to an estimate: chains, the n_beta = 0 control, the Hessian trace, the gate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.judging.measurement import Cost
from circuit_claims.llc.estimate import LLCEstimate, summarise
from circuit_claims.llc.gate import Gate, Surroundings
from circuit_claims.llc.sgld import (
    CONTROL,
    PROBES,
    CallablePotential,
    Potential,
    SGLDSettings,
    generator,
    reflect,
    rows_of,
    run_chains,
)


def sample_llc(
    loss: Callable[..., Float[Tensor, " chain"]],
    w0: Float[Tensor, " d"],
    *,
    data: Tensor | None = None,
    ceiling: float | None = None,
    trace_probes: int = 0,
    gate: Gate | None = None,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> LLCEstimate:
    """The local learning coefficient of a batched potential at `w0`, by SGLD (Wang et al. 2025, section 3).

    `loss(w)` maps chains x d to one loss a chain; with `data`, `loss(w, batch)` gets a batch of rows for each chain.
    `settings` are those of `SGLDSettings`: n_beta, gamma, eps, num_chains, num_draws, num_burnin_steps, thin, seed,
    batch_size, rmsprop, box, ... Chains run in the dtype of `w0`. Raises ValueError for settings out of range.

    >>> curvature = torch.tensor([1.0, 4.0])
    >>> found = sample_llc(lambda w: (curvature * w**2).sum(-1) / 2, torch.zeros(2),
    ...                    n_beta=100.0, gamma=1.0, eps=1e-3, num_chains=16, num_draws=2000, num_burnin_steps=100)
    >>> 0.9 < found.mean < 1.1
    True
    """
    potential = CallablePotential(loss, w0, data)
    return estimate(
        potential, SGLDSettings(**settings), ceiling=ceiling, trace_probes=trace_probes, gate=gate, progress=progress
    )


def estimate(
    potential: Potential,
    settings: SGLDSettings,
    *,
    ceiling: float | None = None,
    trace_probes: int = 0,
    gate: Gate | None = None,
    progress: Callable[[int, int], None] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> LLCEstimate:
    """Run the chains of `settings` on a potential and summarise them, with the control and, if asked, the trace."""
    began = time.perf_counter()
    traces = run_chains(potential, settings, progress=progress)
    control, distance = prior_control(potential, settings)
    trace, error = hessian_trace(potential, settings, trace_probes) if trace_probes else (None, None)
    start = potential.start()
    around = Surroundings(
        size=start.numel(),
        start_norm=float(start.norm()),
        ceiling=ceiling,
        control_llc=control,
        control_displacement=distance,
        hessian_trace=trace,
        hessian_error=error,
        facts=facts or {},
    )
    cost = Cost(seconds=time.perf_counter() - began)
    return summarise(traces, settings, around, gate, cost)


def _control_rows(potential: Potential, settings: SGLDSettings, count: int, purpose: int) -> list[Tensor | None]:
    if potential.num_rows is None:
        return [None] * count
    source = rows_of(settings.seed, [2**20 + purpose], potential.num_rows, settings.batch_size or potential.num_rows)
    return [next(source) for _ in range(count)]


def prior_control(potential: Potential, settings: SGLDSettings) -> tuple[float, float]:
    """n_beta times the mean excess loss, and the mean |w - w*|, of weights that never saw the loss (n_beta = 0).

    With n_beta = 0 a chain is Gaussian at every step, with variance eps (1 - a^(2k)) / (1 - a^2), a = 1 - eps gamma/2,
    so `control_draws` independent weights at steps spread over the draws replace a chain. NaN where none is asked for.
    """
    if settings.control_draws == 0:
        return math.nan, math.nan
    start = potential.start()
    source = generator(settings.seed, 0, CONTROL, start.device)
    eps = settings.eps / (settings.rmsprop.eps if settings.rmsprop else 1.0)
    decay = (1 - eps * settings.gamma / 2) ** 2
    first, last = settings.num_burnin_steps, settings.num_steps
    middles = (np.arange(settings.control_draws) + 0.5) / settings.control_draws
    excess, distance = [], []
    steps = first + middles * (last - first)
    for step, rows in zip(steps, _control_rows(potential, settings, len(steps), CONTROL), strict=True):
        variance = eps * (step if abs(1 - decay) < 1e-12 else (1 - decay**step) / (1 - decay))
        offset = math.sqrt(variance) * torch.randn(
            start.shape, generator=source, dtype=start.dtype, device=start.device
        )
        if settings.box is not None:
            offset = reflect(offset, settings.box)
        gap = potential.value((start + offset)[None], rows) - potential.value_at_start(1, rows)
        excess.append(float(gap[0]))
        distance.append(float(offset.norm()))
    return settings.n_beta * float(np.mean(excess)), float(np.mean(distance))


def hessian_trace(
    potential: Potential, settings: SGLDSettings, probes: int, reach: float | None = None
) -> tuple[float, float]:
    """Trace of the Hessian of the loss at w*, over the sampled slice, with its standard error over probes.

    Hutchinson: the mean of v^T H v over random signs v, H v by central differences of the gradient, `reach` long in
    each coordinate (1 % of the root mean square of w*, or 1e-3 at w* = 0, unless given).
    """
    start = potential.start()
    source = generator(settings.seed, 0, PROBES, start.device)
    step = reach or max(1e-2 * float(start.norm()) / math.sqrt(start.numel()), 1e-3)
    found = []
    for rows in _control_rows(potential, settings, probes, PROBES):
        signs = torch.randint(0, 2, start.shape, generator=source, device=start.device).to(start.dtype) * 2 - 1
        both = torch.stack([start + step * signs, start - step * signs])
        each = None if rows is None else rows.expand(2, -1)
        _, grad = potential.value_and_grad(both, each)
        found.append(float(((grad[0] - grad[1]) @ signs) / (2 * step)))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(probes)) if probes > 1 else math.nan
