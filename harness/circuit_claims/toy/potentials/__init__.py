"""Exact cached losses of single heads of the attention-only model: what makes a coefficient cost seconds.

Reached through `AttentionOnly.fast_potential`. Read first: `head` (one head as a potential), `prefix` (what no head of
a layer changes), `readout` (the vocabulary, read once), `fused` (one compiled pass).
"""
