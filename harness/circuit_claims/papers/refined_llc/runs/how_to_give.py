"""What to type where a run is not here: how to point the claims at it."""

from __future__ import annotations

from circuit_claims.places import CLAIMS, PACKAGE

INSTALLED = CLAIMS.is_relative_to(PACKAGE)
CLAIMS_OF_RUNS = "pytest --pyargs circuit_claims.claims.refined_llc" if INSTALLED else "pytest claims/refined_llc"
GIVE_RECORDED = f"{CLAIMS_OF_RUNS} --claims-recorded DIR"
# A wheel holds the run's card and losses; its checkpoints stand in the repository.
GIVE_OWN = f"{CLAIMS_OF_RUNS} --claims-own-run CLONE/fixtures/attention_only/two_layer"
