"""Which features of an autoencoder a head counts by (Gould et al. 2024, section 3): SH-14, and the f_i of SH-11.

The most important feature of a token is the one whose removal from the reconstruction lowers the probability of its
successor most, with the head's logits W_U W_OV(.). f_i is the most common of these over {i, 10 + i, ..., 90 + i}.

A feature that is on for every number is the most important one of many: coverage alone says little. The same count
with shuffled indices stands beside it, and how many of the ten features are different ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.api import Measurement
from circuit_claims.heads.autoencoders.training import Autoencoders
from circuit_claims.heads.ov_circuit import fold_layer, weighed_readout
from circuit_claims.models.architectures.layers import CircuitWeights, Layer, Projection
from circuit_claims.papers.successor_heads.counting.coverage import coverage_of
from circuit_claims.papers.successor_heads.counting.moduli import DRAWS
from circuit_claims.papers.successor_heads.counting.tokens import NOBODY

ROWS_AT_ONCE = 4096

Logits = Callable[[Tensor], Tensor]
"""Logits (n, c) of a fixed list of candidates from vectors (n, d_model)."""


def head_logits(weights: CircuitWeights, head: tuple[int, int], candidates: Int[Tensor, " c"]) -> Logits:
    """Logits of `candidates` that one head (layer, head) gives to what it reads: W_U W_OV(.), with the model's norms.

    Everything is read once, and candidates go through W_O once: a vector costs d_head a candidate. Raises
    `UnknownToken` for an id outside the vocabulary.
    """
    layer, norm = one_head(weights.layer(head[0]), head[1]), weights.final_norm
    readout, shift = weighed_readout(norm, weights.unembed(candidates))
    folded = fold_layer(layer, norm, readout)

    def logits(x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n c"]:
        value = layer.by_head(layer.values(layer.norm(x)))  # (1, n, d_head)
        return (value / folded.scale(value) @ folded.readout)[0] + shift

    return logits


def one_head(layer: Layer, head: int) -> Layer:
    """The layer with one of its heads only."""
    d_head = layer.out.shape[1] // layer.n_heads
    kv_head = head // (layer.n_heads // layer.n_kv_heads)
    own_rows = slice(kv_head * d_head, (kv_head + 1) * d_head)
    bias = None if layer.value.bias is None else layer.value.bias[own_rows]
    value = Projection(layer.value.weight[own_rows], bias)
    out = layer.out[:, head * d_head : (head + 1) * d_head]
    return replace(layer, n_heads=1, n_kv_heads=1, value=value, out=out)


def successor_probability(logits: Float[Tensor, "n c"], successors: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Probability of each row's successor (a column) among the candidates; 0 where it is nobody."""
    chosen = logits.softmax(1).gather(1, successors.clamp_min(0)[:, None])[:, 0]
    return chosen * (successors != NOBODY)


@dataclass(frozen=True)
class Important:
    """The most important feature of each token in each run; `NOBODY` where no removal lowers the probability.

    `drop` is by how much, `kept` the successor's probability with the whole reconstruction.
    """

    feature: Int[np.ndarray, "seed n"]
    drop: Float[np.ndarray, "seed n"]
    kept: Float[np.ndarray, "seed n"]


def most_important_features(
    runs: Autoencoders, vectors: Float[Tensor, "n d_model"], successors: Int[Tensor, " n"], logits: Logits
) -> Important:
    """The most important feature of each of `vectors` in each run.

    `successors[t]` is the column of `logits` that belongs to t's successor, `NOBODY` where it has none. The paper does
    not say among which tokens the probability is taken: here among the candidates of `logits`.
    """
    features = runs.features()  # (seed, feature, d_model)
    found = []
    for seed, codes in enumerate(_codes_by_run(runs, vectors)):
        whole = _one(runs, seed).reconstruct(codes[None])[0]
        found.append(_importance(codes, whole, features[seed], successors, logits))
    feature, drop, kept = (np.stack(part) for part in zip(*found, strict=True))
    return Important(feature, drop, kept)


def _codes_by_run(runs: Autoencoders, vectors: Tensor) -> list[Tensor]:
    return [_one(runs, seed).codes(vectors)[0] for seed in range(len(runs.seeds))]


def _one(runs: Autoencoders, row: int) -> Autoencoders:
    """One of the runs, as runs of one."""
    names = ("encoder", "decoder", "encoder_bias", "decoder_bias", "centre", "scale", "trained", "alive")
    return replace(
        runs, seeds=runs.seeds[row : row + 1], **{name: getattr(runs, name)[row : row + 1] for name in names}
    )


