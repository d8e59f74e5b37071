"""Measures on the circuit's input: W_E in place of MLP_0(W_E) (SH-09), and the path without any head (SH-08)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Finding, Interval, Measurement, measure
from circuit_claims.judging.statistics import LEVEL, or_binomial
from circuit_claims.papers.successor_heads.amounts import amounts_of
from circuit_claims.papers.successor_heads.succession.measures import Settings, dataset_of, sweeps_of, weights_of

if TYPE_CHECKING:
    from circuit_claims.papers.successor_heads.succession.score import SuccessorScores

WINDOW = 256
CONTROL_DRAWS = 5


@measure
def best_by_path(
    subject: Any, *, first: str, second: str, settings: dict[str, Any], draws: int, shuffles: int
) -> Measurement:
    """The best head's score on two input paths, in the same bootstrap draws, and in which order they came.

    The head is chosen anew for each path and each draw: one head chosen on the first path would favour that path.
    """
    chosen = Settings(**settings)
    sweeps = [result.scores for result in sweeps_of(subject, chosen, (first, second), draws, shuffles)]
    best = [scores.draws["score"].max(axis=1) for scores in sweeps]
    support = {
        f"{first} > {second}": float(np.mean(best[0] > best[1])),
        f"{second} > {first}": float(np.mean(best[1] > best[0])),
    }
    values = [float(scores.score.max()) for scores in sweeps]
    order = f"{first} > {second}" if values[0] > values[1] else f"{second} > {first}"
    leader = int(sweeps[0].ranking("score")[0])
    facts = {
        "values": dict(zip((first, second), values, strict=True)),
        "leader": sweeps[0].name(leader),
        "leader values": {first: values[0], second: float(sweeps[1].score[leader])},
    }
    n = sweeps[0].pair_count
    return Measurement("order of the best head's scores", order, support=support, n=n, seed=chosen.seed, facts=facts)


@dataclass(frozen=True)
class InputPaths:
    """The best head's score by input path, two at a time."""

    subject: Any

    def order_of(self, first: str, second: str) -> Finding:
        """Which of two paths gives the best head the higher score (SH-09)."""
        controls: dict[str, Callable[[], Measurement]] = {
            "shuffled successor map": lambda: self._pooled(first, second, order="shuffled"),
            "untrained weights": lambda: self._pooled(first, second, weights="untrained"),
        }
        return Finding(self.measured(first, second), controls)

    def _pooled(self, first: str, second: str, **changes: str) -> Measurement:
        """A control's support averaged over several random draws: one draw alone has an order by luck, often."""
        drawn = [self.measured(first, second, seed=seed, **changes) for seed in range(CONTROL_DRAWS)]
        orders = (f"{first} > {second}", f"{second} > {first}")
        support = {order: float(np.mean([one.support[order] for one in drawn])) for order in orders}
        value = max(support, key=lambda order: support[order])
        return drawn[0].derive(f"{drawn[0].quantity}, {CONTROL_DRAWS} draws", value, support=support)

    def measured(self, first: str, second: str, **changes: Any) -> Measurement:
        profile, settings = self.subject.context.profile, Settings(**changes).parameters()
        amounts = {"draws": profile.bootstrap_draws, "shuffles": profile.shuffles}
        return best_by_path(self.subject, first=first, second=second, settings=settings, **amounts)


def input_paths(subject: Any) -> InputPaths:
    """The input paths of a subject, to be compared."""
    return InputPaths(subject)


@measure
def headless_scores_table(subject: Any, *, text: str, text_digest: str, tokens: int, draws: int) -> Measurement:
    """Scores of the path without a head by three readouts: plain, an affine lens fitted on text, one on the answers.

    `text_digest` and `tokens` are part of what is measured: which text, and how much of it the lens was fitted on.
    """
    from circuit_claims.models.bridge import load_plain
    from circuit_claims.papers.successor_heads.succession import lens
    from circuit_claims.texts import standard_text

    weights, dataset = weights_of(subject, Settings()), dataset_of(subject.tokens, Settings())
    windows = lens.token_windows(subject.tokens.encode(standard_text(text)), WINDOW, tokens // WINDOW)
    if subject.tokens.bos_id is not None:
        windows = _behind(subject.tokens.bos_id, windows)
    network = load_plain(subject.model, subject.context.device)
    found = lens.collect_residuals(network, windows, device=subject.context.device)
    del network
    fitted = lens.fit_text_lens(weights, found)
    readouts = {"plain": None, "affine": fitted, "answers": lens.answers_lens(weights, dataset)}
    scores = {
        name: lens.headless_scores(
            weights, dataset, generator=np.random.default_rng(0), lens=readout, bootstrap_draws=draws
        )
        for name, readout in readouts.items()
    }
    facts = {
        "readouts": {name: _row(score) for name, score in scores.items()},
        "r_squared": fitted.r_squared,
        "baseline": fitted.baseline,
        "fitted": fitted.fitted,
        "held_out": fitted.held_out,
        "ridge": fitted.ridge,
        "text_digest": text_digest,
        "chance": float(np.average(1 / (dataset.pairs.rivals + 2), weights=dataset.pairs.weight)),
    }
    n = scores["plain"].pair_count
    # A lens that explains nothing on text it was not fitted on reads nothing out either.
    status = "complete" if fitted.r_squared > 0 else "partial"
    return Measurement("scores of the path without a head", None, n=n, seed=0, status=status, facts=facts)


def _behind(bos: int, windows: Any) -> Any:
    """Each window with the beginning-of-sequence token in front, its last token dropped."""
    import torch

    return torch.cat([torch.full((len(windows), 1), bos), windows[:, :-1]], dim=1)


def _row(scores: SuccessorScores) -> dict[str, Any]:
    low, high = (float(end) for end in scores.intervals("score")[0])
    macro = float(scores.macro_score[0])
    passed, pairs = int(scores.hits[0].sum()), int(scores.hits.shape[1])
    return {"score": float(scores.score[0]), "low": low, "high": high, "macro": macro, "passed": passed, "pairs": pairs}


@dataclass(frozen=True)
class Headless:
    """The path W_U MLP_0(W_E) of one subject, read out without any head."""

    subject: Any
    table: Measurement

    def affine(self) -> Finding:
        """The score through the affine lens fitted on text (SH-08); the control is a lens fitted on the answers."""
        return Finding(self._score("affine"), {"lens fitted on the answers": lambda: self._score("answers")})

    def _score(self, readout: str) -> Measurement:
        row = self.table.facts["readouts"][readout]
        # The bootstrap of a share of zero has no width: the exact binomial interval over distinct pairs is the wider.
        ends = or_binomial((row["low"], row["high"]), row["passed"], row["pairs"])
        interval = Interval(*ends, LEVEL, f"exact binomial, {row['pairs']} pairs")
        facts = {key: self.table.facts[key] for key in ("r_squared", "baseline", "fitted")}
        return self.table.derive(f"score by the {readout} lens", row["score"], interval=interval, facts=facts)


def headless_score(subject: Any, *, text: str) -> Headless:
    """The path without the head, its lens fitted on one of the standard texts."""
    from circuit_claims.texts import text_digest

    context = subject.context
    amounts = {"tokens": amounts_of(context).lens_tokens, "draws": context.profile.bootstrap_draws}
    return Headless(subject, headless_scores_table(subject, text=text, text_digest=text_digest(text), **amounts))
