"""Gould et al. 2024, Successor Heads: its claims and the tests that measure them."""
