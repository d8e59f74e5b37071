"""A miniature third paper, through the api alone: which heads match prefixes (Olsson et al. 2022, section on heads)."""

from __future__ import annotations

import numpy as np
from circuit_claims.api import (
    Finding,
    HeadMap,
    Interval,
    Measurement,
    NullDistribution,
    PatternPanel,
    Patterns,
    cluster_means,
    maximum_null,
    measure,
    network_of,
    percentile_interval,
    permutation_p_value,
    planted_induction,
    prefix_matching_scores,
)

DRAWS, UNTRAINED = 500, 20


def head_scores(network, rows: int, period: int, seed: int) -> np.ndarray:
    """Prefix matching on repeated random tokens, (row, layer, head)."""
    import torch

    tokens = network.repeated_tokens(rows, period, torch.Generator().manual_seed(seed))
    return prefix_matching_scores(network.patterns(tokens), period).numpy()


@measure
def matching(subject, *, weights: str = "trained", rows: int = 16, period: int = 24, seed: int = 0) -> Measurement:
    """The best head's prefix matching: chosen on half of the rows, measured on the others, those redrawn."""
    scores = head_scores(network_of(subject, weights=weights, seed=seed), rows, period, seed)
    return best_head(scores, weights, seed)


@measure
def matching_before_training(subject, *, rows: int = 16, period: int = 24) -> Measurement:
    """The best head's prefix matching in untrained networks of the subject's shape: what chance gives the best."""
    networks = (network_of(subject, weights="untrained", seed=seed) for seed in range(UNTRAINED))
    means = np.stack([head_scores(network, rows, period, seed).mean(0) for seed, network in enumerate(networks)])
    null = maximum_null(means)
    return Measurement("best prefix matching, untrained", float(null.mean()), n=UNTRAINED, arrays={"null": null})


def best_head(scores: np.ndarray, weights: str, seed: int) -> Measurement:
    """The head that leads on even rows, on the odd ones."""
    chosen, held_out = scores[::2].mean(0), scores[1::2]
    layer, head = np.unravel_index(chosen.argmax(), chosen.shape)
    drawn = cluster_means(held_out[:, layer, head], np.arange(len(held_out)), DRAWS, np.random.default_rng(seed))
    interval: Interval = percentile_interval(drawn, f"bootstrap over {len(held_out)} rows, {DRAWS} draws")
    return Measurement(
        f"prefix matching of the best head, {weights}", float(held_out[:, layer, head].mean()), interval,
        n=len(held_out), seed=seed, arrays={"scores": scores.mean(0)}, facts={"head": [int(layer), int(head)]},
    )  # fmt: skip


def induction(subject) -> Finding:
    """The subject's best head; an untrained network must fail, a planted induction head of the same tokens pass."""
    null = matching_before_training(subject).arrays["null"]
    best = matching(subject)
    judged = best.derive(best.quantity, best.value, interval=best.interval, arrays=dict(best.arrays),
                         facts=dict(best.facts), p_value=permutation_p_value(float(best.value), null))  # fmt: skip
    network = network_of(subject)

    def planted() -> Measurement:
        copy = network_of(planted_induction(network.d_vocab, n_ctx=64))
        return best_head(head_scores(copy, rows=16, period=24, seed=0), "planted", 0)

    return Finding(judged, {"untrained weights": lambda: matching(subject, weights="untrained"), "planted": planted})


def shown(subject) -> list:
    """Every head on a map, the null of the maximum, and where the best head looks on a repeated sequence."""
    import torch

    best, null = matching(subject), matching_before_training(subject)
    layer, head = best.facts["head"]
    network = network_of(subject)
    tokens = network.repeated_tokens(1, 6, torch.Generator().manual_seed(1))
    panel = PatternPanel(
        name=f"L{layer}H{head}", tokens=[str(token) for token in tokens[0].tolist()],
        rows=network.patterns(tokens)[0, layer, head].tolist(),
    )  # fmt: skip
    return [
        HeadMap(title="Prefix matching of every head", values=best.arrays["scores"], mark=[(layer, head)], vmin=0),
        NullDistribution(title="Best of all heads, untrained", values=null.arrays["null"], observed=best.value),
        Patterns(title="Where the best head looks", panels=[panel]),
    ]
