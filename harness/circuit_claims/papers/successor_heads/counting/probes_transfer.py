"""What probes of the index do on tokens they never saw (Gould et al. 2024, section 3): SH-10, SH-11, SH-12.

A probe learns from number tokens (or whatever has multi-digit indices) and is asked for the other tasks and Roman
numerals. Seeds give the spread of training, tokens that of the test: intervals are bootstraps over both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.api import Measurement, percentile_band, percentile_interval
from circuit_claims.heads.probes import Probes
from circuit_claims.papers.successor_heads.counting import known
from circuit_claims.papers.successor_heads.counting.features import ModalFeatures
from circuit_claims.papers.successor_heads.counting.moduli import DRAWS, over_probes


@dataclass(frozen=True)
class Asked:
    """Tokens a probe is asked about: their vectors, indices, spellings and tasks."""

    vectors: Float[Tensor, "n d_model"]
    index: Int[np.ndarray, " n"]
    texts: tuple[str, ...]
    tasks: tuple[str, ...]

    def correct(self, probes: Probes, modulus: int) -> Bool[np.ndarray, "seed n"]:
        """Which tokens each seed's probe gives the right residue."""
        return probes.predictions(self.vectors, modulus) == self.index % modulus


def out_of_distribution(probes: Probes, asked: Asked, modulus: int = 10, *, seed: int = 0) -> Measurement:
    """Share of the tokens whose residue the probes get right (SH-10: 94 of 102), and which they get wrong.

    `facts["failures"]` are the tokens that at least half of the seeds' probes get wrong, `facts["right"]` the number
    got right by a probe on average, `facts["by task"]` right and asked for each task. A token of two tasks ("V") is
    asked twice.
    """
    right = asked.correct(probes, modulus)
    means = _two_way(right, seed)
    wrong = np.flatnonzero(right.mean(0) <= 0.5)
    tasks = np.array(asked.tasks)
    return Measurement(
        f"share right out of distribution, mod {modulus}",
        float(right.mean()),
        percentile_interval(means, f"{DRAWS:,} bootstrap draws over {len(right)} probes and {right.shape[1]} tokens"),
        unit="share of tokens",
        n=right.shape[1],
        seed=seed,
        arrays={"right": right.mean(0)},
        facts={
            "right": float(right.sum(1).mean()),
            "failures": [f"{asked.texts[at].strip()} ({asked.tasks[at]})" for at in wrong],
            "by task": {
                name: [float(right[:, tasks == name].sum(1).mean()), int((tasks == name).sum())]
                for name in dict.fromkeys(asked.tasks)
            },
        },
    )


def successes_in_task(probes: Probes, asked: Asked, task: str, modulus: int, *, seed: int = 0) -> Measurement:
    """How many of a task's tokens a probe gets right, on average (SH-12: 0 of 7 days mod 7, 8 of 12 months mod 12)."""
    in_task = np.array(asked.tasks) == task
    if not in_task.any():
        known = ", ".join(dict.fromkeys(asked.tasks))
        raise ValueError(f"task to ask probes about: expected one of {known}, found {task!r}")
    counts = asked.correct(probes, modulus)[:, in_task].sum(1)
    return Measurement(
        f"{task} right, mod {modulus}",
        float(counts.mean()),
        over_probes(counts, int(in_task.sum())),
        unit=f"of {int(in_task.sum())} tokens",
        n=int(in_task.sum()),
        seed=seed,
        redrawn={"probes": len(counts)},
        arrays={"right": counts},
        facts={"chance": float(in_task.sum() / modulus)},
    )