def _importance(
    codes: Float[Tensor, "n feature"],
    whole: Float[Tensor, "n d_model"],
    features: Float[Tensor, "feature d_model"],
    successors: Int[Tensor, " n"],
    logits: Logits,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Feature, drop and probability of each token in one run. Only active features have anything to remove."""
    kept = successor_probability(logits(whole), successors)
    active = codes * (successors != NOBODY)[:, None]
    token, feature = active.nonzero(as_tuple=True)
    left = torch.empty(len(token))
    for rows in torch.arange(len(token)).split(ROWS_AT_ONCE):
        t, f = token[rows], feature[rows]
        left[rows] = successor_probability(logits(whole[t] - codes[t, f, None] * features[f]), successors[t])
    drops = torch.zeros_like(codes)
    drops[token, feature] = kept[token] - left
    drop, best = drops.max(1)
    return np.where(drop > 0, best, NOBODY), drop.clamp_min(0).numpy(), kept.numpy()


@dataclass(frozen=True)
class ModalFeatures:
    """For each run and residue: the feature that is most important to most tokens of the residue.

    `coverage` is the share of the residue's tokens it is most important to, `strength` its mean contribution to them
    in the model's units, `directions` unit vectors. A residue without tokens has feature `NOBODY` and no coverage.
    """

    feature: Int[np.ndarray, "seed residue"]
    coverage: Float[np.ndarray, "seed residue"]
    strength: Float[np.ndarray, "seed residue"]
    directions: Float[Tensor, "seed residue d_model"]

    @property
    def distinct(self) -> Float[np.ndarray, " seed"]:
        """How many different features each run's residues have, over how many residues."""
        return np.array([len(set(row[row != NOBODY])) / max((row != NOBODY).sum(), 1) for row in self.feature])


def modal_features(
    runs: Autoencoders,
    vectors: Float[Tensor, "n d_model"],
    important: Important,
    residues: Int[np.ndarray, " n"],
    modulus: int = 10,
) -> ModalFeatures:
    """The modal most important feature of every residue class in every run.

    `residues` are the tokens' classes 0 to modulus - 1, `NOBODY` for tokens that take no part (the paper counts the
    numbers 0 to 99). Ties go to the feature with the greater sum of drops. Tokens without a most important feature
    count as not covered.
    """
    seeds = len(runs.seeds)
    feature = np.full((seeds, modulus), NOBODY)
    coverage, strength = np.zeros((seeds, modulus)), np.zeros((seeds, modulus))
    unit = runs.decoder / runs.decoder.norm(dim=2, keepdim=True)
    lengths = runs.features().norm(dim=2).numpy()
    directions = torch.zeros(seeds, modulus, vectors.shape[1])
    for seed, codes in enumerate(_codes_by_run(runs, vectors)):
        for residue in range(modulus):
            members = np.flatnonzero(residues == residue)
            best = _mode(important.feature[seed, members], important.drop[seed, members])
            if best == NOBODY:
                continue
            feature[seed, residue] = best
            coverage[seed, residue] = (important.feature[seed, members] == best).mean()
            strength[seed, residue] = float(codes[members, best].mean()) * lengths[seed, best]
            directions[seed, residue] = unit[seed, best]
    return ModalFeatures(feature, coverage, strength, directions)


def _mode(features: np.ndarray, drops: np.ndarray) -> int:
    kept = features != NOBODY
    if not kept.any():
        return NOBODY
    names, places = np.unique(features[kept], return_inverse=True)
    counts = np.bincount(places)
    sums = np.bincount(places, weights=drops[kept])
    return int(names[max(range(len(names)), key=lambda at: (counts[at], sums[at]))])


def mod_ten_features(modal: ModalFeatures) -> Float[Tensor, "residue d_model"]:
    """f_0 to f_9: for each residue the mean over runs of the modal features' directions, of length 1.

    A feature counted for two residues (one that is on for all numbers) is the same direction in both.
    """
    mean = modal.directions.sum(0)
    return mean / mean.norm(dim=1, keepdim=True).clamp_min(1e-12)


def random_features(
    runs: Autoencoders, modal: ModalFeatures, generator: torch.Generator
) -> Float[Tensor, "residue d_model"]:
    """The control of `mod_ten_features`: other living features of one of the runs, of the same length 1."""
    row = int(torch.randint(len(runs.seeds), (), generator=generator))
    others = [at for at in runs.alive[row].nonzero()[:, 0].tolist() if at not in set(modal.feature[row])]
    count = modal.feature.shape[1]
    if len(others) < count:
        raise ValueError(
            f"random features: expected {count} living features beside the modal ones\n  found {len(others)}"
        )
    chosen = torch.tensor(others)[torch.randperm(len(others), generator=generator)[:count]]
    rows = runs.decoder[row, chosen]
    return rows / rows.norm(dim=1, keepdim=True)


def logits_of_features(directions: Float[Tensor, "feature d_model"], logits: Logits) -> Float[np.ndarray, "c feature"]:
    """What the head makes of each feature alone: candidates x features, each feature's mean taken off.

    The paper's figure: the candidates are numbers in order, and bands ten apart are seen.
    """
    table = logits(directions)  # (feature, c)
    return (table - table.mean(1, keepdim=True)).T.numpy()


def modal_coverage(
    important: Important,
    modal: ModalFeatures,
    residues: Int[np.ndarray, " n"],
    string: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> Measurement:
    """Mean over residues of the modal coverage (SH-14), autoencoders and strings drawn anew.

    `residues` as in `modal_features`, `string` numbers the spellings of the same tokens. Raises `ValueError` where no
    token has a most important feature.
    """
    counted = residues != NOBODY
    generator = np.random.default_rng(seed)
    return replace(
        coverage_of(important.feature[:, counted], residues[counted], string[counted], generator, DRAWS),
        seed=seed,
        arrays={"coverage": modal.coverage, "feature": modal.feature, "strength": modal.strength},
        facts={"distinct features": float(modal.distinct.mean())},
    )
