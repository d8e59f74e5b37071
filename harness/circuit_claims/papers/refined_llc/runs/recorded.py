"""The authors' published numbers of their training run, read from one JSON file and never shipped with the project.

The file gathers what the public repository timaeus-research/icl publishes under `analysis/language` (as CSV files and
pickles): measurements of the two- and the one-layer model at 501 checkpoints. Labels run 0, 100, ..., 50,000; **label s
is the state after update s + 1**, the one exception being `L2_train_loss_mean100`, which is not read here. Keys read:
`steps` (label,), `L2_test_loss` (label,), `L1_per_token_loss` {"-1": (label,)}, `L2_prev_scores` and
`L2_prefix_scores` (label, layer, head), `L2_kcomp` {"writer->reader": (label,)}, `L2_norm` (label,),
`L2_pos_row_norms_step0` (pos,), and `L1_`/`L2_llc_mean` and `_std` {label: value}, which may lack the last labels.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import Context
from circuit_claims.models.errors import DamagedWeights
from circuit_claims.papers.refined_llc.runs.how_to_give import GIVE_RECORDED
from circuit_claims.papers.refined_llc.runs.training_run import RunCurves, RunNotAvailable, Score

NAME = "recorded-run"
ENVIRONMENT = "CIRCUIT_CLAIMS_RECORDED"
FILE = "two_layer_attention_only_501_checkpoints.json"
LARGEST = 64 << 20
HEADS = (2, 8)
POSITIONS = 1024
SCORES: Mapping[Score, str] = {"previous": "L2_prev_scores", "prefix": "L2_prefix_scores"}
# The one type that no recorded number shows: a current-token head, named by the authors.
CURRENT_TOKEN = ("0:5",)
PREVIOUS_FROM, PREFIX_FROM = 0.1, 0.02
NEIGHBOURS = 10


class RecordedDataError(DamagedWeights):
    """The file is not what the authors' numbers look like: expected, found, and what to do."""


@dataclass(frozen=True)
class RecordedArray:
    """One recorded quantity: `labels` (label,) as the authors count, `values` (label, ...).

    >>> RecordedArray(np.array([0, 100]), np.array([7.9, 5.1])).updates.tolist()
    [1, 101]
    """

    labels: Int[np.ndarray, " label"]
    values: Float[np.ndarray, "label ..."]

    @property
    def updates(self) -> Int[np.ndarray, " label"]:
        """How many updates the weights have had at each label: label s is the state after update s + 1."""
        return self.labels + 1


def find_recorded(given: Path | None) -> Path:
    """The recorded file: `given` or the folder or file that CIRCUIT_CLAIMS_RECORDED names.

    Raises `RunNotAvailable` where neither is given, and `RecordedDataError` where there is no such file.
    """
    place = given or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if place is None:
        reason = (
            "the authors' recorded numbers are not at hand: they publish them as CSV files and pickles "
            "(github.com/timaeus-research/icl, analysis/language), nowhere as the one JSON file that is read here"
        )
        raise RunNotAvailable(NAME, reason, GIVE_RECORDED)
    candidates = [place / FILE, *sorted(place.glob("*.json"))] if place.is_dir() else [place]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise RecordedDataError(
            f"no recorded numbers\n  expected {FILE} in {place}\n  found    none\n  Type: {GIVE_RECORDED}"
        )
    return found


