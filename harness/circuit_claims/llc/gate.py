"""Whether to believe an estimate: the worst that holds of its chains, every reason in words, and what to bear in mind.

A reason decides the verdict. A note (no control measured, a mean that cannot be told from 0, chains that went further
than w* is long) follows the reasons and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from circuit_claims.judging.measurement import Interval
from circuit_claims.llc.diagnostics import FEWEST_DRAWS, ChainDiagnostics
from circuit_claims.llc.sgld import SGLDSettings, Traces

GateDecision = Literal["complete", "partial", "outside the neighbourhood", "diverged"]


@dataclass(frozen=True)
class Surroundings:
    """What is known about w* and the loss beside the chains.

    `ceiling` is the loss of knowing nothing (ln V for next tokens), `control_llc` n_beta times the mean excess loss
    of weights drawn with n_beta = 0 at the same steps, `control_displacement` their mean |w - w*|, `hessian_trace` the
    trace over the sampled slice by Hutchinson's probes with its standard error. NaN or None: not measured.
    """

    size: int
    start_norm: float
    ceiling: float | None = None
    control_llc: float = math.nan
    control_displacement: float = math.nan
    hessian_trace: float | None = None
    hessian_error: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))


@dataclass(frozen=True)
class Gate:
    """What an estimate must meet to be called complete."""

    max_r_hat: float = 1.1
    min_ess_per_chain: float = 5.0
    level: float = 0.90


def decide(
    traces: Traces,
    settings: SGLDSettings,
    around: Surroundings,
    found: ChainDiagnostics,
    interval: Interval | None,
    gate: Gate,
) -> tuple[GateDecision, tuple[str, ...]]:
    """The worst thing that holds of the chains, and the sentences for it: reasons first, then notes.

    An estimate is `complete` only where agreement was checked and found: at least two chains that ran to the end, with
    enough draws for R-hat and effective sample size to exist.
    """
    wrong: dict[GateDecision, list[str]] = {
        "diverged": _divergence(traces, settings),
        "outside the neighbourhood": _escape(traces, around),
        "partial": [
            *_unfinished(traces, settings),
            *_unchecked(traces, settings, found, gate),
            *_unfit(traces, around, interval),
        ],
    }
    failed: list[GateDecision] = [name for name, texts in wrong.items() if texts]
    verdict = failed[0] if failed else "complete"
    reasons = [text for texts in wrong.values() for text in texts] or [_agreement(traces, found)]
    return verdict, (*reasons, *_notes(traces, settings, around, interval))


def _agreement(traces: Traces, found: ChainDiagnostics) -> str:
    return (
        f"all {len(traces.loss)} chains ran to the end and agree: R-hat {found.r_hat:.3f}, bulk ESS "
        f"{found.ess_bulk:.0f}"
    )


def _divergence(traces: Traces, settings: SGLDSettings) -> list[str]:
    steps = traces.diverged_at[traces.diverged_at >= 0]
    if not steps.size:
        return []
    left = "and are left out of the mean" if traces.sound.any() else "so there is no estimate"
    return [
        f"{steps.size} of {len(traces.loss)} chains diverged, the first at step {steps.min()}, {left}. "
        f"Try eps below {settings.eps:.3g}: eps (n_beta h + gamma) must stay below 4 for the largest curvature h"
    ]


def _escape(traces: Traces, around: Surroundings) -> list[str]:
    loss, start = traces.loss[traces.sound], traces.start_loss[traces.sound]
    if not loss.size or around.ceiling is None or start.mean() > around.ceiling:
        return []
    means = loss.mean(1)
    beyond = int((means > around.ceiling).sum())
    if not beyond:
        return []
    what = f"mean sampled loss {loss.mean():.3f} lies"
    if loss.mean() <= around.ceiling:
        what = f"mean sampled loss of {beyond} of {len(means)} chains (the highest {means.max():.3f}) lies"
    return [
        f"{what} above {around.ceiling:.3f}, the loss of knowing nothing: the chains have left the neighbourhood of "
        "w*. Try a larger gamma or a smaller n_beta"
    ]


def _unfinished(traces: Traces, settings: SGLDSettings) -> list[str]:
    chains, sound = len(traces.loss), int(traces.sound.sum())
    short = chains - sound - int((traces.diverged_at >= 0).sum())
    if not short:
        return []
    text = f"{short} of {chains} chains were stopped before their {settings.num_draws} draws"
    return [text if sound else f"{text}, and none is whole: there is no estimate. Give them more time"]


def _unchecked(traces: Traces, settings: SGLDSettings, found: ChainDiagnostics, gate: Gate) -> list[str]:
    """What is not known of the sound chains: agreement, independence, error."""
    sound, texts = int(traces.sound.sum()), []
    if not sound:
        return []
    if sound == 1:
        texts.append("one whole chain: whether chains agree cannot be checked. Run 2 chains or more")
    draws, least = traces.loss.shape[1], gate.min_ess_per_chain * sound
    if draws < FEWEST_DRAWS:
        some = f"{draws} draw{'s' * (draws > 1)} a chain"
        need = f"R-hat, effective sample size and error need {FEWEST_DRAWS} or more. Draw more"
        return [*texts, f"{some}: {need}"]
    if settings.n_beta == 0:
        return [*texts, "n_beta is 0: the coefficient is 0 by definition, whatever the loss. Give n_beta above 0"]
    if not np.isfinite(found.ess_bulk):
        return [*texts, _still(traces)]
    if not found.r_hat <= gate.max_r_hat:
        whose = "chains disagree" if sound > 1 else "its halves disagree"
        texts.append(f"{whose}: R-hat {found.r_hat:.3f}, wanted at most {gate.max_r_hat}")
    if found.ess_bulk < least:
        texts.append(f"too few independent draws: bulk ESS {found.ess_bulk:.0f}, wanted {least:.0f}. Draw more")
    return texts


def _still(traces: Traces) -> str:
    moved = traces.displacement[traces.sound].max() > 0
    why = (
        "the sampled weights moved but the loss did not change: they do not enter it on these data"
        if moved
        else "the weights never moved. Try a larger eps"
    )
    return f"every draw has the same loss above w*, so there is nothing to check: {why}"


def _unfit(traces: Traces, around: Surroundings, interval: Interval | None) -> list[str]:
    """What makes w* no place to measure a coefficient at."""
    start, texts = traces.start_loss[traces.sound], []
    if start.size and around.ceiling is not None and start.mean() > around.ceiling:
        texts.append(
            f"w* itself has a loss of {start.mean():.3f}, above {around.ceiling:.3f}, the loss of knowing nothing: "
            "whether chains stay near it cannot be told from their loss"
        )
    if interval is not None and interval.high < 0:
        texts.append(
            f"the estimate is below 0 (its interval ends at {interval.high:.3g}): the loss falls away from w* in these "
            "directions, so w* is no minimum and this is no learning coefficient"
        )
    return texts


def _notes(traces: Traces, settings: SGLDSettings, around: Surroundings, interval: Interval | None) -> list[str]:
    if not traces.sound.any():
        return []
    texts, moved = [], float(traces.displacement[traces.sound].mean())
    if interval is not None and interval.low <= 0 <= interval.high and settings.n_beta > 0:
        texts.append("note: the estimate cannot be told from 0")
    if settings.control_draws == 0:
        texts.append("note: the n_beta = 0 control was not measured (control_draws is 0)")
    elif not np.isfinite(around.control_llc):
        texts.append("note: the n_beta = 0 control gave no finite number")
    elif interval is not None and around.control_llc <= interval.high and settings.n_beta > 0:
        texts.append(
            f"note: weights that never saw the loss (n_beta = 0) give {around.control_llc:.4g}, which the interval "
            "does not lie below: at these settings the loss hardly confined the chains"
        )
    if moved > around.start_norm > 0:
        texts.append(f"note: the chains went {moved / around.start_norm:.2g} times as far from w* as w* is long")
    return texts
