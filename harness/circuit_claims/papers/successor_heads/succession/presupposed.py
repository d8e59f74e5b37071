"""What a claim about a successor head presupposes of a model: that it has one. Told from the sweep that is kept."""

from __future__ import annotations

from typing import Any

from circuit_claims.api import Measurement
from circuit_claims.papers.successor_heads.succession import quantities

P_AT_MOST = 0.05


def no_successor_head(subject: Any) -> tuple[str, Measurement] | None:
    """Why claims about a successor head are not about `subject`, with the figure; None where it has such a head.

    It has one where the leader lies beyond the null of the maximum (p <= 0.05) and ahead of its runner-up (the
    interval of the ratio lies above 1), in the paper's weighting and on its input path.
    """
    from circuit_claims.papers.successor_heads.succession.measures import successor_scores

    return stands_out(successor_scores(subject).table)


def stands_out(table: Measurement) -> tuple[str, Measurement] | None:
    """The same of a table of head scores."""
    lead, best = quantities.lead_over_runner_up(table), quantities.best_head(table)
    assert lead.interval is not None
    assert best.p_value is not None
    if best.p_value <= P_AT_MOST and lead.interval.low > 1:
        return None
    reason = (
        f"no successor head: {best.facts['head']} leads with {best.value:.3f} (p = {best.p_value:.2g} under the null "
        f"of the maximum), {lead.value:.2f} times its runner-up [{lead.interval.low:.2f}, {lead.interval.high:.2f}]"
    )
    return reason, lead
