"""Measures attention heads, estimates refined learning coefficients, and judges published claims about both.

A figure flows from a paper's sentence to a page:

    paper.toml -> running (subjects, texts, settings) -> a measure of heads, llc or a paper -> keeping (the store)
    -> judging (verdict) -> keeping (events) -> report

To understand the package read, in this order:

1.  `judging.claims`        a paper's sentence as data
2.  `judging.measurement`   what a measure returns
3.  `judging.verdicts`      what follows from both
4.  `keeping.measure`       a measure that is kept, and what its key covers
5.  `running.plugin`        what pytest does with a claim's test
6.  `models.resolve`        from a name to verified weights
7.  `models.architectures.layers`   the weights of any decoder by name and shape
8.  `heads.ov_circuit`      the effective OV circuit, the first instrument
9.  `llc.refined`           the refined coefficient of a part of a model, the second
10. `toy.model`             the attention-only transformer
11. `report.collect`        from a run's events to a report
12. `papers.successor_heads` and `papers.refined_llc`   what only one paper needs

Imports point one way, from `papers` down to `judging` (`lint-imports` checks it; pyproject.toml holds the order). No
room but `papers` knows a paper. Every error that is raised on purpose is an `errors.ClaimsError`.
"""

__version__ = "0.1.0"
