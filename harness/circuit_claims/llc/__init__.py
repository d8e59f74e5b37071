"""Refined local learning coefficients of any torch module: SGLD around a trained point, gated, swept and kept.

Imports texts, keeping and judging; no model of its own: one that knows a faster exact way to its losses offers it
(`refined.HasFastPotential`). Read first: `refined` (the one call), `sgld` (the sampler), `gate` (what is believed),
`sweep` (many coefficients, one stored cell a chain), `exact` (known answers that the sampler must meet).
"""
