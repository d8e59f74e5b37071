"""What the first paper's claims on counting measure: stored tables, one a question; none of them sees a claim.

Every measure is about one head, the one that leads on the succession dataset along the paper's path
(`leader_by_score`), and about MLP_0(W_E), what the paper lets that head read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Measurement, measure
from circuit_claims.papers.successor_heads.counting.coverage import coverage_of
from circuit_claims.papers.successor_heads.counting.known import residues_of_others
from circuit_claims.papers.successor_heads.counting.moduli import DRAWS, string_numbers
from circuit_claims.papers.successor_heads.succession.measures import successor_scores
from circuit_claims.papers.successor_heads.succession.quantities import ranking

if TYPE_CHECKING:
    from circuit_claims.papers.successor_heads.steering.tokens import Items

VALUES = ("numbers", "digits", "number words")
"""Tasks whose tokens are values; the features of a residue are looked for among the first two that there are."""
STEERED = ("numbers", "number words", "ordinal words", "months", "days", "letters")
UNTRAINED = 20
ORDERED = ("numbers", "number words", "ordinal words")
RANDOM_DRAWS = 5
PAPER_COSINE = 0.70764
"""Of probe rows and features, as the paper has it."""


@dataclass(frozen=True)
class NamedHead:
    """A head as (layer, head)."""

    layer: int
    head: int

    @property
    def name(self) -> str:
        """As the paper writes it."""
        return f"L{self.layer}H{self.head}"

    @property
    def pair(self) -> tuple[int, int]:
        """As the readout takes it."""
        return self.layer, self.head


def leader_by_score(subject: Any) -> NamedHead:
    """The head with the highest successor score, from the stored table that SH-04 is judged on."""
    table = successor_scores(subject).table
    return NamedHead(*(int(place) for place in table.arrays["heads"][ranking(table, "score")[0]]))


def other_head(subject: Any, seed: int = 0) -> NamedHead:
    """A head drawn at random from all but the leading one: a control."""
    table = successor_scores(subject).table
    best = int(ranking(table, "score")[0])
    others = [row for row in range(len(table.arrays["heads"])) if row != best]
    row = others[int(np.random.default_rng(seed).integers(len(others)))]
    return NamedHead(*(int(place) for place in table.arrays["heads"][row]))


@measure
def mod_ten_features_table(subject: Any, *, head: list[int], runs: int, probes: int) -> Measurement:
    """The mod-10 features of one head: SH-14's coverage, SH-11's cosines, and f_0 ... f_9 for the vector arithmetic.

    Arrays: `directions` (residue, d_model) of length 1, `contrast` (residue) the length an edit of scale 1 gives them,
    `random` (draw, residue, d_model), `logits` (candidate, residue) of each feature through the head, `coverage`;
    `values/feature` (run, token) the most important features of the tokens that have a residue, `values/residue` and
    `values/string`, their spellings numbered.
    """
    import torch

    from circuit_claims.heads.autoencoders.training import mean_max_cosine, train_autoencoders
    from circuit_claims.models.architectures.layers import CircuitWeights
    from circuit_claims.papers.successor_heads.counting import features as found
    from circuit_claims.papers.successor_heads.counting.tokens import counted_tokens
    from circuit_claims.papers.successor_heads.steering.arithmetic import mlp0_of

    weights = CircuitWeights.open(subject.tensors)
    tokens = counted_tokens(subject.tokens).distinct()
    vectors = mlp0_of(weights, tokens.tokens.tolist())
    trained = train_autoencoders(vectors, range(runs))
    logits = found.head_logits(weights, (head[0], head[1]), torch.from_numpy(tokens.tokens))
    important = found.most_important_features(trained, vectors, torch.from_numpy(tokens.successor), logits)
    residues = _value_residues(tokens)
    modal, string = found.modal_features(trained, vectors, important, residues), string_numbers(tokens.texts)
    coverage = found.modal_coverage(important, modal, residues, string)
    arrays, shown = _figures(found.mod_ten_features(modal), vectors, residues, tokens, logits)
    arrays["random"] = np.stack([_random(trained, modal, seed) for seed in range(RANDOM_DRAWS)])
    parts = {"feature": important.feature, "residue": residues, "string": string}
    arrays |= {f"values/{name}": part[..., residues >= 0] for name, part in parts.items()}
    rows, cosines = _rows(vectors, tokens, modal, probes)
    facts = {
        "head": head,
        "shown": shown,
        "shuffled": _by_chance(arrays),
        "rows": rows,
        "between runs": _between(mean_max_cosine(trained)),
        "runs": runs,
        "values": _values(tokens),
    }
    return replace(coverage, arrays={**coverage.arrays, **arrays, **cosines}, facts={**coverage.facts, **facts})


def _figures(
    directions: Any, vectors: Any, residues: np.ndarray, tokens: Any, logits: Any
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Directions, their lengths, and their logits of the tokens that have a residue, in the order of their values."""
    import torch

    from circuit_claims.papers.successor_heads.counting.features import logits_of_features
    from circuit_claims.papers.successor_heads.steering.arithmetic import contrasts

    counted = np.flatnonzero(residues >= 0)
    shown = counted[np.argsort(tokens.index[counted], kind="stable")]
    lengths = contrasts(vectors[torch.from_numpy(counted)], torch.from_numpy(residues[counted]), directions)
    arrays = {"directions": directions.numpy(), "contrast": lengths.numpy(),
              "logits": logits_of_features(directions, logits)[shown]}  # fmt: skip
    return arrays, [tokens.texts[row] for row in shown]