@dataclass(frozen=True)
class RecordedData:
    """The file's arrays, each parsed and checked when it is first asked for. Raises `RecordedDataError`.

    With `content` that is read in place of the file, and `path` is only what it is called.
    """

    path: Path
    content: bytes | None = field(default=None, repr=False)

    @cached_property
    def digest(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(self._bytes).hexdigest()

    @cached_property
    def _bytes(self) -> bytes:
        if self.content is not None:
            return self.content
        try:
            if (size := self.path.stat().st_size) > LARGEST:
                raise self._error("", f"a file of at most {LARGEST:,} bytes", f"{size:,} bytes")
            return self.path.read_bytes()
        except OSError as error:
            raise self._error("", "a file that can be read", str(error)) from None

    @cached_property
    def _table(self) -> dict[str, Any]:
        try:
            table = json.loads(self._bytes)
        except (ValueError, RecursionError) as error:
            raise self._error("", "JSON", str(error)[:200]) from None
        if not isinstance(table, dict) or "steps" not in table:
            found = (
                f"keys {', '.join(sorted(map(str, table))[:5])}" if isinstance(table, dict) else type(table).__name__
            )
            raise self._error("", "an object with the key 'steps'", found)
        return table

    @cached_property
    def labels(self) -> Int[np.ndarray, " label"]:
        """The checkpoints' labels, rising."""
        numbers = self._numbers("steps", self._table["steps"], ndim=1)
        if (np.diff(numbers) <= 0).any() or (numbers < 0).any() or (numbers != np.round(numbers)).any():
            raise self._error("steps", "whole numbers from 0 up in rising order", str(numbers[:4]))
        return numbers.astype(np.int64)

    def series(self, *keys: str, shape: tuple[int, ...] = ()) -> RecordedArray:
        """The quantity under `keys` with one entry a label, each of `shape`."""
        value: Any = self._table
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                raise self._error(".".join(keys), "this key", "none")
            value = value[key]
        if isinstance(value, Mapping):
            return self._by_label(".".join(keys), value)
        return RecordedArray(
            self.labels, self._numbers(".".join(keys), value, ndim=1 + len(shape), shape=(len(self.labels), *shape))
        )

    def _by_label(self, key: str, table: Mapping[str, Any]) -> RecordedArray:
        try:
            labels = np.array([int(label) for label in table], dtype=np.int64)
        except ValueError:
            raise self._error(key, "labels that are whole numbers", str(list(table)[:3])) from None
        if not len(labels) or (np.diff(labels) <= 0).any() or not np.isin(labels, self.labels).all():
            raise self._error(key, "labels among 'steps', rising", f"{len(labels)} labels, {labels[:3]} ...")
        return RecordedArray(labels, self._numbers(key, list(table.values()), ndim=1))

    def vector(self, key: str, length: int) -> Float[np.ndarray, " n"]:
        """A recorded vector that has no label of its own."""
        return self._numbers(key, self._table.get(key), ndim=1, shape=(length,))

    def _numbers(self, key: str, value: Any, *, ndim: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
        expected = f"numbers of shape {shape}" if shape else f"numbers along {ndim} axis"
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise self._error(key, expected, f"{type(value).__name__} that is not an array of numbers") from None
        if array.ndim != ndim or (shape is not None and array.shape != shape) or not array.size:
            raise self._error(key, expected, f"shape {array.shape}")
        if not np.isfinite(array).all():
            raise self._error(key, "finite numbers", f"{int((~np.isfinite(array)).sum())} that are not")
        return array

    def _error(self, key: str, expected: str, found: str) -> RecordedDataError:
        where = f"{self.path}: {key}" if key else str(self.path)
        return RecordedDataError(
            f"{where} is not the authors' recorded numbers\n  expected {expected}\n  found    {found}\n"
            f"  The file was damaged or is another one. Type: {GIVE_RECORDED}"
        )


@dataclass(frozen=True)
class RecordedRun:
    """The published run as its authors recorded it: a `TrainingRun` for reanalysis."""

    data: RecordedData
    context: Context
    name: str = NAME
    kind: Literal["recorded"] = field(default="recorded", init=False)

    @property
    def steps(self) -> tuple[int, ...]:
        """The labels; label s is the state after update s + 1."""
        return tuple(self.data.labels.tolist())

    def identity(self) -> dict[str, Any]:
        """The digest of the file."""
        return {"recorded": self.data.digest}

    def check_untouched(self) -> None:
        """Raise `RecordedDataError` if the file has changed since it was read."""
        if self.data.content is None and RecordedData(self.data.path).digest != self.data.digest:
            raise RecordedDataError(
                f"{self.data.path} changed while the claims ran\n  Run again: nothing is concluded."
            )

    def card(self) -> dict[str, Any]:
        """Where the numbers come from and what they cover."""
        labels = self.data.labels
        return {
            "title": "The authors' published numbers of their training run",
            "licence": "none stated: read and cited, not redistributed",
            "source": "github.com/timaeus-research/icl, analysis/language, gathered in one JSON file",
            "digest": self.data.digest,
            "checkpoints": len(labels),
            "labels": f"{labels[0]:,} to {labels[-1]:,}; label s is the state after update s + 1",
        }

    def head_types(self) -> dict[str, str]:
        """Types by the recorded scores at the last label; the current-token head as the authors name it."""
        previous, prefix = (self.data.series(SCORES[score], shape=HEADS).values[-1] for score in ("previous", "prefix"))
        types = {}
        for layer, head in np.ndindex(*HEADS):
            name = f"{layer}:{head}"
            leads = previous[layer, head] >= PREVIOUS_FROM if layer == 0 else prefix[layer, head] >= PREFIX_FROM
            named = "previous-token" if layer == 0 else "induction"
            types[name] = named if leads else "current-token" if name in CURRENT_TOKEN else "multigram"
        return types

    def head_scores(self, score: Score) -> RunCurves:
        """A recorded score of the 16 heads, values (step, layer, head)."""
        return as_curves(self.data.series(SCORES[score], shape=HEADS))

    def k_composition(self) -> RunCurves:
        """Recorded K-composition, values (step, writer, reader)."""
        pairs = [self.data.series("L2_kcomp", f"{a}->{b}") for a in range(HEADS[1]) for b in range(HEADS[1])]
        values = np.stack([pair.values for pair in pairs], axis=1).reshape(-1, HEADS[1], HEADS[1])
        return as_curves(RecordedArray(pairs[0].labels, values))

    def llc_curve(self, n_layers: int = 2) -> RunCurves:
        """The recorded LLC as it was published: the mean over chains of the first-generation estimator."""
        return as_curves(self.data.series(f"L{n_layers}_llc_mean"))

    def llc_spread(self, n_layers: int = 2) -> RunCurves:
        """The recorded standard deviation of the LLC over chains."""
        return as_curves(self.data.series(f"L{n_layers}_llc_std"))

    def loss_curve(self, n_layers: int = 2) -> RunCurves:
        """The recorded mean test loss in nats; of the one-layer model it is the entry -1 of its losses by position."""
        keys = ("L2_test_loss",) if n_layers == 2 else (f"L{n_layers}_per_token_loss", "-1")
        return as_curves(self.data.series(*keys))

    def position_norms(self) -> tuple[Float[np.ndarray, " pos"], float]:
        """Row norms of W_pos and the norm of all weights at label 0, which is one update after initialisation."""
        total = float(self.data.series("L2_norm").values[0])
        return self.data.vector("L2_pos_row_norms_step0", POSITIONS), total


def as_curves(array: RecordedArray) -> RunCurves:
    """A recorded quantity with the noise of single checkpoints as its uncertainty."""
    noise = checkpoint_noise(array.values)

    def draw(generator: np.random.Generator) -> np.ndarray:
        return array.values + noise * generator.standard_normal(array.values.shape)

    method = "noise of single recorded checkpoints, from third differences of neighbours"
    return RunCurves(array.labels, array.values, draw, method, len(array.labels))


def checkpoint_noise(values: Float[np.ndarray, "label ..."]) -> Float[np.ndarray, "label ..."]:
    """Standard deviation of the noise at each checkpoint, from its `NEIGHBOURS` on both sides.

    A third difference of white noise has variance 20 times the noise's, and a smooth curve adds next to nothing. The
    median over neighbours keeps a few steep places from passing as noise. Fewer than four checkpoints: NaN.
    """
    bends = np.abs(np.diff(values, n=3, axis=0))
    if not len(bends):
        return np.full(values.shape, math.nan)
    rows = []
    for label in range(len(values)):
        centre = min(max(label - 1, 0), len(bends) - 1)
        rows.append(np.median(bends[max(centre - NEIGHBOURS, 0) : centre + NEIGHBOURS + 1], axis=0))
    return np.stack(rows) / (0.6744897501960817 * math.sqrt(20.0))


def run_of_file(given: Path | None, context: Context) -> RecordedRun:
    """The recorded run for the claims of one session. Raises as `find_recorded` does."""
    return RecordedRun(RecordedData(find_recorded(given)), context)
