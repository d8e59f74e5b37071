"""Refined local learning coefficients over training (Wang et al. 2025): heads tell their kind by their curves.

Read first: `runs` (whose training is asked), then `curves` (coefficients of heads), `stages` (of training) and
`multigrams` (what heads memorise). Each is called by claims in `claims/refined_llc`.
"""
