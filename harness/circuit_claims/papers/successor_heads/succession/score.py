"""Successor scores of every head at once, with bootstrap intervals over strings (Gould et al. 2024, section 2).

Three steps, each pure: `find_winners` reduces each comparison column of logits to the one candidate on top,
`score_heads` turns winners into scores, and `Resamples` redraws the strings for intervals, orders and identities.
Head arrays run over all heads of the model, layer by layer; pair and column arrays follow `SuccessionDataset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.api import (
    LEVEL,
    InputError,
    expanded_level,
    expansion,
    percentile_band,
    percentiles,
    stratified_counts,
)
from circuit_claims.papers.successor_heads.dataset import SuccessionDataset

Metric = Literal["score", "macro_score"]
METRICS: tuple[Metric, ...] = ("score", "macro_score")
NOBODY = -1
TOGETHER = 1 << 22


@dataclass(frozen=True)
class Winners:
    """The strictly largest candidate of each column, as a place in its comparison set; `NOBODY` where two tie.

    `heads` holds (layer, head) per row, shape (head, 2). `winner` and `winner_but_self` have shape (head, column);
    in the second the input token itself does not take part.
    """

    heads: Int[np.ndarray, "head 2"]
    winner: Int[np.ndarray, "head column"]
    winner_but_self: Int[np.ndarray, "head column"]

    def of(self, exclude_self: bool) -> Int[np.ndarray, "head column"]:
        """The winners under one of the two rules."""
        return self.winner_but_self if exclude_self else self.winner


def find_winners(
    layers: Iterable[Sequence[Float[Tensor, "head _ _"]]],
    dataset: SuccessionDataset,
) -> Winners:
    """Who wins each column, for every head.

    `layers` yields for each layer one tensor of logits per comparison set of the dataset, in the order of
    `dataset.groups`. Raises ValueError for a shape that is not the group's and for logits that are not finite.
    """
    heads, plain, others = list[tuple[int, int]](), list[np.ndarray](), list[np.ndarray]()
    for batch in _batches(layers, dataset):
        found = [_group_winners(torch.cat(logits), i) for i, logits in enumerate(zip(*batch, strict=True))]
        plain.append(np.concatenate([winner for winner, _ in found], axis=1))
        others.append(np.concatenate([winner for _, winner in found], axis=1))
        first = 1 + heads[-1][0] if heads else 0
        heads += [(first + layer, head) for layer, groups in enumerate(batch) for head in range(len(groups[0]))]
    if not heads:
        raise ValueError("no layer of logits was given: expected one list of tensors for each layer of the model")
    return Winners(np.asarray(heads, dtype=np.int64), np.concatenate(plain), np.concatenate(others))


def _batches(
    layers: Iterable[Sequence[Float[Tensor, "head _ _"]]], dataset: SuccessionDataset
) -> Iterator[list[Sequence[Float[Tensor, "head _ _"]]]]:
    """Layers a few at a time, up to `TOGETHER` logits: one operation for many small tables."""
    shapes = [(len(group.inputs), len(group.candidates)) for group in dataset.groups]
    batch, held = list[Sequence[Tensor]](), 0
    for layer, groups in enumerate(layers):
        if len(groups) != len(shapes):
            raise ValueError(f"layer {layer}: expected {len(shapes)} comparison sets, found {len(groups)}")
        for index, (logits, (n, c)) in enumerate(zip(groups, shapes, strict=True)):
            if logits.ndim != 3 or logits.shape[1:] != (n, c):
                found = tuple(logits.shape)
                raise ValueError(f"comparison set {index}: expected logits (head, {n}, {c}), found {found}")
        batch.append(groups)
        held += sum(logits.numel() for logits in groups)
        if held >= TOGETHER:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _group_winners(
    logits: Float[Tensor, "head n c"], group: int
) -> tuple[Int[np.ndarray, "head n"], Int[np.ndarray, "head n"]]:
    n, c = logits.shape[1:]
    # Three values are enough to know the winner and whether it ties, both with and without the token itself.
    value, place = logits.topk(min(3, c), dim=-1)  # (head, n, k)
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"comparison set {group}: expected finite logits, found nan or infinity; check the weights")
    missing = 3 - value.shape[-1]
    value = torch.nn.functional.pad(value, (0, missing), value=-torch.inf)
    place = torch.nn.functional.pad(place, (0, missing), value=NOBODY)
    own = torch.arange(n, device=logits.device)[None, :]  # a group's inputs are its candidates, in the same order
    first, second, third = value.unbind(-1)
    winner = place[..., 0].where(first > second, NOBODY)
    runner = place[..., 1].where(second > third, NOBODY)
    but_self = torch.where(place[..., 1] == own, place[..., 0].where(first > third, NOBODY), winner)
    but_self = torch.where(place[..., 0] == own, runner, but_self)
    return winner.to(torch.int16).cpu().numpy(), but_self.to(torch.int16).cpu().numpy()


def usable_pairs(dataset: SuccessionDataset, exclude_self: bool) -> Bool[np.ndarray, " pair"]:
    """Pairs whose successor has at least one rival: a set of two tokens is no test once the token itself is out.

    Raises ValueError when there is none: the claim is then not applicable to the model.
    """
    used = dataset.pairs.rivals + (not exclude_self) >= 1
    if not used.any():
        raise InputError(
            f"no token of the dataset ({', '.join(dataset.task_names) or 'no task'}) has a single-token successor and "
            "a rival in this vocabulary: expected at least one pair, found none; choose another subject (claims list)"
        )
    return used


def passes(
    winners: Winners, dataset: SuccessionDataset, *, exclude_self: bool = False
) -> Bool[np.ndarray, "head pair"]:
    """Whether the successor strictly beats every other token of its comparison set in the token's column."""
    return winners.of(exclude_self)[:, dataset.pairs.column] == dataset.pairs.target


