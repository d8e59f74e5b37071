"""What this paper brings to the harness beside its claims."""

from __future__ import annotations

from circuit_claims.api import Contribution, Presupposition, Trait
from circuit_claims.papers.successor_heads.amounts import AMOUNTS

HERE = "circuit_claims.papers.successor_heads"
LONG_CONTEXT = 512

CONTRIBUTION = Contribution(
    amounts=AMOUNTS,
    traits={
        "multi_digit_numbers": Trait("not applicable: numbers are split into digits", f"{HERE}.traits:whole_numbers"),
        "split_numbers": Trait(
            "not applicable: numbers are whole tokens, which the claim this one is adapted from is about",
            f"{HERE}.traits:split_numbers",
        ),
        "long_contexts": Trait(
            f"not applicable: the model reads fewer than the {LONG_CONTEXT} tokens of the paper's contexts",
            f"{HERE}.traits:long_contexts",
        ),
    },
    presuppositions={
        "a successor head": Presupposition(f"{HERE}.succession.presupposed:no_successor_head"),
        "pairs that are counted on": Presupposition(f"{HERE}.counting.findings:not_counted_on"),
    },
    commands={"sweep": f"{HERE}.command:sweep"},
    card=f"{HERE}.traits:card_lines",
)
