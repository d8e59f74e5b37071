"""Coefficients of a run, cell by cell: on which rows, measured how, recorded once, and compared with live ones.

Read `cells` first, then `recorded`; `record` makes them, which takes hours.
"""
