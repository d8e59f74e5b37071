"""What to type where a run is not here: how to point the claims at it."""

from __future__ import annotations

from pathlib import Path

import circuit_claims
from circuit_claims.api import shipped

INSTALLED = shipped("claims").is_relative_to(Path(circuit_claims.__file__).parent)
CLAIMS_OF_RUNS = "pytest --pyargs circuit_claims.claims.refined_llc" if INSTALLED else "pytest claims/refined_llc"
GIVE_RECORDED = f"{CLAIMS_OF_RUNS} --claims-recorded DIR"
# A wheel holds the run's card and losses; its checkpoints stand in the repository.
GIVE_OWN = f"{CLAIMS_OF_RUNS} --claims-own-run CLONE/fixtures/attention_only/two_layer"
