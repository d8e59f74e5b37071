"""Features, their rows and their neurons where the answer is known, from the arrays of the stored tables (SH-11, SH-13,
SH-14).

False: features handed to other residues; the residues of the strings dealt out anew; the indices of the strings dealt
out anew. True: features at the paper's cosine to the probe's rows (made where they are measured); strings of which the
paper's share have their residue's own feature; neurons that are functions of the index mod ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import Measurement, jackknife_interval
from circuit_claims.papers.successor_heads.counting.coverage import coverage_of


def cosine_of(
    cosine: Float[np.ndarray, "residue residue"],
    without: Mapping[str, Float[np.ndarray, "unit residue residue"]],
    present: np.ndarray,
) -> Measurement:
    """Mean cosine of probe row P_i and feature f_i, as many autoencoders and probes would give it.

    `cosine` has those of every row with every feature, `without` the same with one autoencoder, or one probe, left out;
    `present` says which residues have a feature. Fact `as found`: the mean cosine of those there are.
    """
    rows = np.flatnonzero(present)
    found = float(cosine[rows, rows].mean())
    value, interval = jackknife_interval(found, [each[:, rows, rows].mean(1) for each in without.values()])
    method = interval.method.replace("units", " and ".join(without))
    return Measurement(
        "mean cosine of P_i and f_i",
        value,
        replace(interval, method=method),
        unit="cosine",
        n=len(rows),
        redrawn={name: len(each) for name, each in without.items()},
        facts={"as found": found},
    )


def left_out(table: Measurement) -> dict[str, Float[np.ndarray, "unit residue residue"]]:
    """The cosines of a stored table with one autoencoder, or one probe, left out."""
    return {name: table.arrays[f"rows/without/{name}"] for name in ("autoencoders", "probes")}


def features_exchanged(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-11 with the features handed to other residues, one to each: every row and every feature stays.

    Only residues that have a feature take part, and none keeps its own.
    """
    present = np.flatnonzero((table.arrays["feature"] >= 0).any(0))
    turned = present.copy()
    while len(present) > 1 and (turned == present).any():
        turned = generator.permutation(present)
    cosine = table.arrays["rows/cosine"][np.ix_(present, turned)]
    without = {name: each[:, present][:, :, turned] for name, each in left_out(table).items()}
    return cosine_of(cosine, without, np.ones(len(present), dtype=bool))


def residues_of_others(
    residue: Int[np.ndarray, " token"], string: Int[np.ndarray, " token"], generator: np.random.Generator
) -> Int[np.ndarray, " token"]:
    """Residues dealt out anew to the strings that have them; forms of one string stay alike."""
    _, first, places = np.unique(string, return_index=True, return_inverse=True)
    return generator.permutation(residue[first])[places]


def residues_shuffled(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-14 with the residues of the strings dealt out anew: every token keeps its most important features."""
    feature, residue, string = (table.arrays[f"values/{name}"] for name in ("feature", "residue", "string"))
    return coverage_of(feature, residues_of_others(residue, string, generator), string, generator)


def own_feature_of_each(table: Measurement, share: float, generator: np.random.Generator) -> Measurement:
    """SH-14 where this share of each residue's strings, in each run, have a feature that is theirs alone."""
    residue, string = table.arrays["values/residue"], table.arrays["values/string"]
    feature, places = table.arrays["values/feature"].copy(), np.unique(string, return_inverse=True)[1]
    own = (generator.random((len(feature), places.max() + 1)) < share)[:, places]
    feature[own] = (feature.max() + 1 + np.broadcast_to(residue, feature.shape))[own]
    return coverage_of(feature, residue, string, generator)


def indices_shuffled(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-13 with the indices of the strings dealt out anew: which neurons matter, and what they do, stays."""
    order = generator.permutation(len(table.arrays["positions"]))
    return _voted(table, table.arrays["named/curves"][order], table.arrays["named/weights"][:, order])


def functions_of_the_index(table: Measurement, generator: np.random.Generator, period: int = 10) -> Measurement:
    """SH-13 where each neuron is a function of the index mod `period`, made of as many of its own values."""
    curves, positions = table.arrays["named/curves"], table.arrays["positions"]
    values = generator.permuted(curves, axis=0)[:period]
    return _voted(table, values[positions % period], table.arrays["named/weights"])


def _voted(
    table: Measurement, curves: Float[np.ndarray, "position neuron"], weights: Int[np.ndarray, "draw position"]
) -> Measurement:
    # Costs what collecting the claims should not.
    from circuit_claims.papers.successor_heads.counting.neurons import votes_on

    least = float(table.facts["least explained"])
    return period_as_label(votes_on(table.arrays["positions"], curves, table.arrays["named/ranked"], least, weights))


def period_as_label(found: Measurement) -> Measurement:
    """SH-13's period as the label that the claim names."""
    return replace(found, value=str(int(found.value or 0)))
