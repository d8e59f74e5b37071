"""What was measured is kept: store, keys, measures, cells, events, atomic files.

Imports judging alone. Read first: `measure` (a function that looks in the store first), `store`, `keys`.
"""