def copy_scores(winners: Winners, dataset: SuccessionDataset) -> Float[np.ndarray, " head"]:
    """Share of the dataset's entries whose own token is on top of its comparison set (sets of one left out)."""
    columns = dataset.columns
    sizes = np.asarray([len(group.candidates) for group in dataset.groups])
    weight = columns.weight * (sizes[columns.group] > 1)
    return (winners.winner == columns.place) @ weight / max(int(weight.sum()), 1)


@dataclass(frozen=True)
class Resamples:
    """Bootstrap over strings: `counts[b, k]` says how often draw b took the k-th string of `strings`.

    Strings are redrawn within each task (a task's size is part of the dataset's design); all pairs that start at one
    string in any of its forms move together, and a string of two tasks ("May") is drawn with the first of them.
    `sizes` says how many strings each task has.
    """

    strings: Int[np.ndarray, " string"]
    counts: Float[np.ndarray, "draw string"]
    sizes: tuple[int, ...]

    @classmethod
    def draw(
        cls, dataset: SuccessionDataset, used: np.ndarray, draws: int, generator: np.random.Generator
    ) -> Resamples:
        """`draws` resamples of the strings that start the `used` pairs (bool, one a pair)."""
        return cls.of(dataset.pairs.string[used], dataset.pairs.task[used], draws, generator)

    @classmethod
    def of(
        cls,
        string: Int[np.ndarray, " pair"],
        task: Int[np.ndarray, " pair"],
        draws: int,
        generator: np.random.Generator,
    ) -> Resamples:
        """`draws` resamples of the strings of these pairs, which stand in the order of their tasks."""
        strings, first = np.unique(string, return_index=True)
        home = task[first]  # the first is the earliest task
        counts = stratified_counts(home, draws, generator).astype(np.float32)
        return cls(strings, counts, tuple(np.unique(home, return_counts=True)[1].tolist()))


