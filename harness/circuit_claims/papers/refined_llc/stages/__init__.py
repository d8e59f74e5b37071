"""Stages of training, read off the authors' published curves and off a run's own heads.

Read first: `boundaries`, `measures` (published coefficients), `run_measures` (a run's head types and scores).
"""
