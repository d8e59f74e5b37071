"""A local learning coefficient with its uncertainty, its chains, and whether to believe it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from circuit_claims.judging.measurement import Cost, Interval, Measurement
from circuit_claims.llc.diagnostics import FEWEST_DRAWS, ChainDiagnostics, diagnose
from circuit_claims.llc.gate import Gate, GateDecision, Surroundings, decide
from circuit_claims.llc.sgld import SGLDSettings, Traces


@dataclass(frozen=True)
class LLCEstimate:
    """lambda = n_beta (E[L(w)] - L(w*)), paired on each draw's batch, over the sound chains only.

    `mcse` is the Monte Carlo standard error of `mean`, `interval` a Student interval with the effective sample size.
    `per_chain` is NaN for a chain that diverged. `status` and `reasons` say whether to believe it.
    """

    mean: float
    mcse: float
    interval: Interval | None
    per_chain: Float[np.ndarray, " chain"]
    traces: Traces
    settings: SGLDSettings
    diagnostics: ChainDiagnostics
    surroundings: Surroundings
    status: GateDecision
    reasons: tuple[str, ...]
    cost: Cost = field(default_factory=Cost)

    @property
    def mean_loss(self) -> float:
        """Mean sampled loss of the sound chains, to be held against ln V."""
        loss = self.traces.loss[self.traces.sound]
        return float(loss.mean()) if loss.size else math.nan

    @property
    def mean_displacement(self) -> float:
        """Mean distance `|w - w*|` of the sound chains, to be held against the length `|w*|`."""
        moved = self.traces.displacement[self.traces.sound]
        return float(moved.mean()) if moved.size else math.nan

    @property
    def acceptance(self) -> float:
        """Mean Metropolis acceptance of the steps that were checked; NaN if none was."""
        checked = self.traces.acceptance[np.isfinite(self.traces.acceptance)]
        return float(checked.mean()) if checked.size else math.nan

    @property
    def small_curvature_limit(self) -> float | None:
        """n_beta / (2 gamma) times the Hessian trace: what the estimate tends to where gamma dominates."""
        trace, s = self.surroundings.hessian_trace, self.settings
        return None if trace is None or s.gamma == 0 else s.n_beta / (2 * s.gamma) * trace

    def facts(self) -> dict[str, Any]:
        """Everything but the draws, as JSON values (None where a number does not exist)."""
        around = {
            name: getattr(self.surroundings, name) for name in Surroundings.__dataclass_fields__ if name != "facts"
        }
        start = self.traces.start_loss[self.traces.sound]
        raw = {
            "gate": self.status,
            "reasons": list(self.reasons),
            "mcse": self.mcse,
            "mean_loss": self.mean_loss,
            "start_loss": float(start.mean()) if start.size else math.nan,
            "mean_displacement": self.mean_displacement,
            "acceptance": self.acceptance,
            "small_curvature_limit": self.small_curvature_limit,
            "diverged_chains": int((self.traces.diverged_at >= 0).sum()),
            "settings": asdict(self.settings),
            "diagnostics": asdict(self.diagnostics),
            **around,
            **self.surroundings.facts,
        }
        return _finite(raw)

    def to_measurement(self, quantity: str = "local learning coefficient") -> Measurement:
        """The estimate as a `Measurement`; `outside the neighbourhood` counts as partial, its reason in the facts."""
        status = self.status if self.status in ("complete", "diverged") else "partial"
        return Measurement(
            quantity=quantity,
            value=self.mean if math.isfinite(self.mean) else None,
            interval=self.interval,
            unit="n beta x nats",
            n=int(self.traces.sound.sum()) * self.settings.num_draws,
            seed=self.settings.seed,
            batch=self.settings.batch_size,
            status=status,
            arrays={"loss": self.traces.loss, "start_loss": self.traces.start_loss, "per_chain": self.per_chain,
                    "displacement": self.traces.displacement, "acceptance": self.traces.acceptance},
            facts=self.facts(),
            cost=self.cost,
        )  # fmt: skip

    def to_inference_data(self) -> Any:
        """ArviZ's `InferenceData`: `llc` and `loss` as posterior variables, the rest as sample statistics."""
        import arviz

        n_beta = self.settings.n_beta
        return arviz.from_dict(
            posterior={"llc": n_beta * (self.traces.loss - self.traces.start_loss), "loss": self.traces.loss},
            sample_stats={"start_loss": self.traces.start_loss, "displacement": self.traces.displacement},
            attrs={"gate": self.status, "n_beta": n_beta, "gamma": self.settings.gamma, "eps": self.settings.eps},
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value


def summarise(
    traces: Traces,
    settings: SGLDSettings,
    surroundings: Surroundings,
    gate: Gate | None = None,
    cost: Cost | None = None,
) -> LLCEstimate:
    """Traces to an estimate: sound chains averaged, the rest counted and reported."""
    gate = gate or Gate()
    draws = settings.n_beta * (traces.loss - traces.start_loss)
    sound = traces.sound
    per_chain = np.where(sound, np.where(sound[:, None], draws, 0.0).mean(1), np.nan)
    kept = draws[sound]
    mean = float(kept.mean()) if kept.size else math.nan
    diagnostics = diagnose(kept)
    mcse = _error(kept, diagnostics)
    interval = _interval(mean, mcse, diagnostics.ess_bulk, gate.level)
    status, reasons = decide(traces, settings, surroundings, diagnostics, interval, gate)
    return LLCEstimate(
        mean=mean,
        mcse=mcse,
        interval=interval,
        per_chain=per_chain,
        traces=traces,
        settings=settings,
        diagnostics=diagnostics,
        surroundings=surroundings,
        status=status,
        reasons=reasons,
        cost=cost or Cost(),
    )


def _error(kept: Float[np.ndarray, "chain draw"], diagnostics: ChainDiagnostics) -> float:
    """NaN where it is not known: a handful of draws that happen to be equal are not known exactly."""
    enough = kept.size > 0 and kept.shape[1] >= FEWEST_DRAWS
    return 0.0 if enough and np.ptp(kept) == 0 else diagnostics.mcse


def _interval(mean: float, mcse: float, ess: float, level: float) -> Interval | None:
    if not (math.isfinite(mean) and math.isfinite(mcse)):
        return None
    freedom = max(1.0, ess - 1) if math.isfinite(ess) else math.inf
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * mcse
    return Interval(mean - half, mean + half, level, "Student, MCSE over chains and draws")
