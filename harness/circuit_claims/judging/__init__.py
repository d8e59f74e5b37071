"""Claims, measurements and verdicts as values: what a paper says, what was measured, what follows. Pure.

Read first: `claims` (a sentence of a paper as data), `measurement` (what a measure returns), `verdicts` (the rule of
each kind of claim). `numbers` and `messages` put them in words. Imports nothing of the package but `errors`: no files
but `paper.toml`, no clocks, no models.
"""