@dataclass(frozen=True)
class LeadRatio:
    """The leader's score over the runner-up's, `inf` where the runner-up has none; see `SuccessorScores.lead`."""

    leader: int
    runner_up: int
    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class SuccessorScores:
    """Scores of every head under one setting. Shares in [0, 1]; `nan` for a task without a pair.

    `score` weighs pairs as the paper's dataset does (numbers four times), `macro_score` is the mean over tasks.
    `hits` is the pass table over the used pairs, `weight`, `task` and `string` describe those pairs.
    `pair_count` is what the paper's weighting divides by, with the wraps or without them as `wraps` says.
    """

    heads: Int[np.ndarray, "head 2"]
    task_names: tuple[str, ...]
    hits: Bool[np.ndarray, "head pair"]
    weight: Int[np.ndarray, " pair"]
    task: Int[np.ndarray, " pair"]
    string: Int[np.ndarray, " pair"]
    copy_score: Float[np.ndarray, " head"]
    resamples: Resamples
    exclude_self: bool
    wraps: bool

    @property
    def pair_count(self) -> int:
        """Weighted number of pairs: the denominator of `score`."""
        return int(self.weight.sum())

    @property
    def convention(self) -> str:
        """Which pairs were counted, in words."""
        wraps = "with the cyclic wraps" if self.wraps else "without the cyclic wraps"
        own = ", token itself left out of the comparison" if self.exclude_self else ""
        return f"{self.pair_count:,} pairs with both members single tokens, {wraps}{own}"

    @cached_property
    def score(self) -> Float[np.ndarray, " head"]:
        """Share of pairs passed, in the paper's weighting."""
        return self.hits @ self.weight / self.pair_count

    @cached_property
    def task_scores(self) -> Float[np.ndarray, "head task"]:
        """Share of each task's pairs passed."""
        pairs = self.task_pairs
        counted = (self.hits * self.weight) @ (self.task[:, None] == np.arange(len(pairs)))
        return np.where(pairs > 0, counted / np.maximum(pairs, 1), np.nan)

    @cached_property
    def task_pairs(self) -> Int[np.ndarray, " task"]:
        """Weighted number of pairs of each task."""
        return np.bincount(self.task, weights=self.weight, minlength=len(self.task_names)).astype(np.int64)

    @cached_property
    def macro_score(self) -> Float[np.ndarray, " head"]:
        """Mean of the task scores, over tasks with at least one pair."""
        return self.task_scores[:, self.task_pairs > 0].mean(axis=1)

    @cached_property
    def draws(self) -> dict[Metric, Float[np.ndarray, "draw head"]]:
        """Both scores of every head in each bootstrap draw, for `task_draws` tasks joined."""
        passed = total = shares = drawn = np.zeros((), dtype=np.float32)
        for task in np.flatnonzero(self.task_pairs):
            hits, pairs = self._task_draw(int(task))
            passed, total = passed + hits, total + pairs
            # A draw may miss a task whose only id lives in another one; the mean is then over the tasks it has.
            there = (pairs > 0).astype(np.float32)
            shares, drawn = shares + hits / np.maximum(pairs, 1), drawn + there
        return {"score": passed / total, "macro_score": shares / drawn}

    def task_draws(self, task: str) -> Float[np.ndarray, "draw head"]:
        """One task's score of every head in each bootstrap draw."""
        hits, pairs = self._task_draw(self.task_names.index(task))
        return hits / np.where(pairs > 0, pairs, np.nan)

    def _task_draw(self, task: int) -> tuple[Float[np.ndarray, "draw head"], Float[np.ndarray, "draw 1"]]:
        here = np.flatnonzero(self.task == task)
        strings, place = np.unique(self.string[here], return_inverse=True)
        weight = (place[:, None] == np.arange(len(strings))) * self.weight[here, None].astype(
            np.float32
        )  # (pair, string)
        counts = self.resamples.counts[:, np.searchsorted(self.resamples.strings, strings)]  # (draw, string)
        hits = counts @ (self.hits[:, here].astype(np.float32) @ weight).T
        return hits, (counts @ weight.sum(axis=0))[:, None]

    def value(self, metric: Metric) -> Float[np.ndarray, " head"]:
        """`score` or `macro_score`, by name."""
        return {"score": self.score, "macro_score": self.macro_score}[metric]

    def intervals(self, metric: Metric = "macro_score", level: float = LEVEL) -> Float[np.ndarray, "head 2"]:
        """Each head's own percentile bootstrap interval (low, high). For one head chosen beforehand."""
        return np.stack(percentile_band(self.draws[metric], level, self.resamples.sizes), axis=1)

    def task_interval(self, task: str, row: int, level: float = LEVEL) -> Float[np.ndarray, " end"]:
        """One head's percentile bootstrap interval for one task."""
        here = self.task == self.task_names.index(task)
        return np.asarray(percentiles(self.task_draws(task)[:, row], level, [len(np.unique(self.string[here]))]))

    def half_width(self, metric: Metric = "macro_score", level: float = LEVEL) -> float:
        """Half-width of the simultaneous band: the `level` quantile, over draws, of the largest |draw - value|.

        Stretched as an end of an interval over so few strings is. All heads' true scores lie within value +-
        half-width together, so the best head's may be read off it.
        """
        half = float(np.quantile(np.abs(self.draws[metric] - self.value(metric)).max(axis=1), level))
        return half * expansion(self.resamples.sizes, level) if half else 0.0

    def simultaneous(self, metric: Metric = "macro_score", level: float = LEVEL) -> Float[np.ndarray, "head 2"]:
        """Max-type simultaneous intervals (low, high) of all heads, clipped to [0, 1]; for existence claims."""
        half = self.half_width(metric, level)
        return np.clip(np.stack([self.value(metric) - half, self.value(metric) + half], axis=1), 0.0, 1.0)

    def ranking(self, metric: Metric = "macro_score") -> Int[np.ndarray, " head"]:
        """Head rows from the best to the worst; equal scores in model order."""
        return np.argsort(-self.value(metric), kind="stable")

    def support(self, metric: Metric = "macro_score") -> Float[np.ndarray, " head"]:
        """Share of draws in which each head comes first (a shared first place is split): for identity claims."""
        first = self.draws[metric] >= self.draws[metric].max(axis=1, keepdims=True)
        return (first / first.sum(axis=1, keepdims=True)).mean(axis=0)

    def lead(self, metric: Metric = "macro_score", level: float = LEVEL) -> LeadRatio:
        """Ratio of the best score over the second best, leader and runner-up chosen anew in every draw (SH-05).

        The interval is the wider of the percentile and the basic bootstrap on the log scale. Resampling noise lifts
        the best of many runners-up, so the percentile interval leans low and the basic one corrects for it: their
        union is cautious both ways. Raises ValueError for a model of one head.
        """
        if len(self.heads) < 2:
            raise ValueError("a lead over the runner-up needs at least 2 heads, found 1")
        leader, runner_up = (int(row) for row in self.ranking(metric)[:2])
        value = float(_ratio(self.value(metric)[None])[0])
        ratios = np.sort(_ratio(self.draws[metric]))
        low, high = order_statistics(ratios, expanded_level(self.resamples.sizes, level))
        if np.isfinite(value * value / low) and np.isfinite(high):
            low, high = min(low, value * value / high), max(high, value * value / low)
        return LeadRatio(leader, runner_up, value, float(low), float(high), level)

    def name(self, row: int) -> str:
        """A head as the paper writes it, such as L12H0."""
        layer, head = self.heads[row]
        return f"L{layer}H{head}"

    def row(self, name: str) -> int:
        """The row of a head named like L12H0. Raises KeyError when the model has no such head."""
        names = [self.name(row) for row in range(len(self.heads))]
        if name not in names:
            raise KeyError(f"no head named {name}: expected one from {names[0]} to {names[-1]}")
        return names.index(name)


