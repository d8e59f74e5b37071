"""Wang et al. 2025, on the refined local learning coefficient: its claims and the tests that measure them."""
