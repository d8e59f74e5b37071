"""How often the intervals hold the truth: simulated, with the dependence and the numbers of units that occur.

`python -m tests.judging.coverage` in `harness/` prints the table of docs/how-a-verdict-is-made.md.
"""
