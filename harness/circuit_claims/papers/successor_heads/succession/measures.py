"""What the first paper's claims measure: stored tables of head scores, and findings with the controls beside them.

A measure (`@measure`) takes a subject and settings and gives a `Measurement`; it never sees a claim. The classes here
read one quantity after another off those tables and pair each with its controls, measured the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Context, Finding, Interval, Measurement, MemoryStore, Subject, measure
from circuit_claims.papers.successor_heads.dataset import (
    SuccessionDataset,
    assemble_dataset,
    splits_numbers,
    succession,
)
from circuit_claims.papers.successor_heads.succession import quantities
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject, WordTokens

if TYPE_CHECKING:
    from circuit_claims.papers.successor_heads.succession.known import KnownAnswers
    from circuit_claims.papers.successor_heads.succession.score import Metric, SuccessorScores

PAPER_PATH = "mlp0"
END_OF_TEXT = ("<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Settings:
    """The choices a score depends on; the defaults are the paper's where it says, and stated where it does not.

    `weights` "untrained" redraws the weights as before training; `order` "shuffled" gives every task a wrong order.
    `first` is the token in front of the lone token on the `residual` path: the one the model expects, if any, or
    "end of text", which models without one of their own were trained to see between documents. `digits` puts the
    digits 0 to 9, once, in the place of the numbers where a tokenizer splits those.
    """

    path: str = PAPER_PATH
    exclude_self: bool = False
    wraps: bool = True
    mixed_forms: bool = False
    norms: bool = True
    biases: bool = True
    weights: str = "own"
    order: str = "true"
    first: str = "model's own"
    digits: bool = False
    seed: int = 0

    @property
    def label(self) -> str:
        """The input path in words."""
        first = "" if self.first == "model's own" else ", after an end-of-text token"
        return self.path + first + (", token itself excluded" if self.exclude_self else "")

    def parameters(self) -> dict[str, Any]:
        """The settings as parameters of a measure."""
        return dict(vars(self))


def dataset_of(tokens: Any, settings: Settings) -> SuccessionDataset:
    """The succession dataset of a tokenizer; with `order` "shuffled" every task's strings stand in a wrong order."""
    right = succession(tokens, wraps=settings.wraps, mixed_forms=settings.mixed_forms, digits=settings.digits)
    if settings.order == "true":
        return right
    generator = np.random.default_rng(settings.seed)
    wrong = [replace(task, items=tuple(generator.permutation(task.items).tolist())) for task in right.tasks]
    return assemble_dataset(tokens, wrong, wraps=settings.wraps, mixed_forms=settings.mixed_forms)


def weights_of(subject: Any, settings: Settings) -> Any:
    """The subject's circuit weights, or weights drawn as before training in their place."""
    import torch

    from circuit_claims.heads.planted import untrained_like
    from circuit_claims.models.architectures.layers import CircuitWeights

    tensors = subject.tensors
    if settings.weights == "untrained":
        tensors = untrained_like(tensors, torch.Generator().manual_seed(settings.seed))
    return CircuitWeights.open(tensors)


def first_token(tokens: Any, first: str) -> int | None:
    """The id put in front of a lone token: what the model expects, or its end-of-text token where it expects none."""
    if tokens.bos_id is not None or first == "model's own":
        return tokens.bos_id
    return next((found for text in END_OF_TEXT if (found := tokens.single_token(text)) is not None), None)


def sweep_of(subject: Any, settings: Settings, draws: int, shuffles: int) -> Any:
    """The sweep of a subject under `settings`: a `SweepResult`."""
    return sweeps_of(subject, settings, (settings.path,), draws, shuffles)[0]


def sweeps_of(subject: Any, settings: Settings, paths: Sequence[str], draws: int, shuffles: int) -> list[Any]:
    """The sweeps on several input paths, otherwise under `settings`; what the weights say is read once a session."""
    from circuit_claims.papers.successor_heads.succession.once import winners_of_paths
    from circuit_claims.papers.successor_heads.succession.score import usable_pairs
    from circuit_claims.papers.successor_heads.succession.sweep import judge_winners

    dataset = dataset_of(subject.tokens, settings)
    usable_pairs(dataset, settings.exclude_self)  # refuses a dataset without any before the weights are read
    weights = weights_of(subject, settings).with_choices(norms=settings.norms, biases=settings.biases)
    found = winners_of_paths(weights, dataset, paths, first_token(subject.tokens, settings.first))
    judged = partial(
        judge_winners, exclude_self=settings.exclude_self, bootstrap_draws=draws, shuffles=shuffles, seed=settings.seed,
        norms=settings.norms, biases=settings.biases,
    )  # fmt: skip
    return [judged(winners, dataset, path=path) for path, winners in zip(paths, found, strict=True)]


