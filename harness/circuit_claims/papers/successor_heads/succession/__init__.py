"""Successor scores of every head: the dataset's comparisons, bootstrap, nulls, paths and lenses.

Read first: `score`, `sweep`, `quantities`, then `measures`, which a claim file calls.
"""