def modulus_of_the_probes(
    probes: Probes,
    asked: Asked,
    own: Float[Tensor, "m d_model"],
    own_index: Int[np.ndarray, " m"],
    *,
    seed: int = 0,
) -> Measurement:
    """The modulus whose probes are right most often out of distribution (SH-12), with the share of draws it came first.

    `own` are the vectors the probes were trained on: `within` is their accuracy on the rows left out, `drop` within
    less outside. Arrays have one row a modulus, in the order of `facts["moduli"]`; intervals are over tokens and
    probes. `facts["least drop"]` is the modulus that loses least among those clearly better than chance within.
    """
    right = np.stack([asked.correct(probes, modulus) for modulus in probes.moduli])  # (modulus, seed, n)
    left_out = probes.held_out(len(own))
    within = np.array([_within(probes, own, own_index, left_out, modulus) for modulus in probes.moduli])
    draws = np.stack([_two_way(each, seed) for each in right])  # (modulus, draw): the same draws for every modulus
    outside, chance = right.mean((1, 2)), 1 / np.array(probes.moduli)
    first = np.bincount(draws.argmax(0), minlength=len(right)) / draws.shape[1]
    learned = within > np.minimum(2 * chance, (1 + chance) / 2)
    drop = within - outside
    best = probes.moduli[int(outside.argmax())]
    least = probes.moduli[int(np.where(learned, drop, np.inf).argmin())] if learned.any() else None
    return Measurement(
        "modulus with the best probe out of distribution",
        str(best),
        support={str(modulus): float(share) for modulus, share in zip(probes.moduli, first, strict=True) if share > 0},
        n=right.shape[2],
        seed=seed,
        arrays={
            "within": within,
            "outside": outside,
            "outside_interval": np.stack(percentile_band(draws.T), axis=1),
            "drop": drop,
            "chance": chance,
        },
        facts={"moduli": list(probes.moduli), "least drop": least, "probes": right.shape[1]},
    )


def _within(probes: Probes, own: Tensor, index: np.ndarray, left_out: np.ndarray, modulus: int) -> float:
    return float((probes.predictions(own, modulus) == index % modulus)[left_out].mean())


def rows_against_features(probes: Probes, modal: ModalFeatures, *, modulus: int = 10, seed: int = 0) -> Measurement:
    """Mean cosine of the probe's rows P_i with the features f_i (SH-11: 0.70764), probes and autoencoders drawn anew.

    `facts["mismatched"]` is the mean cosine of P_i with f_j, j different from i: what any row has with any feature.
    Arrays `without/autoencoders` and `without/probes` hold the cosines with each of them left out.
    """
    rows = probes.weights[:, probes.columns(modulus)]
    rows = _unit(rows - rows.mean(1, keepdim=True)).float()  # (probe, residue, d_model)
    features = modal.directions.float()  # (run, residue, d_model)
    present = torch.from_numpy((modal.feature >= 0).any(0))
    if not present.any():
        raise ValueError("rows against features: expected tokens with a most important feature, found none")
    table = _cosines(rows.mean(0), features.mean(0))
    off = table[~torch.eye(len(table), dtype=torch.bool) & present[None]]
    without = {
        "autoencoders": _cosines(rows.mean(0), _each_left_out(features)).numpy(),
        "probes": _cosines(_each_left_out(rows), features.mean(0)).numpy(),
    }
    measured = known.cosine_of(table.numpy(), without, present.numpy())
    return replace(
        measured,
        seed=seed,
        arrays={"cosine": table.numpy(), **{f"without/{name}": each for name, each in without.items()}},
        facts={**measured.facts, "mismatched": float(off.mean()) if len(off) else None},
    )


def planted_at(probes: Probes, modal: ModalFeatures, cosine: float, modulus: int = 10) -> ModalFeatures:
    """The same features turned so that each has this cosine with its row of the probes; what is left of it stays."""
    rows = probes.weights[:, probes.columns(modulus)]
    towards = _unit(_unit(rows - rows.mean(1, keepdim=True)).float().mean(0))  # (residue, d_model)
    beside = modal.directions.float()
    beside = _unit(beside - (beside * towards).sum(-1, keepdim=True) * towards)
    return replace(modal, directions=cosine * towards + (1 - cosine**2) ** 0.5 * beside)


def _cosines(
    rows: Float[Tensor, "*unit residue d_model"], features: Float[Tensor, "*unit residue d_model"]
) -> Float[Tensor, "*unit residue residue"]:
    return _unit(rows) @ _unit(features).mT


def _unit(vectors: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _each_left_out(parts: Float[Tensor, "k residue d_model"]) -> Float[Tensor, "k residue d_model"]:
    """Sums over all parts but one, for each; their directions are those of the means."""
    return parts.sum(0) - parts


def _two_way(right: np.ndarray, seed: int) -> Float[np.ndarray, " draw"]:
    """Mean of a table in bootstrap draws over its rows (seeds) and its columns (tokens), both drawn anew."""
    generator = np.random.default_rng(seed)
    rows, columns = (
        np.stack([np.bincount(draw, minlength=size) for draw in generator.integers(0, size, (DRAWS, size))]) / size
        for size in right.shape
    )
    return ((rows @ right) * columns).sum(1)
