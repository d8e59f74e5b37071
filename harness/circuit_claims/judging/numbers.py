"""Numbers as a reader meets them: one way of writing them in the terminal, in messages and in the report."""

from __future__ import annotations

import math
from typing import Any

from circuit_claims.judging.json_values import to_number


def number(value: Any) -> str:
    """Three significant digits, thousands separated, no exponent between 0.001 and 10^15; other values as text.

    >>> [number(v) for v in (0.12345, 999.7, 1234.5, 1e-5, 3, float("inf"), None, "L12H0")]
    ['0.123', '1,000', '1,234', '1e-05', '3', '∞', 'none', 'L12H0']
    """
    value = to_number(value)
    if value is None:
        return "none"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    # From 999.5 on, three digits would be written with an exponent.
    return f"{value:,.0f}" if 999.5 <= abs(value) < 1e15 else f"{value:.3g}"
