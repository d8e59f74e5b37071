"""Stored tables of probes and neurons (SH-10, SH-12, SH-13), and of what has to be read inside the whole model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from circuit_claims.api import Measurement, measure
from circuit_claims.papers.successor_heads.counting.known import period_as_label
from circuit_claims.papers.successor_heads.counting.measures import described, mod_ten_features_table, stated
from circuit_claims.papers.successor_heads.counting.moduli import string_numbers

LAST_NUMBER = 500
IN_CONTEXT = ("months", "ordinal words")
RANDOM = ", random features"


@measure
def probe_table(subject: Any, *, seeds: int, index: str = "true", weights: str = "own") -> Measurement:
    """Probes of the index mod 2 ... 25 on MLP_0(W_E) of the numbers 0 to 500, asked for the other tasks.

    The measurement is SH-12's (the modulus with the best probe out of distribution); facts `outside`, `days` and
    `months` are SH-10's share and the counts of SH-12's other sentences. `index` "shuffled" teaches the probes wrong
    indices; `weights` "untrained" draws the model's weights as before training.
    """
    import torch

    from circuit_claims.papers.successor_heads.counting.tokens import counted_tokens
    from circuit_claims.papers.successor_heads.steering.arithmetic import mlp0_of
    from circuit_claims.papers.successor_heads.succession.measures import Settings, weights_of

    weighed = weights_of(subject, Settings(weights=weights))
    every = counted_tokens(subject.tokens)
    numbers = every.take(every.of("numbers"))
    own = mlp0_of(weighed, numbers.tokens.tolist())
    return _probed(own, torch.from_numpy(numbers.index), _asked(weighed, subject), seeds, index == "shuffled")


def _asked(weights: Any, subject: Any) -> Any:
    """Every other task in its one form, and Roman numerals."""
    from circuit_claims.papers.successor_heads.counting.probes_transfer import Asked
    from circuit_claims.papers.successor_heads.steering.arithmetic import mlp0_of

    items = _others(subject)
    return Asked(mlp0_of(weights, [token for one in items for token in one.tokens]), *_columns(items))


def _others(subject: Any) -> list[Any]:
    from circuit_claims.papers.successor_heads.steering.tokens import counted_items

    return [one for one in counted_items(subject.tokens) if one.task not in ("numbers", "digits")]


def _columns(items: list[Any]) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    index = np.asarray([number for one in items for number in one.index])
    texts = tuple(text for one in items for text in one.texts)
    return index, texts, tuple(one.task for one in items for _ in one.texts)


def _probed(own: Any, index: Any, asked: Any, seeds: int, shuffled: bool) -> Measurement:
    from circuit_claims.heads.probes import shuffled_index, train_probes
    from circuit_claims.papers.successor_heads.counting import probes_transfer as transfer

    learned = shuffled_index(index, range(seeds)) if shuffled else index
    probes = train_probes(own, learned, range(seeds))
    best = transfer.modulus_of_the_probes(probes, asked, own, index.numpy())
    outside = transfer.out_of_distribution(probes, asked)
    facts = {
        "outside": {**stated(outside), "n": outside.n, **outside.facts},
        "tasks": list(dict.fromkeys(asked.tasks)),
    }
    for task, modulus in (("days", 7), ("months", 12)):
        if task in asked.tasks:
            counted = transfer.successes_in_task(probes, asked, task, modulus)
            facts[task] = {**stated(counted), "n": counted.n, **counted.facts}
    names = list(dict.fromkeys(asked.tasks))
    arrays = {
        "predictions": np.stack([probes.predictions(asked.vectors, m) for m in probes.moduli]).astype(np.int8),
        "index": asked.index,
        "task": np.asarray([names.index(task) for task in asked.tasks]),
        "string": string_numbers(asked.texts),
    }
    return replace(best, arrays={**best.arrays, **arrays}, facts={**best.facts, **facts})


@measure
def neuron_table(subject: Any, *, head: list[int], shuffles: int, index: str = "true") -> Measurement:
    """The commonest period among the 16 most important neurons of MLP_0 along the numbers 0 to 500 (SH-13).

    `index` "shuffled" puts the numbers in a wrong order before the firing curves are drawn.
    """
    import torch

    from circuit_claims.models.architectures.layers import CircuitWeights
    from circuit_claims.papers.successor_heads.counting.features import head_logits
    from circuit_claims.papers.successor_heads.counting.neurons import ablation_drops, commonest_period, neuron_values
    from circuit_claims.papers.successor_heads.counting.tokens import counted_tokens

    weights = CircuitWeights.open(subject.tensors)
    every = counted_tokens(subject.tokens)
    numbers = every.take(every.of("numbers")).distinct()
    ids = torch.from_numpy(numbers.tokens)
    hidden = neuron_values(weights, weights.embed(ids))
    logits = head_logits(weights, (head[0], head[1]), ids)
    drops = ablation_drops(weights.mlp(0), hidden, torch.from_numpy(numbers.successor), logits)
    order = numbers.index
    if index == "shuffled":
        values, places = np.unique(order, return_inverse=True)
        order = np.random.default_rng(0).permutation(values)[places]
    return period_as_label(commonest_period(hidden, drops, order, shuffles=shuffles))


@measure
def last_digit_residuals(subject: Any, *, layer: int, step: int) -> Measurement:
    """For models that split numbers: the residual stream below `layer` where a number's last digit stands.

    Every `step`-th number from 0 to 500 is read digit by digit, after the token the model expects first (or its end
    of text); the other tasks' tokens are read alone in the same way. Arrays `numbers` and `others`, a row a text.
    """
    from circuit_claims.heads.whole_model import whole_model
    from circuit_claims.papers.successor_heads.steering.in_context import last_residuals
    from circuit_claims.papers.successor_heads.succession.measures import first_token

    device, first = subject.context.device, first_token(subject.tokens, "end of text")
    written = [subject.tokens.encode(str(number)) for number in range(0, LAST_NUMBER + 1, step)]
    alone = [[token] for one in _others(subject) for token in one.tokens]
    read = last_residuals(whole_model(subject), written + alone, layer, first=first, device=device).numpy()
    arrays = {"numbers": read[: len(written)], "others": read[len(written) :]}
    return Measurement("residuals at the last digit", None, n=len(written), arrays=arrays)


@measure
def last_digit_table(subject: Any, *, layer: int, seeds: int, step: int, index: str = "true") -> Measurement:
    """The adapted measure for models that split numbers: probes of the residual at a number's last digit.

    What stands in for MLP_0(W_E) of a whole number is `last_digit_residuals`. Facts and arrays as in `probe_table`.
    """
    import torch

    from circuit_claims.papers.successor_heads.counting.probes_transfer import Asked

    read = last_digit_residuals(subject, layer=layer, step=step)
    asked = Asked(torch.from_numpy(read.arrays["others"]), *_columns(_others(subject)))
    numbers = torch.arange(0, LAST_NUMBER + 1, step)
    return _probed(torch.from_numpy(read.arrays["numbers"]), numbers, asked, seeds, index == "shuffled")


@measure
def in_context_table(subject: Any, *, head: list[int], runs: int, probes: int, scales: list[float]) -> Measurement:
    """The edit inside the whole model: arrays `<task>/winner`, `<task>/edited` and `<task>/own` (log probabilities).

    Each task stands there a second time, with `RANDOM` after its name, edited with random features at the own ones'
    lengths.
    """
    import torch

    from circuit_claims.heads.whole_model import whole_model
    from circuit_claims.papers.successor_heads.steering.in_context import edit_in_context
    from circuit_claims.papers.successor_heads.steering.tokens import counted_items
    from circuit_claims.papers.successor_heads.succession.measures import first_token

    features = mod_ten_features_table(subject, head=head, runs=runs, probes=probes)
    device, first = subject.context.device, first_token(subject.tokens, "end of text")
    bridge = whole_model(subject)
    own_and_random = np.stack([features.arrays["directions"], features.arrays["random"][0]])
    sets = torch.from_numpy(own_and_random * features.arrays["contrast"][:, None]).float()
    arrays: dict[str, np.ndarray] = {}
    items: dict[str, Any] = {}
    for one in counted_items(subject.tokens, IN_CONTEXT):
        made = edit_in_context(bridge, one, list(sets), scales, first=first, device=device)
        for after, found in zip(("", RANDOM), made, strict=False):
            name = one.task + after
            items[name] = described(one)
            arrays |= {f"{name}/winner": found.table.winner[None], f"{name}/expected": found.table.expected}
            arrays |= {f"{name}/rows": np.asarray(found.table.rows)}
            arrays |= {f"{name}/edited": found.edited, f"{name}/own": found.own}
    facts = {"items": items, "scales": scales}
    return Measurement("winners in the whole model", None, n=len(items), seed=0, arrays=arrays, facts=facts)
