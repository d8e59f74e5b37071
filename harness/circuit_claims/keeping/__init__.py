"""What is measured is kept: under a digest of all that made it, whole or not at all, and read only when sound.

Imports judging. Read first: `measure` (what stands between a measure and the store), `keys` (what a figure hangs on,
read off the sources), `cells` with `executors` (many measurements, kept as each ends, by threads or processes), `store`
(entries on disk), `events` (the stream of a run), `atomic` (files that are wholly old or wholly new).
"""
