"""Small statistics that more than one measure needs. Pure: numbers in, numbers out."""

from __future__ import annotations

import math


def binomial_interval(passed: int, n: int, level: float = 0.90) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a share of `passed` in `n`; (0, 1) where n is 0.

    >>> [round(end, 3) for end in binomial_interval(0, 20)]
    [0.0, 0.139]
    """
    # The quantiles of beta distributions; scipy.stats has them too, and takes a second to import.
    from scipy.special import betaincinv

    tail = (1 - level) / 2
    low = float(betaincinv(passed, n - passed + 1, tail)) if passed > 0 else 0.0
    high = float(betaincinv(passed + 1, n - passed, 1 - tail)) if passed < n else 1.0
    return low, high


def prediction_interval(value: float, standard_error: float, again: float, level: float = 0.90) -> tuple[float, float]:
    """Where a re-run's value falls with probability `level`, given a first value and both runs' standard errors.

    Normal errors, independent runs: value +- z sqrt(standard_error^2 + again^2). For recorded cells and for two
    versions of a library; an interval of the first run alone would be too narrow by a factor of up to sqrt(2).

    >>> low, high = prediction_interval(1.0, 0.3, 0.4)
    >>> round(high - low, 3)
    1.645
    """
    from scipy.special import ndtri

    half = float(ndtri((1 + level) / 2)) * math.hypot(standard_error, again)
    return value - half, value + half
