"""Multigrams and brackets: which tokens a head's ablation costs, and how patterns are labelled.

Read first: `labels` (the rules), `brackets`, then `findings`, which a claim file calls.
"""
