"""Curves of refined coefficients over training: tables of heads by steps, and what the claims read off them.

Read first: `tables` (heads by steps), then `findings`, which a
claim file calls.
"""