def score_heads(
    winners: Winners,
    dataset: SuccessionDataset,
    *,
    generator: np.random.Generator,
    exclude_self: bool = False,
    bootstrap_draws: int = 2000,
) -> SuccessorScores:
    """Scores, copy scores and bootstrap of every head (SH-04 to SH-07, SH-09).

    Raises ValueError when the tokenizer leaves no pair to test (see `usable_pairs`).
    """
    used = usable_pairs(dataset, exclude_self)
    pairs = dataset.pairs
    return SuccessorScores(
        heads=winners.heads,
        task_names=dataset.task_names,
        hits=passes(winners, dataset, exclude_self=exclude_self)[:, used],
        weight=pairs.weight[used],
        task=pairs.task[used],
        string=pairs.string[used],
        copy_score=copy_scores(winners, dataset),
        resamples=Resamples.draw(dataset, used, bootstrap_draws, generator),
        exclude_self=exclude_self,
        wraps=dataset.wraps,
    )


def form_hits(
    winners: Winners, dataset: SuccessionDataset, task: str, form: str = "plain", *, exclude_self: bool = False
) -> tuple[Int[np.ndarray, " head"], int]:
    """Pairs of one task in one form that each head gets, and how many there are (SH-27: 7 of 7 days)."""
    index = dataset.task_names.index(task)
    strands = [strand for strand in dataset.strands if strand.task == index and form in strand.forms]
    if not strands:
        raise KeyError(f"task {task!r} has no token in form {form!r} with this tokenizer; see its availability table")
    strand, start = strands[0], int(dataset.group_starts[strands[0].group])
    column = [start + strand.places[first] for first, _ in strand.links]
    target = np.asarray([strand.places[second] for _, second in strand.links])
    return (winners.of(exclude_self)[:, column] == target).sum(axis=1), len(strand.links)


def _ratio(values: Float[np.ndarray, "draw head"]) -> Float[np.ndarray, " draw"]:
    """Largest over second largest of each row: inf where only the second is 0, 1 where both are."""
    top = np.partition(values, values.shape[1] - 2, axis=1)[:, -2:].astype(np.float64)
    ratio = np.divide(top[:, 1], top[:, 0], out=np.full(len(top), np.inf), where=top[:, 0] > 0)
    return np.where(top[:, 1] > 0, ratio, 1.0)


def order_statistics(ordered: Float[np.ndarray, " draw"], level: float) -> tuple[float, float]:
    """Ends of the central `level` of sorted draws, without the interpolation that infinite ones would turn into nan."""
    last = len(ordered) - 1
    low, high = int(np.floor((1 - level) / 2 * last)), int(np.ceil((1 + level) / 2 * last))
    return float(ordered[low]), float(ordered[high])
