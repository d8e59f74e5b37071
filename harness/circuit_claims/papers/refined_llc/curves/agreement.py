"""How well clusters of the heads' curves agree with the heads' types, and how sure that is (RL-11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from circuit_claims.judging.measurement import Measurement
from circuit_claims.judging.statistics import percentile_interval
from circuit_claims.papers.refined_llc.curves import tables as ct

CLUSTERINGS, FEWER, SHUFFLES = 100, 20, 500


def clustering_agreement(
    table: ct.HeadTable,
    types: Mapping[str, str],
    method: Any,
    generator: np.random.Generator,
    *,
    scale: bool = False,
    shuffle: bool = False,
    draws: int = CLUSTERINGS,
) -> Measurement:
    """Adjusted Rand index of clusters of the table's curves with the heads' types, as many clusters as types.

    The interval clusters anew under every estimate's Monte Carlo error; with `shuffle` it is that of the index when the
    types are dealt out at random. One type alone cannot be told from anything: partial.
    """
    from circuit_claims.papers.refined_llc.curves import clustering as cl

    kinds = [types[head] for head in table.heads]
    quantity, k = f"adjusted Rand index, {method}" + (", scaled" if scale else ""), len(set(kinds))
    if k < 2:
        return ct.absent(table, quantity, f"all {len(kinds)} heads are of one type, {kinds[0]}")

    def clusters(values: np.ndarray) -> Any:
        return cl.cluster(cl.scaled(values.T) if scale else values.T, k, method)

    own = clusters(table.mean)
    if shuffle:
        null = cl.shuffled_agreement(kinds, own, SHUFFLES, generator)
        interval = percentile_interval(null, f"{SHUFFLES} shuffles of the types")
        return table.measured(quantity, float(null.mean()), interval=interval)
    found = np.array([cl.adjusted_rand(kinds, clusters(table.draw(generator))) for _ in range(draws)])
    value = cl.adjusted_rand(kinds, own)
    interval = percentile_interval(np.append(found, value), f"{draws} draws of every estimate's Monte Carlo error")
    facts = {"types": dict(zip(table.heads, kinds, strict=True)), "clusters": own.tolist(), "k": k}
    return table.measured(quantity, value, interval=interval, facts=facts, unit="adjusted Rand index")
