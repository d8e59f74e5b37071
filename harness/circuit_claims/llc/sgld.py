"""Stochastic gradient Langevin dynamics around w*: the chains behind every learning coefficient.

One step is dw = -(eps/2) G (n_beta grad L_batch + gamma (w - w*)) + sqrt(eps G) N(0, 1), with G = 1 (SGLD, Wang et al.
2025, section 3) or the running RMSProp preconditioner. A draw is read before the step that follows it, on the batch of
that step, and the loss of w* on the same batch is kept beside it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.errors import InputError

NOISE, ROWS, CONTROL, PROBES = range(4)
RUNAWAY = 100.0


@dataclass(frozen=True)
class RMSProp:
    """Preconditioner G = 1 / (sqrt(V) + eps), V the running mean of squared batch gradients with decay `alpha`."""

    alpha: float = 0.99
    eps: float = 0.1


@dataclass(frozen=True)
class SGLDSettings:
    """Everything that decides a run. The defaults for chains and draws are the paper's; temperatures have none.

    `box` reflects every coordinate at w* +- box. `mala_every` checks the Metropolis acceptance of the last of every so
    many steps (0: never; the first step, from the mode itself, is no sample of it) at the cost of one more gradient.
    `chains_per_call` chains share a call of the loss, and `threads` such calls run at once where the potential is
    thread-safe (matters of speed alone). `max_seconds` stops early, which the estimate reports as partial.
    """

    n_beta: float
    gamma: float
    eps: float
    num_chains: int = 4
    num_draws: int = 200
    num_burnin_steps: int = 0
    thin: int = 1
    seed: int = 0
    batch_size: int | None = None
    shared_batches: bool = False
    rmsprop: RMSProp | None = None
    box: float | None = None
    mala_every: int = 25
    chains_per_call: int | None = None
    threads: int = 1
    control_draws: int = 8
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        low = {"n_beta": 0, "gamma": 0, "num_burnin_steps": 0, "mala_every": 0, "control_draws": 0, "seed": 0}
        for name, least in {**low, "num_chains": 1, "num_draws": 1, "thin": 1, "threads": 1}.items():
            if not getattr(self, name) >= least:
                raise InputError(f"{name} of SGLD: expected at least {least}, found {getattr(self, name)}")
        if not (math.isfinite(self.eps) and self.eps > 0):
            raise InputError(f"eps of SGLD: expected a step size above 0, found {self.eps}\n  Type: --eps 0.001")
        if not (math.isfinite(self.n_beta) and math.isfinite(self.gamma)):
            raise InputError(f"n_beta and gamma of SGLD: expected finite numbers, found {self.n_beta}, {self.gamma}")

    @property
    def num_steps(self) -> int:
        """Steps up to the last draw, burn-in included."""
        return self.num_burnin_steps + (self.num_draws - 1) * self.thin + 1


class Potential(Protocol):
    """A loss over d numbers, for several chains at once; `rows` are the data rows of each chain's batch."""

    @property
    def num_rows(self) -> int | None:
        """Rows of data, None where the loss needs none."""
        ...

    def start(self) -> Float[Tensor, " d"]:
        """w*, where the chains begin and to which gamma pulls."""
        ...

    def value_and_grad(
        self, w: Float[Tensor, "chain d"], rows: Int[Tensor, "chain batch"] | None
    ) -> tuple[Float[Tensor, " chain"], Float[Tensor, "chain d"]]:
        """Mean loss over the batch, in nats, and its gradient."""
        ...

    def value(self, w: Float[Tensor, "chain d"], rows: Int[Tensor, "chain batch"] | None) -> Float[Tensor, " chain"]:
        """Mean loss over the batch."""
        ...

    def value_at_start(self, chains: int, rows: Int[Tensor, "chain batch"] | None) -> Float[Tensor, " chain"]:
        """Mean loss of w* over the batch."""
        ...


