"""Instruments on the heads of any decoder: what a head writes, what its loss costs, of what type it is.

Imports models, texts, toy, keeping and judging; never a paper: comparison sets, lists and head types come in as
arguments. Read first: `ov_circuit` (the effective OV circuit), `effects` (direct, indirect and total effects of
ablation), `head_types` and `composition` (the attention-only model), `probes` and `autoencoders` (what a representation
holds), `planted` (models in which the answer is known).
"""
