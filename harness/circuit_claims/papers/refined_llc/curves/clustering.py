"""Do curves of coefficients, clustered without their labels, give the head types? By every method the authors compared.

k-means of scikit-learn and of tslearn, euclidean, dynamic time warping, k-shape and hierarchical; each layer by itself
or both; curves as they are or scaled to mean 0 and variance 1 (Wang et al. 2025, section 4.1 and the reproducibility
record). Agreement with the types is the adjusted Rand index: 1 for the same partition, 0 on average by chance.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.api import Interval, Measurement, percentile_interval
from circuit_claims.papers.refined_llc.curves import tables as ct

Method = Literal["k-means, sklearn", "k-means, tslearn", "k-means, DTW", "k-shape", "hierarchical"]
METHODS: tuple[Method, ...] = (
    "k-means, sklearn", "k-means, tslearn", "k-means, DTW", "k-shape", "hierarchical",
)  # fmt: skip
FLAT = 1e-12
CLUSTERINGS, FEWER = 100, 20


@dataclass(frozen=True)
class Clustering:
    """How curves were clustered, each one's cluster, and the adjusted Rand index with the types."""

    method: Method
    scaled: bool
    heads: tuple[str, ...]
    clusters: tuple[int, ...]
    agreement: float

    @property
    def label(self) -> str:
        """The method in words."""
        return self.method + (", scaled" if self.scaled else "")


