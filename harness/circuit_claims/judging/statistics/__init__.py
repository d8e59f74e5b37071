"""Intervals that cover, and p-values: the statistics that every measure shares, one function for each kind of case.

Pure: numbers and a generator in, numbers out. What is drawn anew (strings, documents, heads, runs) is the caller's to
choose: the units that the sentence speaks of. How often each covers is in docs/how-a-verdict-is-made.md.

| what was seen | function |
|---|---|
| a mean over rows of few clusters | `cluster_interval` |
| anything else over drawn units, in strata or not | `bootstrap_counts`, `stratified_counts`, `percentile_interval` |
| the same: means over rows; each point of a curve; ends alone | `cluster_means`; `percentile_band`; `percentiles` |
| the same, for arithmetic of one's own | `expansion`, `expanded_level`; `LEVEL`, `FEWEST_CLUSTERS` |
| a mean over pairs of heads | `two_way_interval`, `pair_interval` |
| a smooth figure that is biased for few units | `jackknife_interval` |
| a share of independent items, of clusters | `item_share_interval`, `cluster_share_interval` |
| a share whose draws may all agree; its bounds alone | `or_binomial`; `binomial_interval` |
| the best of many heads; anything under shuffles | `maximum_null`; `permutation_null`, `permutation_p_value` |
| pairs of few heads with both labels, and the others | `pair_arrangements`, `pair_difference_interval` |
| two groups of few heads | `arrangements`, `label_p_value`, `difference_interval`, `welch_interval` |
| a correlation; of heads | `correlation`; `correlation_interval` |
| correlations of resamples, of shuffles | `row_correlations`, `correlation_null` |
"""

from circuit_claims.judging.statistics.clusters import (
    cluster_interval,
    cluster_variance,
    intraclass_correlation,
    jackknife_interval,
    pair_interval,
    t_interval,
    two_way_interval,
    welch_interval,
)
from circuit_claims.judging.statistics.correlation import (
    correlation,
    correlation_interval,
    correlation_null,
    row_correlations,
)
from circuit_claims.judging.statistics.permutation import (
    arrangements,
    difference_interval,
    label_p_value,
    maximum_null,
    pair_arrangements,
    pair_difference_interval,
    permutation_null,
    permutation_p_value,
    shuffled_orders,
)
from circuit_claims.judging.statistics.resampling import (
    FEWEST_CLUSTERS,
    LEVEL,
    Redrawn,
    bootstrap_counts,
    cluster_means,
    effective_clusters,
    expanded_level,
    expansion,
    percentile_band,
    percentile_interval,
    percentiles,
    prediction_interval,
    stratified_counts,
)
from circuit_claims.judging.statistics.shares import (
    binomial_interval,
    cluster_share_interval,
    effective_items,
    item_share_interval,
    jeffreys_interval,
    or_binomial,
)

__all__ = [
    "FEWEST_CLUSTERS", "LEVEL", "Redrawn", "arrangements", "binomial_interval", "bootstrap_counts",
    "cluster_interval", "cluster_means", "cluster_share_interval", "cluster_variance", "correlation",
    "correlation_interval", "correlation_null", "difference_interval", "effective_clusters", "effective_items",
    "expanded_level", "expansion", "intraclass_correlation", "item_share_interval", "jackknife_interval",
    "jeffreys_interval", "label_p_value", "maximum_null", "or_binomial", "pair_arrangements",
    "pair_difference_interval", "pair_interval", "percentile_band", "percentile_interval", "percentiles",
    "permutation_null", "permutation_p_value", "prediction_interval", "row_correlations", "shuffled_orders",
    "stratified_counts", "t_interval", "two_way_interval", "welch_interval",
]  # fmt: skip
