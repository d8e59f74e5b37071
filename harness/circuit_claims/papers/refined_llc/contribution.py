"""What this paper brings to the harness beside its claims."""

from __future__ import annotations

from circuit_claims.api import ClaimsOption, Contribution, SubjectKind

HERE = "circuit_claims.papers.refined_llc"
RUNS = f"{HERE}.runs.registry"

RECORDED = "the authors' recorded numbers: a folder or the JSON file"
OWN_RUN = "folder of a training run to stand for this project's own"

CONTRIBUTION = Contribution(
    options=(
        ClaimsOption("recorded", RECORDED, check=f"{RUNS}:recorded_numbers"),
        ClaimsOption("own-run", OWN_RUN, check=f"{RUNS}:own_folder"),
    ),
    subject_kinds={
        kind: SubjectKind(f"{RUNS}:open_{kind}", f"{RUNS}:{kind}_state") for kind in ("recorded", "own", "published")
    },
    commands={
        "record-cells": f"{HERE}.commands:record_cells_command",
        "convert-checkpoint": f"{HERE}.commands:convert_checkpoint",
    },
)
