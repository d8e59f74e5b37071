"""A training run whose weights are here, as a subject of claims: scores and composition measured at each checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from circuit_claims.api import CellPlan, Context, Measurement, bootstrap_counts, closure, fill_all
from circuit_claims.heads.composition import composition
from circuit_claims.heads.head_types import (
    OTHER_CURRENT,
    USUAL,
    HeadTypeScores,
    ProbeSequences,
    Thresholds,
    bracket_tokens,
    classify,
    head_type_scores,
)
from circuit_claims.models.errors import DamagedWeights
from circuit_claims.papers.refined_llc.runs.how_to_give import GIVE_RECORDED
from circuit_claims.papers.refined_llc.runs.training_run import RunCurves, RunKind, RunNotAvailable, Score
from circuit_claims.toy.checkpoints import RunFolder
from circuit_claims.toy.model import AttentionOnly

if TYPE_CHECKING:
    from circuit_claims.models.runs import RunRow

BOS = 4999
SEQUENCES = 400


@dataclass(frozen=True)
class LiveRun:
    """Checkpoints on disk behind the questions of `TrainingRun`. Steps count updates, as the files do.

    `texts_dirs` are folders that texts are looked for in first (`--texts`).
    """

    run: RunFolder
    context: Context
    name: str
    kind: RunKind
    title: str = ""
    licence: str = ""
    seed: int = 0
    texts_dirs: tuple[Path, ...] = ()
    thresholds: Thresholds = USUAL
    _scores: dict[int, HeadTypeScores] = field(default_factory=dict, repr=False)

    @property
    def steps(self) -> tuple[int, ...]:
        """The updates after which weights are here."""
        return self.run.steps

    @cached_property
    def _digests(self) -> dict[int, str]:
        return {step: self.run.digest(step) for step in self.steps}

    @cached_property
    def _opened(self) -> dict[Path, tuple[int, int]]:
        return {self.run.path(step): _stamp(self.run.path(step)) for step in self.steps}

    def identity(self) -> dict[str, Any]:
        """One digest over those of all checkpoints."""
        joined = "".join(f"{step}:{digest};" for step, digest in self._digests.items())
        digests = {"checkpoints": hashlib.sha256(joined.encode()).hexdigest()}
        return digests if self.thresholds == USUAL else {**digests, "thresholds": asdict(self.thresholds)}

    def card(self) -> dict[str, Any]:
        """The run card, with what tells this run from others first."""
        about = {"title": self.title, "licence": self.licence, "source": self.run.folder.name}
        kept = {key: value for key, value in self.run.card.items() if key not in ("digests", "tokenizer")}
        digest = self.identity()["checkpoints"]
        return {**about, "digest": digest, "checkpoints": ", ".join(f"{step:,}" for step in self.steps), **kept}

    def check_untouched(self) -> None:
        """Raise `DamagedWeights` if a checkpoint's file is no longer the one that was there at first."""
        for path, stamp in self._opened.items():
            if not path.exists() or _stamp(path) != stamp:
                raise DamagedWeights(f"{path} changed while the claims ran\n  Nothing is concluded: run again.")

    def model(self, step: int) -> AttentionOnly:
        """The weights after `step` updates."""
        _ = self._opened
        return self.run.model(step)

    @cached_property
    def probes(self) -> ProbeSequences:
        """Sequences that scores are measured on; bracket tokens where the run's tokenizer is here."""
        if not (self.run.card.get("tokenizer") and self.run.tokenizer_path.exists()):
            return ProbeSequences(bos=BOS, sequences=SEQUENCES)
        vocabulary = json.loads(self.run.tokenizer.definition)["model"]["vocab"]
        spelled = {token.replace("Ġ", " "): index for token, index in vocabulary.items()}
        return ProbeSequences(bos=BOS, brackets=bracket_tokens(spelled), sequences=SEQUENCES)

    def scores_at(self, step: int) -> HeadTypeScores:
        """All head scores after `step` updates, sequence by sequence; the same sequences at every step."""
        if step not in self._scores:
            parts = {
                "measure": "head type scores", **closure(head_type_scores, AttentionOnly).parts(), "seed": self.seed,
                "checkpoint": self._digests[step], "probes": asdict(self.probes),
                "device": self.context.device.partition(":")[0],
            }  # fmt: skip
            plan = CellPlan({step: parts}, lambda _: [self._scored(step)])
            arrays = fill_all(plan, self.context.store, anew=self.context.remeasure)[step].arrays
            self._scores[step] = HeadTypeScores(**{each.name: arrays[each.name] for each in fields(HeadTypeScores)})
        return self._scores[step]

    def _scored(self, step: int) -> Measurement:
        found = head_type_scores(self.model(step), self.probes, torch.Generator().manual_seed(self.seed))
        arrays = {each.name: getattr(found, each.name) for each in fields(found)}
        return Measurement("scores of all heads by which they are typed", None, seed=self.seed, arrays=arrays)

    def head_types(self) -> Mapping[str, str]:
        """Types by the scores at the last checkpoint (`head_types.classify`)."""
        return classify(self.scores_at(self.steps[-1]), self.thresholds)

    def other_types(self) -> dict[str, LiveRun]:
        """This run under other thresholds of head types that were thought of, by a name for a table of settings."""
        return {
            f"current-token heads from {current}": replace(self, thresholds=replace(self.thresholds, current=current))
            for current in OTHER_CURRENT
        }

    def head_scores(self, score: Score) -> RunCurves:
        """A score of every head at each checkpoint, values (step, layer, head).

        The sequences are the same at every checkpoint, so a draw resamples them once for all.
        """
        each = np.stack([getattr(self.scores_at(step), score) for step in self.steps])  # (step, sequence, layer, head)
        count = each.shape[1]

        def draw(generator: np.random.Generator) -> np.ndarray:
            (times,) = bootstrap_counts(count, 1, generator)
            return np.einsum("q,sqlh->slh", times / count, each, optimize=True)

        return RunCurves(np.asarray(self.steps), each.mean(1), draw, f"{SEQUENCES} random sequences, resampled", count)

    def k_composition(self) -> RunCurves:
        """K-composition from the weights, values (step, writer, reader): exact, so every draw is the same."""
        values = np.stack([composition(self.model(step)).numpy() for step in self.steps])
        return RunCurves(np.asarray(self.steps), values, lambda _generator: values, "weights, exact")

    def llc_curve(self, n_layers: int = 2) -> RunCurves:
        """Not measured live: raises `RunNotAvailable`."""
        raise RunNotAvailable(
            self.name,
            f"the {n_layers}-layer model's whole coefficient is not measured live: zeros of its derivative need "
            "hundreds of checkpoints with a sampled coefficient each, and the recorded run has them",
            GIVE_RECORDED,
        )

    def llc_spread(self, n_layers: int = 2) -> RunCurves:
        """Not measured live: raises `RunNotAvailable`."""
        raise RunNotAvailable(
            self.name,
            f"the spread of the {n_layers}-layer model's coefficient over chains comes with the coefficient, which is "
            "not measured live: the recorded run has it",
            GIVE_RECORDED,
        )

    def loss_curve(self, n_layers: int = 2) -> RunCurves:
        """Not measured live: raises `RunNotAvailable`."""
        raise RunNotAvailable(
            self.name,
            f"the {n_layers}-layer model's loss on held-out text is not measured live at its checkpoints: it only "
            "corrects and explains the recorded coefficients, which have it beside them",
            GIVE_RECORDED,
        )

    def position_norms(self) -> tuple[Float[np.ndarray, " pos"], float]:
        """Row norms of W_pos and the norm of all weights at the first checkpoint."""
        model = self.model(self.steps[0])
        rows = model.pos_embed["W_pos"].detach().double().norm(dim=1).numpy()
        total = sum(float(weight.detach().double().square().sum()) for weight in model.parameters()) ** 0.5
        return rows, total


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def open_live(row: RunRow, kind: RunKind, folder: Path, context: Context, texts_dir: Path | None = None) -> LiveRun:
    """A run of the paper's runs.toml whose checkpoints are in `folder`. Raises `RunError` for a damaged folder."""
    texts_dirs = () if texts_dir is None else (texts_dir,)
    return LiveRun(RunFolder.open(folder), context, row.name, kind, row.title, row.licence, texts_dirs=texts_dirs)