@dataclass(frozen=True)
class CallablePotential:
    """A batched function as a potential: `loss(w)` or, with `data`, `loss(w, batch)`, chains x d to chains.

    With `data`, `batch` is chains x batch x (the rest of a row).
    """

    loss: Callable[..., Float[Tensor, " chain"]]
    w0: Float[Tensor, " d"]
    data: Tensor | None = None

    @property
    def num_rows(self) -> int | None:
        """Rows of data, None where the loss needs none."""
        return None if self.data is None else len(self.data)

    def start(self) -> Float[Tensor, " d"]:
        """A copy of `w0`."""
        return self.w0.detach().clone()

    def _losses(self, w: Tensor, rows: Tensor | None) -> Float[Tensor, " chain"]:
        losses = self.loss(w) if self.data is None else self.loss(w, self.data[rows])
        if losses.shape != w.shape[:1]:
            raise InputError(
                f"loss of sample_llc: expected one number a chain, shape ({len(w)},), found {tuple(losses.shape)}. "
                "Reduce over every axis but the first"
            )
        return losses

    def value_and_grad(self, w: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """By automatic differentiation of the sum over chains."""
        w = w.detach().requires_grad_()
        with torch.enable_grad():
            losses = self._losses(w, rows)
            (grad,) = torch.autograd.grad(losses.sum(), w)
        return losses.detach(), grad

    @torch.no_grad()
    def value(self, w: Tensor, rows: Tensor | None) -> Tensor:
        """The loss alone."""
        return self._losses(w, rows)

    def value_at_start(self, chains: int, rows: Tensor | None) -> Tensor:
        """The loss of w* on each chain's batch."""
        return self.value(self.w0.detach().expand(chains, -1), rows)


@dataclass(frozen=True)
class Traces:
    """What the chains left behind: NaN where a chain diverged or was stopped before.

    `loss` and `start_loss` are chain x draw, on the same batch; `displacement` is |w - w*|; `acceptance` is chain x
    check; `diverged_at` the step at which a chain left every bound, -1 for a sound one.
    """

    loss: Float[np.ndarray, "chain draw"]
    start_loss: Float[np.ndarray, "chain draw"]
    displacement: Float[np.ndarray, "chain draw"]
    acceptance: Float[np.ndarray, "chain check"]
    diverged_at: Int[np.ndarray, " chain"]

    @property
    def sound(self) -> np.ndarray:
        """Which chains neither diverged nor were stopped before their last draw."""
        return (self.diverged_at < 0) & np.isfinite(self.loss).all(1) & np.isfinite(self.start_loss).all(1)


def generator(seed: int, chain: int, purpose: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator of one chain for one purpose: the same whatever the number of chains."""
    state = np.random.SeedSequence([seed, chain, purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state) >> 1)


def noise_of(seed: int, chains: Sequence[int], start: Tensor) -> Iterator[Float[Tensor, "chain d"]]:
    """Standard normal vectors like `start`, one a chain, drawn in blocks whose size depends on d alone."""
    sources = [generator(seed, chain, NOISE, start.device) for chain in chains]
    shape = (max(1, 8192 // start.numel()), *start.shape)
    while True:
        blocks = [torch.randn(shape, generator=each, dtype=start.dtype, device=start.device) for each in sources]
        yield from torch.stack(blocks, dim=1)


def rows_of(seed: int, chains: Sequence[int], num_rows: int, batch_size: int) -> Iterator[Int[Tensor, "chain batch"]]:
    """Row numbers of each chain's batches: distinct within a batch, independent from step to step."""
    if not 1 <= batch_size <= num_rows:
        raise InputError(f"batch_size: expected 1 to {num_rows} (the rows of data), found {batch_size}")
    sources = [generator(seed, chain, ROWS) for chain in chains]
    shape = (max(1, 8192 // num_rows), num_rows)
    while True:
        if batch_size == num_rows:
            yield torch.arange(num_rows).expand(len(sources), -1)
            continue
        blocks = [torch.rand(shape, generator=each).topk(batch_size).indices for each in sources]
        yield from torch.stack(blocks, dim=1)


@dataclass
class _Chunk:
    """The moving state of the chains that share a call."""

    chains: Sequence[int]
    start: Tensor
    settings: SGLDSettings
    num_rows: int | None
    w: Tensor = field(init=False)
    square: Tensor = field(init=False)
    alive: Tensor = field(init=False)

    def __post_init__(self) -> None:
        s = self.settings
        self.w = self.start.expand(len(self.chains), -1).clone()
        self.square = torch.zeros_like(self.w)
        self.alive = torch.ones(len(self.chains), dtype=torch.bool, device=self.w.device)
        self._noise = noise_of(s.seed, self.chains, self.start)
        self._rows = None
        if self.num_rows is not None:
            sharers = [0] * len(self.chains) if s.shared_batches else self.chains
            self._rows = rows_of(s.seed, sharers, self.num_rows, s.batch_size or self.num_rows)

    def rows(self) -> Tensor | None:
        """The next batch of each chain."""
        return None if self._rows is None else next(self._rows)

    def metric(self, grad: Tensor) -> Tensor | float:
        """G after this gradient was seen."""
        rmsprop = self.settings.rmsprop
        if rmsprop is None:
            return 1.0
        self.square.mul_(rmsprop.alpha).addcmul_(grad, grad, value=1 - rmsprop.alpha)
        return 1 / (self.square.sqrt() + rmsprop.eps)

    def drift(self, w: Tensor, grad: Tensor) -> Tensor:
        """n_beta grad L + gamma (w - w*)."""
        return self.settings.n_beta * grad + self.settings.gamma * (w - self.start)

    def propose(self, grad: Tensor, metric: Tensor | float) -> Tensor:
        """One Langevin step of every chain; a dead chain stays at w*."""
        s = self.settings
        spread = (s.eps * metric) ** 0.5
        moved = self.w - s.eps / 2 * metric * self.drift(self.w, grad) + spread * next(self._noise)
        if s.box is not None:
            moved = self.start + reflect(moved - self.start, s.box)
        return moved if bool(self.alive.all()) else torch.where(self.alive[:, None], moved, self.start)

    def bury(self, loss: Tensor, grad: Tensor, step: int) -> Tensor:
        """Mark chains that are not finite, or a hundred times farther than free noise would have carried them."""
        s = self.settings
        free = math.sqrt(self.start.numel() * s.eps * (step + 1) / (s.rmsprop.eps if s.rmsprop else 1.0))
        far = (self.w - self.start).norm(dim=1) > RUNAWAY * free
        broken = self.alive & (far | ~loss.isfinite() | ~grad.isfinite().all(1))
        if bool(broken.any()):
            self.alive = self.alive & ~broken
            self.w = torch.where(self.alive[:, None], self.w, self.start)
        return broken


def reflect(offset: Tensor, box: float) -> Tensor:
    """`offset` folded back into [-box, box] at its walls, as often as it takes."""
    phase = (offset + box) % (4 * box)
    return torch.minimum(phase, 4 * box - phase) - box


def acceptance(chunk: _Chunk, moved: Tensor, rows: Tensor | None, first: tuple, potential: Potential) -> Tensor:
    """Metropolis acceptance probability of the step w to `moved` on one batch, G held as it was (MALA)."""
    (loss, grad, metric), s = first, chunk.settings
    after, after_grad = potential.value_and_grad(moved, rows)

    def pull(w: Tensor) -> Tensor:
        return s.gamma / 2 * (w - chunk.start).square().sum(1)

    def proposal(target: Tensor, source: Tensor, source_grad: Tensor) -> Tensor:
        miss = target - source + s.eps / 2 * metric * chunk.drift(source, source_grad)
        return -(miss.square() / (2 * s.eps * metric)).sum(1)

    ratio = s.n_beta * (loss - after) + pull(chunk.w) - pull(moved)
    ratio = ratio + proposal(chunk.w, moved, after_grad) - proposal(moved, chunk.w, grad)
    return ratio.clamp(max=0).exp()


def _blank(settings: SGLDSettings, chains: int) -> Traces:
    draws = (chains, settings.num_draws)
    checks = settings.num_steps // settings.mala_every if settings.mala_every else 0
    loss, start_loss, displacement = (np.full(draws, np.nan) for _ in range(3))
    return Traces(loss, start_loss, displacement, np.full((chains, checks), np.nan), np.full(chains, -1))


def _run_chunk(potential: Potential, settings: SGLDSettings, chains: Sequence[int], tick: Callable[[], bool]) -> Traces:
    chunk = _Chunk(chains, potential.start(), settings, potential.num_rows)
    traces = _blank(settings, len(chains))
    for step in range(settings.num_steps):
        rows = chunk.rows()
        loss, grad = potential.value_and_grad(chunk.w, rows)
        broken = chunk.bury(loss, grad, step)
        if broken.any():
            traces.diverged_at[broken.cpu().numpy()] = step
            grad = torch.where(chunk.alive[:, None], grad, 0.0)
        draw, between = divmod(step - settings.num_burnin_steps, settings.thin)
        alive = chunk.alive.cpu().numpy()
        if draw >= 0 and between == 0:
            traces.loss[alive, draw] = loss.double().cpu().numpy()[alive]
            traces.start_loss[:, draw] = potential.value_at_start(len(chains), rows).double().cpu().numpy()
            traces.displacement[alive, draw] = (chunk.w - chunk.start).norm(dim=1).double().cpu().numpy()[alive]
        if not alive.any() or not tick():
            break
        metric = chunk.metric(grad)
        moved = chunk.propose(grad, metric)
        if settings.mala_every and (step + 1) % settings.mala_every == 0:
            chance = acceptance(chunk, moved, rows, (loss, grad, metric), potential).double().cpu().numpy()
            traces.acceptance[alive, step // settings.mala_every] = chance[alive]
        chunk.w = moved
    return traces


def run_chains(
    potential: Potential,
    settings: SGLDSettings,
    *,
    chains: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Traces:
    """Run `chains` (all of them by default) from w*, `chains_per_call` at a time, `threads` calls at once.

    `progress(done, total)` counts steps of single chains. A chain depends on its number and the seed alone.
    """
    numbers = list(range(settings.num_chains)) if chains is None else list(chains)
    size = settings.chains_per_call or len(numbers)
    groups = [numbers[first : first + size] for first in range(0, len(numbers), size)]
    began, done, lock = clock(), 0, threading.Lock()

    def in_time() -> bool:
        return settings.max_seconds is None or clock() - began < settings.max_seconds

    def run(group: Sequence[int]) -> Traces:
        def tick() -> bool:
            nonlocal done
            with lock:
                done += len(group)
                if progress is not None:
                    progress(done, len(numbers) * settings.num_steps)
            return in_time()

        return _run_chunk(potential, settings, group, tick) if in_time() else _blank(settings, len(group))

    together = settings.threads if getattr(potential, "thread_safe", False) else 1
    parts = [run(group) for group in groups] if together == 1 else _in_threads(run, groups, together)
    names = ("loss", "start_loss", "displacement", "acceptance", "diverged_at")
    return Traces(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _in_threads(run: Callable[[Sequence[int]], Traces], groups: Sequence, threads: int) -> list[Traces]:
    """Each call on one thread of torch: chains side by side scale better than threads within small products."""
    before = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(run, groups))
    finally:
        torch.set_num_threads(before)
