"""The face for authors of papers: everything that a folder of claims is written with, stable by promise.

    from circuit_claims.api import Bars, Finding, Measurement, claim, measure, network_of

A claim file marks its tests with `claim`; a measure, decorated with `measure`, asks `network_of(subject)` and returns
a `Measurement` with an `Interval`; a `Finding` puts its controls beside it; evidence is made by the types below.
Importing this imports no torch: what needs it is fetched when it is first asked for, so claim files may import it.

What each does stands in its own docstring, with an example that runs. Read in this order: `claim`, `measure`,
`Measurement`, `Finding`, `network_of`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from circuit_claims.judging.evidence import (
    Bars,
    ClusterMap,
    ClusterRow,
    Curve,
    Curves,
    Evidence,
    EvidenceError,
    GridMap,
    HeadCurves,
    HeadMap,
    NullDistribution,
    Panel,
    PassageExample,
    Passages,
    PassageToken,
    PatternPanel,
    Patterns,
    RankedBars,
    Scatter,
    ScatterPoint,
    StackedBars,
    StackedRow,
    Table,
    TextBlock,
)
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.measurement import Interval, Measurement, Rival
from circuit_claims.judging.ranking import Ranking, first_of, order_of
from circuit_claims.judging.statistics import (
    binomial_interval,
    bootstrap_counts,
    cluster_interval,
    cluster_means,
    maximum_null,
    percentile_interval,
    permutation_null,
    permutation_p_value,
)
from circuit_claims.keeping.measure import measure
from circuit_claims.running.contributions import Contribution, Presupposition, SubjectKind, Trait
from circuit_claims.running.options import ClaimsOption
from circuit_claims.running.plugin import claim

if TYPE_CHECKING:
    from circuit_claims.heads.composition import composition_between
    from circuit_claims.heads.head_types import current_token_scores, prefix_matching_scores, previous_token_scores
    from circuit_claims.heads.head_types_planted import planted_induction
    from circuit_claims.heads.network import Network, contexts, network_of

__all__ = [
    "Bars",
    "ClaimsOption",
    "ClusterMap",
    "ClusterRow",
    "Contribution",
    "Curve",
    "Curves",
    "Evidence",
    "EvidenceError",
    "Finding",
    "GridMap",
    "HeadCurves",
    "HeadMap",
    "Interval",
    "Measurement",
    "Network",
    "NullDistribution",
    "Panel",
    "PassageExample",
    "PassageToken",
    "Passages",
    "PatternPanel",
    "Patterns",
    "Presupposition",
    "RankedBars",
    "Ranking",
    "Rival",
    "Scatter",
    "ScatterPoint",
    "StackedBars",
    "StackedRow",
    "SubjectKind",
    "Table",
    "TextBlock",
    "Trait",
    "binomial_interval",
    "bootstrap_counts",
    "claim",
    "cluster_interval",
    "cluster_means",
    "composition_between",
    "contexts",
    "current_token_scores",
    "first_of",
    "maximum_null",
    "measure",
    "network_of",
    "order_of",
    "percentile_interval",
    "permutation_null",
    "permutation_p_value",
    "planted_induction",
    "prefix_matching_scores",
    "previous_token_scores",
]  # fmt: skip

_LATE = {
    "Network": "network", "contexts": "network", "network_of": "network", "composition_between": "composition",
    "current_token_scores": "head_types", "prefix_matching_scores": "head_types",
    "previous_token_scores": "head_types", "planted_induction": "head_types_planted",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"circuit_claims.heads.{_LATE[name]}"), name)
