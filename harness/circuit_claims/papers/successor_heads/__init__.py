"""Successor Heads (Gould et al. 2024): heads that increment tokens with a natural order, in many models.

Read first: `dataset` (the lists that are counted on), then a folder for each question: `succession` (who scores),
`counting` (by what features), `steering` (do they add up), `natural_text` (what it does in running text), `beyond`
(Roman numerals, training). Each is called by claims in `claims/successor_heads`.
"""