def sweep_model(model: Any, *, path: str, exclude_self: bool) -> Any:
    """The sweep that `claims sweep` prints, of a model on this machine; nothing is looked up in the store."""
    context = Context(MemoryStore())
    settings = Settings(path=path, exclude_self=exclude_self)
    draws, shuffles = context.profile.bootstrap_draws, context.profile.shuffles
    return sweep_of(Subject(model.name, model, context), settings, draws, shuffles)


@measure
def head_scores(subject: Any, *, settings: dict[str, Any], draws: int, shuffles: int) -> Measurement:
    """Successor scores of all heads under one setting: the table that `succession.quantities` reads."""
    chosen = Settings(**settings)
    result = sweep_of(subject, chosen, draws, shuffles)
    table = quantities.tabulate(result.scores, result.null, chosen.seed)
    day_hits, days = quantities.day_hits(result)
    facts = {**table.facts, "days": days, "settings": chosen.parameters()}
    winner = result.winners.of(chosen.exclude_self)
    return replace(table, arrays={**table.arrays, "day_hits": day_hits, "winner": winner}, facts=facts)


@dataclass(frozen=True)
class SuccessorScoreTable:
    """All heads of one subject under one setting, ready to be asked for quantities with their controls."""

    subject: Any
    settings: Settings
    metric: Metric = "score"

    @property
    def table(self) -> Measurement:
        """The stored table of scores."""
        return self._table(self.subject, self.settings)

    def _table(self, subject: Any, settings: Settings) -> Measurement:
        profile = self.subject.context.profile
        return head_scores(
            subject, settings=settings.parameters(), draws=profile.bootstrap_draws, shuffles=profile.shuffles
        )

    @property
    def _known(self) -> KnownAnswers:
        """Scores of the same heads and tokens where the answer is known."""
        from circuit_claims.papers.successor_heads.succession.known import KnownAnswers

        arrays, dataset = self.table.arrays, dataset_of(self.subject.tokens, self.settings)
        return KnownAnswers(dataset, arrays["heads"], arrays["winner"], self.settings.exclude_self)

    def _calibrated(
        self, finding: Finding, quantity: Callable[[Measurement], Measurement], perfect: str = "", among: str = "own"
    ) -> Finding:
        """The finding with the successor map shuffled, and with a perfect head in the place of `perfect`.

        The leader's place where none is given; `among` "shuffled" heads or the model's "own". By the paper's weighting.
        """
        null = self.table.arrays["score_null"]

        def false(generator: np.random.Generator) -> Measurement:
            return quantity(quantities.quick_table(self._known.shuffled(generator), null))

        def oracle() -> Measurement:
            known, generator = self._known, np.random.default_rng(self.settings.seed)
            scores = known.shuffled(generator) if among == "shuffled" else known.true(generator)
            row = scores.row(perfect) if perfect else int(quantities.ranking(self.table, "score")[0])
            return quantity(quantities.quick_table(known.perfect(scores, [row]), null))

        others = ", other heads' maps shuffled" if among == "shuffled" else ""
        ways = {"successor map shuffled within each task": false}
        return replace(finding, false=ways, oracles={f"a perfect head on the same tokens{others}": oracle})

    def _finding(self, quantity: Callable[..., Measurement], *with_metric: Metric) -> Finding:
        def control(subject: Any, **changes: Any) -> Callable[[], Measurement]:
            return lambda: quantity(self._table(subject, replace(self.settings, **changes)), *with_metric)

        context = self.subject.context
        return Finding(
            quantity(self.table, *with_metric),
            {
                "shuffled successor map": control(self.subject, order="shuffled"),
                "untrained weights": control(self.subject, weights="untrained"),
                "planted successor head": control(PlantedSubject(context)),
                "planted pair of successor heads": control(PlantedSubject(context, heads=((1, 1), (1, 2)))),
            },
        )

    def leader(self, planted: str) -> Finding:
        """Which head leads (SH-04); the oracle is a perfect head `planted` in the place the paper names."""
        return self._calibrated(self._finding(quantities.leader, self.metric), quantities.leader, planted)

    def lead_over_runner_up(self) -> Finding:
        """How far the leader leads (SH-05)."""
        finding = self._finding(quantities.lead_over_runner_up, self.metric)
        return self._calibrated(finding, quantities.lead_over_runner_up, among="shuffled")

    def best_head(self) -> Finding:
        """The highest score of all heads (SH-07)."""
        return self._calibrated(self._finding(quantities.best_head, self.metric), quantities.best_head)

    def no_head(self) -> Finding:
        """The highest score of all heads where there is said to be none (SH-06): false where one head is perfect."""
        known, null = self._known, self.table.arrays["score_null"]

        def measured(scores: SuccessorScores) -> Measurement:
            return quantities.best_head(quantities.quick_table(scores, null))

        def false(generator: np.random.Generator) -> Measurement:
            return measured(known.perfect(known.true(generator), [int(generator.integers(len(known.heads)))]))

        return replace(
            self._finding(quantities.best_head, self.metric),
            false={"a perfect head in a random place": false},
            oracles={"successor map shuffled": lambda: measured(known.shuffled(np.random.default_rng(0)))},
        )

    def heads_with_every_day(self) -> Finding:
        """Which heads give every day its successor (SH-27)."""
        return self._finding(quantities.heads_with_every_day)

    def days_of_the_runner_up(self) -> Finding:
        """How many days the second-best head gets (SH-27b)."""
        return self._finding(quantities.days_of_the_runner_up)


