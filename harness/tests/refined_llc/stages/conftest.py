"""The planted run that rules are calibrated on."""

from dataclasses import replace

import pytest
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.profiles import PROFILES
from circuit_claims.papers.refined_llc.runs.recorded import RecordedRun
from circuit_claims.papers.refined_llc.runs.recorded_planted import planted_data


@pytest.fixture(scope="session")
def planted() -> RecordedRun:
    """A run in which every recorded finding holds, with few draws."""
    profile = replace(PROFILES["quick"], bootstrap_draws=400)
    return RecordedRun(planted_data(seed=3), Context(MemoryStore(), profile=profile))