def cluster(curves: Float[np.ndarray, "head step"], k: int, method: Method, seed: int = 0) -> Int[np.ndarray, " head"]:
    """A cluster number for each curve. Raises ValueError for an unknown method or more clusters than curves.

    >>> cluster(np.array([[0.0, 1.0], [0.0, 1.1], [5.0, 9.0]]), 2, "hierarchical").tolist()
    [0, 0, 1]
    """
    if method not in METHODS or not 1 <= k <= len(curves):
        raise ValueError(
            f"clustering: expected one of {', '.join(METHODS)} and 1 to {len(curves)} clusters, found {method!r}, {k}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few distinct curves: fewer clusters than asked for come back, and are counted
        return renumbered(_fit(curves, k, method, seed))


def _fit(curves: np.ndarray, k: int, method: Method, seed: int) -> Any:
    if method == "k-means, sklearn":
        from sklearn.cluster import KMeans

        starts: Any = 10  # the library's annotation knows "auto" alone
        return KMeans(k, n_init=starts, random_state=seed).fit_predict(curves)
    if method == "hierarchical":
        from sklearn.cluster import AgglomerativeClustering

        return AgglomerativeClustering(k, linkage="ward").fit_predict(curves)
    if method == "k-shape":
        from tslearn.clustering import KShape

        return KShape(k, n_init=3, random_state=seed).fit_predict(scaled(curves)[..., None])
    from tslearn.clustering import TimeSeriesKMeans

    metric = "dtw" if "DTW" in method else "euclidean"
    return TimeSeriesKMeans(k, metric=metric, n_init=3, random_state=seed).fit_predict(curves[..., None])


def renumbered(labels: Sequence[int] | np.ndarray) -> Int[np.ndarray, " head"]:
    """The same partition with clusters numbered in the order in which they first come.

    >>> renumbered([7, 3, 7]).tolist()
    [0, 1, 0]
    """
    order = {label: number for number, label in enumerate(dict.fromkeys(int(label) for label in labels))}
    return np.array([order[int(label)] for label in labels])


def scaled(curves: Float[np.ndarray, "head step"]) -> Float[np.ndarray, "head step"]:
    """Each curve with mean 0 and variance 1; a flat one with zeros."""
    spread = curves.std(axis=1, keepdims=True)
    return (curves - curves.mean(axis=1, keepdims=True)) / np.where(spread > FLAT, spread, 1.0)


def adjusted_rand(first: Sequence[object] | np.ndarray, second: Sequence[object] | np.ndarray) -> float:
    """Hubert and Arabie's (1985) agreement of two partitions, in whatever labels.

    >>> adjusted_rand(["a", "a", "b"], [1, 1, 0])
    1.0
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score([str(item) for item in first], [str(item) for item in second]))


def compare_methods(
    curves: Float[np.ndarray, "head step"], heads: Sequence[str], types: Sequence[str], k: int, seed: int = 0
) -> list[Clustering]:
    """Every method, with and without scaling, against the types."""
    found = []
    for method in METHODS:
        for scale in (False, True):
            clusters = cluster(scaled(curves) if scale else curves, k, method, seed)
            agreement = adjusted_rand(types, clusters)
            found.append(Clustering(method, scale, tuple(heads), tuple(clusters.tolist()), agreement))
    return found


def methods_compared(
    curves: Float[np.ndarray, "head step"], heads: Sequence[str], types: Sequence[str], k: int
) -> Measurement:
    """`compare_methods` as a measurement that can be kept; `clusterings_of` reads it. Array `clusters`: a row a way."""
    found = compare_methods(curves, heads, types, k)
    facts = {"heads": list(heads), "ways": [[one.method, one.scaled, one.agreement] for one in found]}
    return Measurement("clusters by every method", None, n=len(heads),
                       arrays={"clusters": np.array([one.clusters for one in found])}, facts=facts)  # fmt: skip


def clusterings_of(compared: Measurement) -> list[Clustering]:
    """What `methods_compared` found, way by way."""
    heads = tuple(compared.facts["heads"])
    return [
        Clustering(method, scaled, heads, tuple(clusters), agreement)
        for (method, scaled, agreement), clusters in zip(
            compared.facts["ways"], compared.arrays["clusters"].tolist(), strict=True
        )
    ]


def clustering_agreement(
    table: ct.HeadTable,
    types: Mapping[str, str],
    method: Any,
    generator: np.random.Generator,
    *,
    scale: bool = False,
    draws: int = CLUSTERINGS,
) -> Measurement:
    """Adjusted Rand index of clusters of the table's curves with the heads' types, as many clusters as types.

    The interval clusters anew under every estimate's Monte Carlo error. Arrays: `clusterings` (draw, head), the first
    that of the estimates. One type alone cannot be told from anything: partial.
    """
    kinds = [types[head] for head in table.heads]
    quantity, k = f"adjusted Rand index, {method}" + (", scaled" if scale else ""), len(set(kinds))
    if k < 2:
        return ct.absent(table, quantity, f"all {len(kinds)} heads are of one type, {kinds[0]}")

    def clusters(values: np.ndarray) -> Any:
        return cluster(scaled(values.T) if scale else values.T, k, method)

    own = clusters(table.mean)
    each = np.stack([renumbered(one) for one in (own, *(clusters(table.draw(generator)) for _ in range(draws)))])
    facts = {"types": dict(zip(table.heads, kinds, strict=True)), "clusters": own.tolist(), "k": k}
    value, interval = _agreement(kinds, each)
    return table.measured(
        quantity, value, interval=interval, facts=facts, unit="adjusted Rand index", arrays={"clusterings": each},
        redrawn={"chains": table.chains},
    )  # fmt: skip


def other_types(measured: Measurement, order: Sequence[int] | np.ndarray) -> Measurement:
    """The agreement of the same clusters with the types dealt out to the heads in another order: false data."""
    kinds = list(measured.facts["types"].values())
    value, interval = _agreement([kinds[at] for at in order], measured.arrays["clusterings"])
    return replace(measured, value=value, interval=interval)


def _agreement(kinds: Sequence[str], clusterings: Int[np.ndarray, "draw head"]) -> tuple[float, Interval]:
    distinct, places = np.unique(clusterings, axis=0, return_inverse=True)
    values = np.array([adjusted_rand(kinds, one) for one in distinct])[places.reshape(-1)]
    return float(values[0]), percentile_interval(
        values, f"{len(values) - 1} draws of every estimate's Monte Carlo error"
    )
