"""How many tokens that end alike share their most important feature (SH-14): as measured, and redrawn.

The feature of a residue is found once in each run, as the paper finds f_i. Runs of the autoencoder and strings (all
tokens of one spelling) are then drawn anew, strings within their residue: the paper names the residues, and each has
its ten numbers.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from circuit_claims.api import Measurement, bootstrap_counts, percentile_interval, stratified_counts
from circuit_claims.papers.successor_heads.counting.moduli import QUICK
from circuit_claims.papers.successor_heads.counting.tokens import NOBODY


def covered_by_mode(
    feature: Int[np.ndarray, "run token"], residue: Int[np.ndarray, " token"]
) -> Bool[np.ndarray, "run token"]:
    """Which tokens have, in each run, the most important feature that is commonest among those of their residue.

    Tokens without a most important feature (`NOBODY`) are not covered.
    """
    runs, residues = len(feature), int(residue.max()) + 1
    names, places = np.unique(feature, return_inverse=True)
    places = places.reshape(feature.shape)
    cells = (np.arange(runs)[:, None] * residues + residue) * len(names) + places
    has = feature != NOBODY
    counts = np.bincount(cells[has], minlength=runs * residues * len(names)).reshape(runs, residues, len(names))
    return has & (places == counts.argmax(2)[:, residue])


def coverage_of(
    feature: Int[np.ndarray, "run token"],
    residue: Int[np.ndarray, " token"],
    string: Int[np.ndarray, " token"],
    generator: np.random.Generator,
    draws: int = QUICK,
) -> Measurement:
    """SH-14: the mean over residues of the share of their tokens that are covered, the mean over runs.

    A residue none of whose tokens has a most important feature in any run is left out. `string` numbers spellings.
    Raises `ValueError` where no token has one.
    """
    has = (feature != NOBODY).any(0)
    present = np.isin(residue, residue[has])
    if not present.any():
        raise ValueError("modal coverage: expected tokens with a most important feature, found none")
    covered, kept = covered_by_mode(feature, residue)[:, present], residue[present]
    # Forms of one string move together; a string stands in one residue.
    names, first, places = np.unique(string[present], return_index=True, return_inverse=True)
    member = (places[:, None] == np.arange(len(names))).astype(np.float64)  # (token, string)
    strata = kept[first]
    runs = bootstrap_counts(len(feature), draws, generator) / len(feature)
    weights = stratified_counts(strata, draws, generator)
    by_string = covered @ member  # (run, string)
    class_of = (strata[:, None] == np.unique(strata)).astype(np.float64)  # (string, residue)
    hits = (runs @ by_string * weights) @ class_of
    means = (hits / (weights * member.sum(0) @ class_of)).mean(1)
    value = (by_string.mean(0) @ class_of / (member.sum(0) @ class_of)).mean()
    method = f"{draws:,} bootstrap draws over {len(feature)} autoencoders and {len(names)} strings within residues"
    return Measurement(
        "mean modal coverage",
        float(value),
        percentile_interval(means, method, redrawn=min(len(feature), len(names))),
        unit="share of tokens",
        n=len(names),
        redrawn={"strings": len(names), "autoencoders": len(feature)},
    )
