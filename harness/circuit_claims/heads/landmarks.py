"""Landmarks of a training run by its loss and head scores: which checkpoints of it ship, by a rule written before.

A coefficient is never looked at here: what is judged must not choose where it is measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from circuit_claims.heads.head_types import ProbeSequences, head_type_scores
from circuit_claims.keeping.atomic import write_text_atomically
from circuit_claims.toy.checkpoints import RunError, RunFolder
from circuit_claims.toy.recipes import Landmark
from circuit_claims.toy.tokenizer import BOS

HEADS = "heads.csv"
STAYS = 3
SEQUENCES = 1_000  # with 200, the largest of eight heads that do nothing came to 0.022, an induction landmark


@dataclass(frozen=True)
class Scored:
    """One checkpoint: held-out loss in nats; previous-token scores of layer 0 and prefix scores of all later layers.

    Scores are shares of attention, by head as the model has them: layer by layer.
    """

    step: int
    loss: float
    previous: tuple[float, ...]
    prefix: tuple[float, ...]


def scored_run(run: RunFolder, progress: Callable[[str], None] = lambda message: None) -> tuple[Scored, ...]:
    """Loss and head scores of every checkpoint of a run, kept in its `heads.csv` so that none is measured twice."""
    path, losses = run.folder / HEADS, held_out_losses(run)
    known = read_scores(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for step in run.steps:
        if step not in known:
            known[step] = _scores(run, step)
            write_text_atomically(path, scores_text(known))
            progress(
                f"step {step:,}: previous-token {max(known[step][0]):.3f}, prefix {max(known[step][1], default=0):.3f}"
            )
    return tuple(Scored(step, losses[step], *known[step]) for step in run.steps)


def held_out_losses(run: RunFolder) -> dict[int, float]:
    """Held-out loss in nats by step. Raises `RunError` where a checkpoint has none."""
    columns = run.losses()
    found = dict(zip(map(int, columns["step"]), columns["test_loss"], strict=True)) if columns else {}
    if missing := [step for step in run.steps if not found.get(step, float("nan")) >= 0]:
        raise RunError(
            f"run {run.folder}\n  expected  a held-out loss of each checkpoint\n  found     none of {missing[0]}"
        )
    return found


CurvesByHead = dict[int, tuple[tuple[float, ...], tuple[float, ...]]]


def _scores(run: RunFolder, step: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # The same sequences for every checkpoint: a curve must not jump because other sequences were drawn.
    probes = ProbeSequences(bos=BOS, sequences=SEQUENCES)
    means = head_type_scores(run.model(step), probes, torch.Generator().manual_seed(0)).means()
    return tuple(means["previous"][0].tolist()), tuple(means["prefix"][1:].flatten().tolist())


def scores_text(scores: CurvesByHead) -> str:
    """Rows of step, layer 0's previous-token scores and the later layers' prefix scores, as CSV."""
    (previous, prefix), out = next(iter(scores.values())), io.StringIO()
    names = [f"previous_{head}" for head in range(len(previous))] + [f"prefix_{head}" for head in range(len(prefix))]
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["step", *names])
    rows.writerows([step, *(f"{x:.6f}" for x in (*scores[step][0], *scores[step][1]))] for step in sorted(scores))
    return out.getvalue()


def read_scores(text: str) -> CurvesByHead:
    """What `scores_text` wrote, by step."""
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        previous = tuple(float(cell) for name, cell in row.items() if name.startswith("previous_"))
        found[int(row["step"])] = previous, tuple(float(row[name]) for name in row if name.startswith("prefix_"))
    return found


def landmark_steps(curve: Sequence[Scored], rule: Iterable[Landmark]) -> dict[str, int]:
    """The checkpoint of each landmark by name; landmarks that the run has not reached are left out.

    Two landmarks may name one checkpoint. Raises `RunError` for a curve without checkpoints.
    """
    if not curve:
        raise RunError("landmarks: expected a run with checkpoints, found none")
    found: dict[str, int] = {}
    for landmark in rule:
        if landmark.quantity == "after":
            middle = (max(found.values(), default=0) + curve[-1].step) / 2
            found[landmark.name] = min((one.step for one in curve), key=lambda step: abs(step - middle))
        elif (step := _reached(curve, landmark)) is not None:
            found[landmark.name] = step
    return found


def curve_lines(curve: Sequence[Scored], tokens_a_step: int, found: Mapping[str, int]) -> list[str]:
    """A line a checkpoint: tokens, loss, the two leading heads of each kind, and the landmarks that stand there."""
    lines = []
    for one in curve:
        leading = [sorted(scores, reverse=True)[:2] for scores in (one.previous, one.prefix)]
        previous, prefix = (" ".join(f"{score:.3f}" for score in scores) or "none" for scores in leading)
        names = ", ".join(name for name, step in found.items() if step == one.step)
        lines.append(
            f"step {one.step:,}: {one.step * tokens_a_step / 1e6:.1f} million tokens, held-out loss {one.loss:.3f}, "
            f"previous-token {previous}, prefix {prefix}{'; ' + names if names else ''}"
        )
    return lines


def _reached(curve: Sequence[Scored], landmark: Landmark) -> int | None:
    if landmark.quantity in ("first", "last"):
        return curve[0 if landmark.quantity == "first" else -1].step
    values = [_value(one, curve, landmark) for one in curve]
    starts = range(len(curve) - STAYS + 1)
    return next((curve[i].step for i in starts if min(values[i : i + STAYS]) >= landmark.at), None)


def _value(one: Scored, curve: Sequence[Scored], landmark: Landmark) -> float:
    if landmark.quantity == "fall":
        lowest = min(other.loss for other in curve)
        return (curve[0].loss - one.loss) / max(curve[0].loss - lowest, 1e-12)
    scores = sorted(one.previous if landmark.quantity == "previous" else one.prefix, reverse=True)
    return scores[landmark.rank - 1] if landmark.rank <= len(scores) else 0.0
