"""Training runs as subjects: the authors' recorded curves, and runs whose weights are here.

Read first: `registry`, `training_run` (what any run answers), `recorded`, `live`.
"""