def _values(tokens: Any) -> list[str]:
    return [name for name in VALUES if name in tokens.tasks][: 1 if "numbers" in tokens.tasks else 2]


def _between(cosines: Any) -> float | None:
    """Mean over pairs of runs; None for a single run."""
    pairs = cosines[~cosines.isnan()]
    return float(pairs.mean()) if len(pairs) else None


def _value_residues(tokens: Any) -> np.ndarray:
    """Residues of the numbers 0 to 99 (the paper's), or of digits and number words; nobody's for other tokens."""
    tasks = _values(tokens)
    chosen = tokens.of(*tasks) & (tokens.index < 100)
    return np.where(chosen, tokens.index % 10, -1)


def _by_chance(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """SH-14's control: the same coverage where the residues are dealt out anew to the strings."""
    feature, residue, string = (arrays[f"values/{name}"] for name in ("feature", "residue", "string"))
    dealt = residues_of_others(residue, string, np.random.default_rng(0))
    return stated(coverage_of(feature, dealt, string, np.random.default_rng(0), DRAWS))


def _random(trained: Any, modal: Any, seed: int) -> np.ndarray:
    import torch

    from circuit_claims.papers.successor_heads.counting.features import random_features

    return random_features(trained, modal, torch.Generator().manual_seed(seed)).numpy()


def stated(measured: Measurement) -> dict[str, Any]:
    """A measurement as facts: value, interval and how it was made."""
    interval = measured.interval
    if interval is None:
        raise ValueError(f"{measured.quantity}: expected an interval, found none")
    ends = {"low": interval.low, "high": interval.high, "method": interval.method}
    return {"value": measured.value, **ends, "redrawn": dict(measured.redrawn)}


def _rows(vectors: Any, tokens: Any, modal: Any, seeds: int) -> tuple[dict[str, Any] | None, dict[str, np.ndarray]]:
    """SH-11, its control (each row against the feature of another residue) and its oracle (features turned to the
    paper's cosine); the cosines of all rows and features as arrays. None and nothing without multi-digit numbers."""
    import torch

    from circuit_claims.heads.probes import train_probes
    from circuit_claims.papers.successor_heads.counting.probes_transfer import planted_at, rows_against_features

    numbers = tokens.of("numbers")
    if not numbers.any():
        return None, {}
    index = torch.from_numpy(tokens.index[numbers])
    probes = train_probes(vectors[torch.from_numpy(numbers)], index, range(seeds), (10,))
    ways = {
        "own": modal,
        "other": replace(modal, directions=modal.directions.roll(3, dims=1)),
        "planted": planted_at(probes, modal, PAPER_COSINE),
    }
    found = {name: rows_against_features(probes, one) for name, one in ways.items()}
    facts = {name: {**stated(one), **one.facts} for name, one in found.items()}
    own = found["own"].arrays
    return {**facts, "cosine": own["cosine"].tolist()}, {f"rows/{name}": array for name, array in own.items()}


@measure
def steering_tables(
    subject: Any, *, head: list[int], reader: list[int], runs: int, probes: int, vectors: str = "own", length: str
) -> Measurement:
    """The steering table of every task, over all scales: arrays `<task>/winner` (scale, row, residue), and so on.

    `vectors` are the head's own mod-10 features, "random" ones of the same autoencoders, or the own ones "shuffled"
    among the residues; all at the own ones' lengths (`length` "contrast") or at length 1 ("unit"). The edited vectors
    are read by the head `reader`.
    """
    import torch

    from circuit_claims.models.architectures.layers import CircuitWeights
    from circuit_claims.papers.successor_heads.steering.arithmetic import HeadLogits, steering_table
    from circuit_claims.papers.successor_heads.steering.tokens import counted_items

    features = mod_ten_features_table(subject, head=head, runs=runs, probes=probes)
    lengths = features.arrays["contrast"] if length == "contrast" else np.ones(10)
    order = np.roll(np.random.default_rng(0).permutation(10), 1) if vectors == "shuffled" else np.arange(10)
    sets = features.arrays["random"] if vectors == "random" else features.arrays["directions"][None][:, order]
    readout = HeadLogits.open(CircuitWeights.open(subject.tensors), (reader[0], reader[1]))
    arrays: dict[str, np.ndarray] = {}
    items: dict[str, Any] = {}
    for one in counted_items(subject.tokens, STEERED):
        each = (steering_table(readout, one, torch.from_numpy(f * lengths[:, None]).float()) for f in sets)
        if made := [table for table in each if table is not None]:
            items[one.task] = described(one)
            arrays[f"{one.task}/winner"] = np.stack([table.winner for table in made])
            arrays[f"{one.task}/expected"] = made[0].expected
            arrays[f"{one.task}/rows"] = np.asarray(made[0].rows)
    facts = {"items": items, "vectors": vectors, "length": length, "head": head, "reader": reader}
    return Measurement("winners of steering tables", None, n=len(items), seed=0, arrays=arrays, facts=facts)


def described(items: Items) -> dict[str, Any]:
    """A task's strings as facts."""
    return {"form": items.form, "texts": list(items.texts), "index": list(items.index), "around": items.around}


@measure
def greater_than_table(
    subject: Any, *, head: list[int], source: str, order: str = "true", weights: str = "own", draws: int, vectors: Any
) -> Measurement:
    """The greater-than bias of a head (`source` "head") or of its mod-10 features ("features"; `vectors` says which).

    The paper's numbers where the tokenizer has them, else digits, number words and ordinals. `order` "shuffled" puts
    every task in a wrong order; `weights` "untrained" draws the weights as before training, `UNTRAINED` times, for one
    such head puts all logits in an order by accident. Arrays `<task>/logits`: of the values, a row a value or feature.
    """
    from circuit_claims.papers.successor_heads.steering import greater_than as bias_of
    from circuit_claims.papers.successor_heads.steering.arithmetic import HeadLogits
    from circuit_claims.papers.successor_heads.steering.tokens import counted_items
    from circuit_claims.papers.successor_heads.succession.measures import Settings, weights_of

    counted = counted_items(subject.tokens, ORDERED)
    tasks = [one for one in counted if one.task == "numbers"] or counted
    generator = np.random.default_rng(0)
    seeds = range(UNTRAINED if weights == "untrained" else 1)
    drawn = (HeadLogits.open(weights_of(subject, Settings(weights=weights, seed=s)), (head[0], head[1])) for s in seeds)
    first = next(drawn)
    if source == "features":
        scaled = _at_length(subject, vectors)
        bias, tables = bias_of.feature_bias(first, tasks, scaled), bias_of.feature_tables(first, tasks, scaled)
    else:
        orders = None if order == "true" else [generator.permutation(len(one.tokens)).tolist() for one in tasks]
        # One readout at a time: each keeps its MLP_0.
        biases = [bias_of.head_bias(readout, tasks, orders) for readout in chain([first], drawn)]
        bias, tables = biases[0] if len(biases) == 1 else bias_of.over_draws(biases), bias_of.head_tables(first, tasks)
    arrays, facts = _with_logits(first, tasks, tables)
    return Measurement(
        f"greater-than bias of the {source}",
        bias.value,
        bias.interval(generator, draws),
        unit="share of pairs",
        n=bias.n,
        redrawn=bias.redrawn,
        seed=0,
        arrays=arrays,
        facts={"by task": bias.by_task, **facts},
    )


def _with_logits(readout: Any, tasks: Any, tables: list[np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The mean profile of the first task and the logits of all, as arrays, with the facts that they are read by."""
    from circuit_claims.papers.successor_heads.steering.greater_than import mean_profile

    distances, profile = mean_profile(readout, tasks[0])
    logits = {f"{one.task}/logits": table for one, table in zip(tasks, tables, strict=True)}
    named = {"tasks": [one.task for one in tasks], "indices": [list(one.index) for one in tasks]}
    return {"distance": distances, "profile": profile, **logits}, {"profile of": tasks[0].task, **named}


def _at_length(subject: Any, vectors: Any) -> Any:
    """The mod-10 features at the length that an edit of scale 1 has."""
    import torch

    table = mod_ten_features_table(subject, **vectors)
    return torch.from_numpy(table.arrays["directions"] * table.arrays["contrast"][:, None]).float()


@measure
def factoring_table(subject: Any, *, head: list[int], pairs: int, draws: int, index: str = "true") -> Measurement:
    """Swapped pairs decoded in output space and counted on in successor space, left-out pairs and Roman numerals.

    Facts hold a share with its interval for each; `index` "shuffled" hands the indices of each domain out anew before
    anything is learned.
    """
    from circuit_claims.models.architectures.layers import CircuitWeights
    from circuit_claims.papers.successor_heads.counting import factoring
    from circuit_claims.papers.successor_heads.steering.arithmetic import HeadLogits, mlp0_of
    from circuit_claims.papers.successor_heads.steering.tokens import counted_items

    weights = CircuitWeights.open(subject.tensors)
    items = counted_items(subject.tokens)
    vectors = mlp0_of(weights, [token for one in items for token in one.tokens])
    return factoring.measured(
        factoring.Domains.of(items, vectors),
        HeadLogits.open(weights, (head[0], head[1])),
        pairs=pairs,
        draws=draws,
        shuffled=index == "shuffled",
    )
