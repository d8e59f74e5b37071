"""Features, their rows and their neurons where the answer is known, from the arrays of the stored tables (SH-11, SH-13,
SH-14).

False: features handed to other residues; the residues of the tokens dealt out anew; the indices of the tokens dealt
out anew. True: features at the paper's cosine to the probe's rows (made where they are measured); tokens of which the
paper's share have their residue's own feature; neurons that are functions of the index mod ten.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import Measurement, percentile_interval
from circuit_claims.papers.successor_heads.counting.moduli import coverage_over_runs

NOBODY = -1
DRAWS = 400
"""Bootstrap draws over probes and runs."""


def cosine_of(
    cosine: Float[np.ndarray, "residue residue"],
    drawn: Float[np.ndarray, "draw residue residue"],
    present: np.ndarray,
    over: str,
) -> Measurement:
    """Mean cosine of probe row P_i and feature f_i, from those of every row with every feature; `over`: what is drawn.

    `present` says which residues have a feature.
    """
    rows = np.flatnonzero(present)
    interval = percentile_interval(drawn[:, rows, rows].mean(1), f"{len(drawn):,} bootstrap draws over {over}")
    value = float(cosine[rows, rows].mean())
    return Measurement("mean cosine of P_i and f_i", value, interval, unit="cosine", n=len(rows))


def features_exchanged(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-11 with the features handed to other residues, one to each: every row and every feature stays.

    Only residues that have a feature take part, and none keeps its own.
    """
    present = np.flatnonzero((table.arrays["feature"] >= 0).any(0))
    turned = present.copy()
    while len(present) > 1 and (turned == present).any():
        turned = generator.permutation(present)
    cosine = table.arrays["rows/cosine"][np.ix_(present, turned)]
    drawn = table.arrays["rows/drawn"][:, present][:, :, turned]
    return cosine_of(cosine, drawn, np.ones(len(present), dtype=bool), "probes and runs")


def coverage_by_run(
    feature: Int[np.ndarray, "run token"], residue: Int[np.ndarray, " token"]
) -> Float[np.ndarray, " run"]:
    """Mean over residues of the share of their tokens whose most important feature is the commonest one among them.

    Tokens without a most important feature (`NOBODY`) are not covered; a residue none of whose tokens has one in any
    run is left out, as in `modal_coverage`.
    """
    runs, residues = len(feature), int(residue.max()) + 1
    places = np.unique(feature, return_inverse=True)[1].reshape(feature.shape)
    names = int(places.max()) + 1
    cells = (np.arange(runs)[:, None] * residues + residue) * names + places
    has = feature != NOBODY
    counts = np.bincount(cells[has], minlength=runs * residues * names).reshape(runs, residues, names)
    most = counts.max(2) / np.maximum(np.bincount(residue, minlength=residues), 1)
    return most[:, (counts > 0).any((0, 2))].mean(1)


def residues_shuffled(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-14 with the residues of the tokens dealt out anew: every token keeps its most important features."""
    feature, residue = table.arrays["values/feature"], table.arrays["values/residue"]
    return coverage_over_runs(coverage_by_run(feature, generator.permutation(residue)), generator, DRAWS)


def own_feature_of_each(table: Measurement, share: float, generator: np.random.Generator) -> Measurement:
    """SH-14 where this share of each residue's tokens, in each run, have a feature that is theirs alone."""
    feature, residue = table.arrays["values/feature"].copy(), table.arrays["values/residue"]
    own = generator.random(feature.shape) < share
    feature[own] = (feature.max() + 1 + np.broadcast_to(residue, feature.shape))[own]
    return coverage_over_runs(coverage_by_run(feature, residue), generator, DRAWS)


def indices_shuffled(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-13 with the indices of the tokens dealt out anew: which neurons matter, and what they do, stays."""
    return _voted(table, generator.permutation(table.arrays["named/curves"]))


def functions_of_the_index(table: Measurement, generator: np.random.Generator, period: int = 10) -> Measurement:
    """SH-13 where each neuron is a function of the index mod `period`, made of as many of its own values."""
    curves, positions = table.arrays["named/curves"], table.arrays["positions"]
    values = generator.permuted(curves, axis=0)[:period]
    return _voted(table, values[positions % period])


def _voted(table: Measurement, curves: Float[np.ndarray, "position neuron"]) -> Measurement:
    # Costs what collecting the claims should not.
    from circuit_claims.papers.successor_heads.counting.neurons import votes_on

    least = float(table.facts["least explained"])
    found = votes_on(table.arrays["positions"], curves, table.arrays["named/ranked"], least)
    return period_as_label(found)


def period_as_label(found: Measurement) -> Measurement:
    """SH-13's period as the label that the claim names."""
    return replace(found, value=str(int(found.value or 0)))
