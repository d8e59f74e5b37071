"""The effective-OV sweep: every head of a model scored at once, with intervals, copy scores and nulls beside them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from circuit_claims.api import LEVEL
from circuit_claims.heads.ov_circuit import group_logits
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.dataset import SuccessionDataset
from circuit_claims.papers.successor_heads.succession.nulls import BAND_LEVEL, NullOfBestHead, shuffled_null
from circuit_claims.papers.successor_heads.succession.score import (
    METRICS,
    SuccessorScores,
    Winners,
    find_winners,
    score_heads,
    usable_pairs,
)


@dataclass(frozen=True)
class SweepResult:
    """All heads of one model under one setting.

    `winners` are what the logits came down to: `judge_winners` turns them into scores under another rule at no cost.
    `norms` and `biases` say whether the model's own were applied; the dataset knows its wraps and its comparison sets.
    The null of `shuffles` shuffled maps is drawn when it is first asked for.
    """

    path: str
    norms: bool
    biases: bool
    seed: int
    dataset: SuccessionDataset
    winners: Winners
    scores: SuccessorScores
    shuffles: int

    @cached_property
    def null(self) -> NullOfBestHead:
        """Scores of all heads under shuffled successor maps."""
        return self._null_of(self.winners)

    def null_of(self, row: int) -> NullOfBestHead:
        """The same shuffles for one head alone: what `null` has in its column, at that head's cost."""
        rows = (part[[row]] for part in (self.winners.heads, self.winners.winner, self.winners.winner_but_self))
        return self._null_of(Winners(*rows))

    def _null_of(self, winners: Winners) -> NullOfBestHead:
        generator, excluded = _generators(self.seed)[1], self.scores.exclude_self
        return shuffled_null(winners, self.dataset, generator=generator, shuffles=self.shuffles, exclude_self=excluded)

    def head_map(self, metric: str = "macro_score") -> np.ndarray:
        """A metric (`score`, `macro_score` or `copy_score`) as a table, shape (layer, head); nan where none is."""
        layers, heads = self.scores.heads.T
        table = np.full((int(layers.max()) + 1, int(heads.max()) + 1), np.nan)
        table[layers, heads] = getattr(self.scores, metric)
        return table

    def to_json(self, model: str) -> dict[str, Any]:
        """What `claims sweep --json` writes, heads sorted by `macro_score`.

        `interval` is the 90 % bootstrap interval of `macro_score`; `null` also states the settings of the sweep.
        """
        intervals = self.scores.intervals("macro_score")
        rows = self.scores.ranking("macro_score")
        return {
            "model": model,
            "path": self.path,
            "exclude_self": self.scores.exclude_self,
            "heads": [self._head(int(row), intervals[row]) for row in rows],
            "null": {
                "shuffles": self.null.shuffles,
                "level": BAND_LEVEL,
                **{metric: self._null(metric) for metric in METRICS},
                "settings": self.settings(),
            },
        }

    def settings(self) -> dict[str, Any]:
        """The choices behind the figures, as JSON values."""
        return {
            "pairs": self.scores.pair_count,
            "entries": len(self.dataset.entries),
            "wraps": self.dataset.wraps,
            "mixed_forms": self.dataset.mixed_forms,
            "norms": self.norms,
            "biases": self.biases,
            "interval_of": "macro_score",
            "interval_level": LEVEL,
            "bootstrap_draws": len(self.scores.resamples.counts),
            "seed": self.seed,
            "task_pairs": dict(zip(self.scores.task_names, self.scores.task_pairs.tolist(), strict=True)),
            "not_applicable": [task.name for task in self.dataset.not_applicable],
        }

    def _head(self, row: int, interval: np.ndarray) -> dict[str, Any]:
        scores = self.scores
        tasks = zip(scores.task_names, scores.task_scores[row].tolist(), strict=True)
        return {
            "layer": int(scores.heads[row, 0]),
            "head": int(scores.heads[row, 1]),
            "score": float(scores.score[row]),
            "macro_score": float(scores.macro_score[row]),
            "interval": [float(end) for end in interval],
            "copy_score": float(scores.copy_score[row]),
            "tasks": {task: share for task, share in tasks if not np.isnan(share)},
        }

    def _null(self, metric: Any) -> dict[str, Any]:
        return {
            "best": self.null.observed[metric],
            "band": list(self.null.band(metric)),
            "p_value": self.null.p_value(metric),
        }


def sweep_heads(
    weights: CircuitWeights,
    dataset: SuccessionDataset,
    *,
    path: str = "mlp0",
    exclude_self: bool = False,
    norms: bool = True,
    biases: bool = True,
    bos: int | None = None,
    bootstrap_draws: int = 2000,
    shuffles: int = 1000,
    seed: int = 0,
) -> SweepResult:
    """Score every head of a model from its weights alone (Gould et al. 2024, section 2; SH-04 to SH-09).

    Wraps and comparison sets are the dataset's (see `succession`). `bos` is put before the token on the `residual`
    path. Raises ValueError for an unknown path, for ids outside the vocabulary and for a dataset without a pair.
    """
    usable_pairs(dataset, exclude_self)  # refuses a dataset without any before the weights are read
    layers = group_logits(weights, dataset.groups, path, norms=norms, biases=biases, bos=bos)
    return judge_winners(
        find_winners(layers, dataset),
        dataset,
        path=path,
        exclude_self=exclude_self,
        norms=norms,
        biases=biases,
        bootstrap_draws=bootstrap_draws,
        shuffles=shuffles,
        seed=seed,
    )


def judge_winners(
    winners: Winners,
    dataset: SuccessionDataset,
    *,
    path: str,
    exclude_self: bool = False,
    norms: bool = True,
    biases: bool = True,
    bootstrap_draws: int = 2000,
    shuffles: int = 1000,
    seed: int = 0,
) -> SweepResult:
    """A sweep's result from winners already found: the other rule about the token itself costs no second pass.

    `dataset` may differ from the one the winners were found with in its wraps only. `path`, `norms` and `biases` are
    passed on to the result.
    """
    for_bootstrap, _ = _generators(seed)
    scores = score_heads(
        winners, dataset, generator=for_bootstrap, exclude_self=exclude_self, bootstrap_draws=bootstrap_draws
    )
    return SweepResult(path, norms, biases, seed, dataset, winners, scores, shuffles)


def _generators(seed: int) -> list[np.random.Generator]:
    """One for the bootstrap, one for the null."""
    return np.random.default_rng(seed).spawn(2)
