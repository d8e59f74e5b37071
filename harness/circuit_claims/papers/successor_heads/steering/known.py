"""The greater-than bias where the answer is known, from the logits of the stored table (SH-18, SH-18b).

Of the head: the values of each task put in one random order, the same for all tokens (no bias), or every token's
logits handed to the values in rising order (all bias). Of the features: each feature's logits dealt out anew among the
values (no bias), and that with a preference for greater values added, as strong as all else in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from circuit_claims.api import LEVEL, Interval, Measurement

if TYPE_CHECKING:
    # Costs what collecting the claims should not.
    from circuit_claims.papers.successor_heads.steering.greater_than import Bias

DRAWS = 400


def values_in_another_order(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-18 with the values of each task in a random order: what the head makes of each string stays."""
    from circuit_claims.papers.successor_heads.steering.greater_than import bias_of_logits

    tables = bias_tables(table)
    orders = [generator.permutation(len(one)) for one in tables]
    return _of_bias(table, bias_of_logits(table.facts["tasks"], tables, orders=orders), generator)


def rising_logits(table: Measurement, generator: np.random.Generator) -> Measurement:
    """SH-18 of a head that gives every value a higher logit than all values below it."""
    from circuit_claims.papers.successor_heads.steering.greater_than import bias_of_logits

    rising = [np.sort(one, axis=1) for one in bias_tables(table)]
    return _of_bias(table, bias_of_logits(table.facts["tasks"], rising), generator)


def features_dealt(table: Measurement, generator: np.random.Generator, slope: float = 0.0) -> Measurement:
    """SH-18b with the logits of each feature dealt out anew among the values of a task.

    `slope`: how strong a preference for greater values is added, a straight line whose spread over the values is so
    many times that of the feature's own logits.
    """
    from circuit_claims.papers.successor_heads.steering.greater_than import bias_of_feature_logits

    dealt = []
    for one in bias_tables(table):
        line = np.arange(one.shape[1], dtype=float)
        line = (line - line.mean()) / max(float(line.std()), 1e-12)
        dealt.append(generator.permuted(one, axis=1) + slope * one.std(axis=1, keepdims=True) * line)
    bias = bias_of_feature_logits(table.facts["tasks"], dealt, table.facts["indices"])
    return _of_bias(table, bias, generator)


def bias_tables(table: Measurement) -> list[np.ndarray]:
    """The logits of each task of a stored table of the bias."""
    return [table.arrays[f"{task}/logits"] for task in table.facts["tasks"]]


def _of_bias(table: Measurement, bias: Bias, generator: np.random.Generator) -> Measurement:
    low, high = bias.interval(generator, DRAWS)
    interval = Interval(low, high, LEVEL, f"{DRAWS:,} bootstrap draws over sources within each task")
    return table.derive(table.quantity, bias.value, interval=interval, unit=table.unit, n=bias.n)
