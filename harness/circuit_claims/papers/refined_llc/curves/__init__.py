"""Curves of refined coefficients over training: recorded cells, live ones beside them, and what the claims read off.

Read first: `cells` (one coefficient), `recorded` (those that ship), `tables` (heads by steps), then `findings`, which a
claim file calls.
"""
