"""The attention-only transformer: model, corpus, training, checkpoints, and the exact cached losses of its heads.

Imports llc (for the shapes of slices and losses), keeping and judging. Read first: `model`, `training`, `checkpoints`,
`potentials.head`.
"""
