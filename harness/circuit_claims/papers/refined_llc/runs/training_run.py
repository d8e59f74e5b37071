"""What the paper's claims are asked of: a training run, recorded or live, behind one set of questions.

`recorded.RecordedRun` answers from the authors' published numbers, a live run (this project's own, or the authors'
published checkpoints) by measuring its weights. Claim tests and measures see `TrainingRun` only, so that one test body
reads the same in every scope. `Rearranged` makes negative controls of any run: its labels say what is not so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import Context
from circuit_claims.models.errors import ModelNotAvailable

RunKind = Literal["recorded", "own", "published"]
Score = Literal["previous", "prefix"]
Shuffle = Literal["steps", "heads"]
CurveDraw = Callable[[np.random.Generator], Float[np.ndarray, "step ..."]]


class RunNotAvailable(ModelNotAvailable):
    """A run, or one quantity of it, that cannot be had here: `reason` in one line, `command` would bring it."""

    def __init__(self, name: str, reason: str, command: str = "") -> None:
        self.name, self.tried, self.command = name, (), command
        Exception.__init__(self, reason + (f"\n  Type: {command}" if command else ""))


@dataclass(frozen=True)
class RunCurves:
    """A quantity at every checkpoint, with a way to draw it anew under its own uncertainty.

    `steps` (step,) are the run's labels in rising order, `values` (step, ...) the quantity, further axes such as
    (layer, head). `draw(generator)` gives an array like `values` as another measurement might have found it: from other
    sequences where the quantity is an average over some, with its noise from checkpoint to checkpoint where it is
    recorded. `method` says which, in words, `drawn` how many were drawn anew: sequences, or checkpoints.
    """

    steps: Int[np.ndarray, " step"]
    values: Float[np.ndarray, "step ..."]
    draw: CurveDraw
    method: str
    drawn: int = 0

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values) or (np.diff(self.steps) <= 0).any():
            raise ValueError(
                f"curves over training: expected one row of values for each of the steps, in rising order, found "
                f"{len(self.values)} rows and {len(self.steps)} steps"
            )

    def at(self, step: int) -> int:
        """The row of the checkpoint nearest to `step`."""
        return int(np.abs(self.steps - step).argmin())


class TrainingRun(Protocol):
    """A run of the two-layer model: its checkpoints' quantities as `RunCurves`. Heads are named "1:6".

    Every quantity raises `RunNotAvailable` where this run has no way to it.
    """

    @property
    def name(self) -> str:
        """The name of its row in the registry of runs."""
        ...

    @property
    def kind(self) -> RunKind:
        """Whose run it is, and how it is here."""
        ...

    @property
    def context(self) -> Context:
        """Store, profile and device of its measurements."""
        ...

    @property
    def steps(self) -> tuple[int, ...]:
        """The labels of the checkpoints in rising order."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """What a stored measurement is kept under: digests of the recorded file or of weights and tokenizer."""
        ...

    def card(self) -> dict[str, Any]:
        """What a reader should know of the run."""
        ...

    def check_untouched(self) -> None:
        """Raise `DamagedWeights` if the files are no longer those that were opened."""
        ...

    def head_types(self) -> Mapping[str, str]:
        """The type of every head at the end of training, by its name: previous-token, current-token, induction, ..."""
        ...

    def head_scores(self, score: Score) -> RunCurves:
        """Previous-token or prefix-matching score, values (step, layer, head)."""
        ...

    def k_composition(self) -> RunCurves:
        """K-composition of each head of layer 0 with each of layer 1, values (step, writer, reader)."""
        ...

    def llc_curve(self, n_layers: int = 2) -> RunCurves:
        """The whole model's LLC, values (step,), for the two- or the one-layer model."""
        ...

    def llc_spread(self, n_layers: int = 2) -> RunCurves:
        """The LLC's standard deviation over chains, values (step,)."""
        ...

    def loss_curve(self, n_layers: int = 2) -> RunCurves:
        """Mean loss on held-out text in nats, values (step,)."""
        ...

    def position_norms(self) -> tuple[Float[np.ndarray, " pos"], float]:
        """Norms of the rows of W_pos at the first checkpoint, and the norm of all weights there."""
        ...


@dataclass(frozen=True)
class Rearranged:
    """A run under wrong labels, for negative controls: what it says of a step or a head is true of another.

    `shuffle` "steps" gives every checkpoint the step of another, "heads" every head the name of another head of its
    layer: a new order in each draw, so that a claim that rests on the labels comes out by chance and not by one lucky
    order. `frozen` makes every checkpoint the first one: training that never happened.
    """

    run: TrainingRun
    shuffle: Shuffle | None = None
    frozen: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def kind(self) -> RunKind:
        return self.run.kind

    @property
    def context(self) -> Context:
        return self.run.context

    @property
    def steps(self) -> tuple[int, ...]:
        return self.run.steps

    def identity(self) -> dict[str, Any]:
        """The run's own, and how its labels were moved."""
        return {**self.run.identity(), "shuffle": self.shuffle, "frozen": self.frozen, "order": self.seed}

    def head_types(self) -> Mapping[str, str]:
        return self.run.head_types()

    def head_scores(self, score: Score) -> RunCurves:
        return self._moved(self.run.head_scores(score), head_axes=(2,))

    def k_composition(self) -> RunCurves:
        return self._moved(self.run.k_composition(), head_axes=(1, 2))

    def llc_curve(self, n_layers: int = 2) -> RunCurves:
        return self._moved(self.run.llc_curve(n_layers), head_axes=())

    def llc_spread(self, n_layers: int = 2) -> RunCurves:
        return self._moved(self.run.llc_spread(n_layers), head_axes=())

    def loss_curve(self, n_layers: int = 2) -> RunCurves:
        """The run's own, in its own order: what is compared with it stands under wrong labels."""
        return self.run.loss_curve(n_layers)

    def _moved(self, curves: RunCurves, head_axes: tuple[int, ...]) -> RunCurves:
        def move(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            if self.frozen:
                values = np.broadcast_to(values[:1], values.shape)
            if self.shuffle == "steps":
                return values[generator.permutation(len(values))]
            for axis in head_axes if self.shuffle == "heads" else ():
                values = np.roll(values, _shift(values.shape[axis], generator), axis=axis)
            return values

        first = move(curves.values, np.random.default_rng(self.seed))
        return replace(curves, values=first, draw=lambda generator: move(curves.draw(generator), generator))


def _shift(count: int, generator: np.random.Generator) -> int:
    """How far round the labels move: never to where two heads could trade names, which would leave a pair as it was."""
    shifts = [shift for shift in range(1, count) if 2 * shift != count]
    return int(generator.choice(shifts)) if shifts else 0