def successor_scores(subject: Any, *, path: str = PAPER_PATH, metric: Metric = "score") -> SuccessorScoreTable:
    """Successor scores of all heads on one input path, with the model's own norms and biases, within one form."""
    return SuccessorScoreTable(subject, Settings(path=path), metric)


def across_settings(subject: Any) -> Iterator[tuple[str, SuccessorScoreTable]]:
    """The same scores under the choices that the paper leaves open, one changed at a time; its own setting first."""
    from circuit_claims.heads.ov_circuit import INPUT_PATHS

    yield "as judged: mlp0, paper's weighting", SuccessorScoreTable(subject, Settings())
    yield "mean over tasks", SuccessorScoreTable(subject, Settings(), "macro_score")
    for path in INPUT_PATHS:
        if path != PAPER_PATH:
            yield f"path {path}", SuccessorScoreTable(subject, Settings(path=path))
        yield (
            f"path {path}, token itself excluded",
            SuccessorScoreTable(subject, Settings(path=path, exclude_self=True)),
        )
    after = Settings(path="residual", first="end of text")
    yield f"path {after.label}", SuccessorScoreTable(subject, after)
    excluded = replace(after, exclude_self=True)
    yield f"path {excluded.label}", SuccessorScoreTable(subject, excluded)
    yield "without the cyclic wraps", SuccessorScoreTable(subject, Settings(wraps=False))
    yield "surface forms mixed", SuccessorScoreTable(subject, Settings(mixed_forms=True))
    if splits_numbers(subject.tokens):
        yield "digits 0 to 9 once, in place of the numbers", SuccessorScoreTable(subject, Settings(digits=True))
    yield "without norms", SuccessorScoreTable(subject, Settings(norms=False))
    yield "without biases", SuccessorScoreTable(subject, Settings(biases=False))


@dataclass(frozen=True)
class DatasetFinding:
    """The succession dataset of a tokenizer, counted (SH-01, SH-26)."""

    subject: Any
    dataset: SuccessionDataset = field(repr=False)

    def entries(self) -> Finding:
        """How many entries the dataset has; the control is a tokenizer that knows single characters only."""
        letters = WordTokens({chr(code): code for code in range(33, 127)})
        return Finding(
            _count("entries", len(self.dataset.entries), "tokens"),
            {"byte-level tokenizer": lambda: _count("entries", len(succession(letters).entries), "tokens")},
        )

    def share_of_numbers(self) -> Finding:
        """Share of the entries that are numbers; the control gives every task the same weight."""
        numbers = self.dataset.share("numbers")
        equal = 1 / len(self.dataset.tasks)
        return Finding(
            _count("share of numbers", numbers, "share of entries"),
            {"equal weight for each task": lambda: _count("share of numbers", equal, "share of entries")},
        )


def _count(quantity: str, value: float, unit: str) -> Measurement:
    exact = Interval(float(value), float(value), 0.90, "a count, exact")
    return Measurement(quantity, float(value), exact, unit=unit, n=1)


def succession_dataset(subject: Any) -> DatasetFinding:
    """The succession dataset of the subject's tokenizer."""
    return DatasetFinding(subject, succession(subject.tokens))
