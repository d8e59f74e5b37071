"""Tables of coefficients in which what the claims say holds by construction: their positive controls."""

from __future__ import annotations

import numpy as np

from circuit_claims.papers.refined_llc.curves.tables import HeadTable

STEPS = (100, 300, 700, 1_600, 3_500, 6_500, 10_000, 15_000, 22_000, 32_000, 45_000)
TYPES = {
    **{f"0:{head}": "multigram" for head in range(8)}, "0:1": "previous-token", "0:4": "previous-token",
    **{f"1:{head}": "multigram" for head in range(8)}, "1:3": "bracket", "1:6": "induction", "1:7": "induction",
}  # fmt: skip
MIDDLE = {"multigram": 1_000.0, "previous-token": 3_000.0, "bracket": 2_500.0, "induction": 12_000.0}
HEIGHT = {"multigram": 12.0, "previous-token": 6.0, "bracket": 4.0, "induction": 5.0}
ERROR = 0.1


def planted_table(*, peaks: bool = False) -> HeadTable:
    """Heads that start alike and drift apart, each kind in its own way, layer 0 before layer 1.

    With `peaks`, as against a one-layer reference, layer 0 falls again after step 6,500 while layer 1 goes on rising.
    """
    heads = tuple(TYPES)
    x = np.log1p(np.array(STEPS))[:, None]
    later = np.array([np.log(4.0) if head.startswith("1:") else 0.0 for head in heads])
    middle = np.log([MIDDLE[TYPES[head]] for head in heads]) + later
    own = np.array([1 + 0.02 * int(head[2:]) for head in heads])
    height = np.array([HEIGHT[TYPES[head]] for head in heads]) * own
    mean = 1.0 + 0.01 * own + height / (1 + np.exp(-2 * (x - middle)))
    if peaks:
        fall = np.clip(x - np.log1p(6_500), 0, None) * np.array([head.startswith("0:") for head in heads])
        mean = mean - 4 * fall
    full = np.ones(mean.shape)
    return HeadTable(STEPS, heads, mean, ERROR * full, full > 0, {"origin": "planted"})


def planted_counts() -> dict[str, int]:
    """Multigrams that grow with the planted heads' coefficients at the end."""
    table = planted_table()
    return {head: round(20 * value) for head, value in zip(table.heads, table.mean[-1], strict=True)}
