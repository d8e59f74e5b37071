"""Measures on the circuit's input: W_E in place of MLP_0(W_E) (SH-09), and the path without any head (SH-08)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Finding, Measurement, cluster_share_interval, measure, order_of
from circuit_claims.papers.successor_heads.amounts import amounts_of
from circuit_claims.papers.successor_heads.succession.measures import Settings, dataset_of, sweeps_of, weights_of

if TYPE_CHECKING:
    from circuit_claims.papers.successor_heads.succession.score import SuccessorScores

WINDOW = 256
COUNTING_ON = 0.10
"""Share of pairs that a path passes which does count on: ten times the bar of SH-08."""


@measure
def best_by_path(
    subject: Any, *, first: str, second: str, settings: dict[str, Any], draws: int, shuffles: int
) -> Measurement:
    """The best head's score on two input paths, in the same bootstrap draws, and in which order they came.

    The head is chosen anew for each path and each draw: one head chosen on the first path would favour that path.
    """
    chosen = Settings(**settings)
    sweeps = [result.scores for result in sweeps_of(subject, chosen, (first, second), draws, shuffles)]
    best = np.stack([scores.draws["score"].max(axis=1) for scores in sweeps], axis=1)
    values = [float(scores.score.max()) for scores in sweeps]
    ranking = order_of((first, second), np.asarray(values), best)
    leader = int(sweeps[0].ranking("score")[0])
    facts = {
        "values": dict(zip((first, second), values, strict=True)),
        "leader": sweeps[0].name(leader),
        "leader values": {first: values[0], second: float(sweeps[1].score[leader])},
    }
    one = sweeps[0]
    arrays = {"first": one.hits, "second": sweeps[1].hits, "weight": one.weight, "task": one.task, "string": one.string}
    return Measurement(
        "order of the best head's scores",
        ranking.leader,
        support=ranking.support,
        rivals=ranking.rivals,
        redrawn={"strings": len(one.resamples.strings)},
        n=one.pair_count,
        seed=chosen.seed,
        arrays=arrays,
        facts=facts,
    )


def order_on(
    table: Measurement, paths: tuple[str, str], hits: Sequence[np.ndarray], generator: np.random.Generator
) -> Measurement:
    """The same for other passes of the same pairs, `hits` on the first path and on the second."""
    from circuit_claims.papers.successor_heads.succession.known import DRAWS
    from circuit_claims.papers.successor_heads.succession.score import Resamples

    weight, string = table.arrays["weight"], table.arrays["string"]
    resamples = Resamples.of(string, table.arrays["task"], DRAWS, generator)
    # Strings that two tasks share stand once; each pair goes to its string.
    of_string = (np.searchsorted(resamples.strings, string)[:, None] == np.arange(len(resamples.strings))) * weight[
        :, None
    ].astype(np.float32)  # (pair, string)
    total = resamples.counts @ of_string.sum(axis=0)
    best = [(resamples.counts @ (one.astype(np.float32) @ of_string).T).max(axis=1) / total for one in hits]
    values = [float((one @ weight).max() / weight.sum()) for one in hits]
    ranking = order_of(paths, np.asarray(values), np.stack(best, axis=1))
    return table.derive(table.quantity, ranking.leader, support=ranking.support, rivals=ranking.rivals)


@dataclass(frozen=True)
class InputPaths:
    """The best head's score by input path, two at a time."""

    subject: Any

    def order_of(self, first: str, second: str) -> Finding:
        """Which of two paths gives the best head the higher score (SH-09).

        False: the two paths' labels exchanged at random, string by string; true: a perfect head on the first path.
        """
        table, paths = self.measured(first, second), (first, second)

        def false(generator: np.random.Generator) -> Measurement:
            from circuit_claims.papers.successor_heads.succession.known import exchanged

            arrays = table.arrays
            mixed = exchanged(arrays["first"], arrays["second"], arrays["string"], generator)
            return order_on(table, paths, mixed, generator)

        def oracle() -> Measurement:
            perfect = table.arrays["first"].copy()
            perfect[0] = True
            return order_on(table, paths, (perfect, table.arrays["second"]), np.random.default_rng(0))

        return Finding(
            table,
            {"untrained weights": lambda: self.measured(first, second, weights="untrained")},
            false={"labels of the paths exchanged string by string": false},
            oracles={"a perfect head on the first path": oracle},
        )

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
    plain = scores["plain"]
    arrays = {name: score.hits[0] for name, score in scores.items()} | {"weight": plain.weight, "string": plain.string}
    # A lens that explains nothing on text it was not fitted on reads nothing out either.
    status = "complete" if fitted.r_squared > 0 else "partial"
    return Measurement("scores of the path without a head", None, n=plain.pair_count, seed=0, status=status,
                       redrawn={"strings": len(plain.resamples.strings)}, arrays=arrays, facts=facts)  # fmt: skip


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
        pairs = len(self.table.arrays["string"])

        def false(generator: np.random.Generator) -> Measurement:
            return self._of("path that counts on", generator.random(pairs) < COUNTING_ON)

        return Finding(
            self._score("affine"),
            {"lens fitted on the answers": lambda: self._score("answers")},
            false={f"a path that passes {COUNTING_ON:.0%} of the pairs": false},
            oracles={"a path that passes no pair": lambda: self._of("silent path", np.zeros(pairs, dtype=bool))},
        )

    def _score(self, readout: str) -> Measurement:
        return self._of(f"score by the {readout} lens", self.table.arrays[readout])

    def _of(self, quantity: str, hits: np.ndarray) -> Measurement:
        """The score of a path with these passes, in the paper's weighting; all pairs of a string are drawn together."""
        weight, string = self.table.arrays["weight"], self.table.arrays["string"]
        interval = cluster_share_interval(np.repeat(hits, weight).astype(float), np.repeat(string, weight))
        facts = {key: self.table.facts[key] for key in ("r_squared", "baseline", "fitted")}
        value = float(hits @ weight / weight.sum())
        return self.table.derive(quantity, value, interval=interval, facts=facts)


def headless_score(subject: Any, *, text: str) -> Headless:
    """The path without the head, its lens fitted on one of the standard texts."""
    from circuit_claims.texts import text_digest

    context = subject.context
    amounts = {"tokens": amounts_of(context).lens_tokens, "draws": context.profile.bootstrap_draws}
    return Headless(subject, headless_scores_table(subject, text=text, text_digest=text_digest(text), **amounts))
