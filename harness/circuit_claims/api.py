"""The face for authors of papers: everything that a folder of claims is written with, stable by promise.

    from circuit_claims.api import Bars, Finding, Measurement, claim, measure, network_of

A claim file marks its tests with `claim`; a measure, decorated with `measure`, asks `network_of(subject)` and returns
a `Measurement` with an `Interval`; a `Finding` puts its controls beside it; evidence is made by the types below.
Importing this imports no torch: what needs it is fetched when it is first asked for, so claim files may import it.

What each does stands in its own docstring, with an example that runs. Read in this order: `claim`, `measure`,
`Measurement`, `Finding`, `network_of`; then what you need:

- intervals and p-values: the functions that `circuit_claims.judging.statistics` lists by what was seen;
- who comes first: `Ranking`, `first_of`, `order_of`, `Rival`;
- what a paper brings beside claims: `Contribution` and its parts, `console` for commands, `refuse_missing` for options,
  `Exhibit` for figures of its own;
- what tests, openers and measures are handed: `Judge`, `TextUse`, `Run`, `Subject`, `Context`, `Profile`;
- work of hours, kept piece by piece: `CellPlan`, `fill_all`, `closure`, `Meter`, `Progress`, `one_at_a_time`; `kept`;
- errors that say what to type: `InputError` of what was given, `ClaimsError` above all.

Papers, those in this package too, reach `judging`, `keeping` and `running` through this module alone (a contract of
`lint-imports`). Instruments are libraries, imported by their room: `heads`, `llc`, `toy`, `models`, `texts`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from circuit_claims.errors import ClaimsError, InputError
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
    FEWEST_CLUSTERS,
    LEVEL,
    arrangements,
    binomial_interval,
    bootstrap_counts,
    cluster_interval,
    cluster_means,
    cluster_share_interval,
    correlation,
    correlation_interval,
    correlation_null,
    difference_interval,
    expanded_level,
    expansion,
    item_share_interval,
    jackknife_interval,
    label_p_value,
    maximum_null,
    or_binomial,
    pair_arrangements,
    pair_difference_interval,
    pair_interval,
    percentile_band,
    percentile_interval,
    percentiles,
    permutation_null,
    permutation_p_value,
    row_correlations,
    stratified_counts,
    two_way_interval,
    welch_interval,
)
from circuit_claims.keeping.atomic import write_bytes_atomically, write_text_atomically
from circuit_claims.keeping.by_content import kept
from circuit_claims.keeping.cells import (
    CellPlan,
    CellStore,
    MemoryStore,
    Meter,
    Progress,
    fill_all,
    one_at_a_time,
)
from circuit_claims.keeping.keys import closure
from circuit_claims.keeping.measure import Context, measure
from circuit_claims.keeping.profiles import PROFILES, Profile
from circuit_claims.places import shipped
from circuit_claims.running.contributions import Contribution, Presupposition, SubjectKind, Trait
from circuit_claims.running.options import ClaimsOption, refuse_missing
from circuit_claims.running.plugin import claim

if TYPE_CHECKING:
    from circuit_claims.heads.composition import composition_between
    from circuit_claims.heads.head_types import current_token_scores, prefix_matching_scores, previous_token_scores
    from circuit_claims.heads.head_types_planted import planted_induction
    from circuit_claims.heads.network import Network, contexts, network_of
    from circuit_claims.report.figures.evidence import Exhibit, Grid
    from circuit_claims.running import console
    from circuit_claims.running.judge import Judge, TextUse
    from circuit_claims.running.run import Run
    from circuit_claims.running.subjects import Subject

__all__ = [
    "FEWEST_CLUSTERS",
    "LEVEL",
    "PROFILES",
    "Bars",
    "CellPlan",
    "CellStore",
    "ClaimsError",
    "ClaimsOption",
    "ClusterMap",
    "ClusterRow",
    "Context",
    "Contribution",
    "Curve",
    "Curves",
    "Evidence",
    "EvidenceError",
    "Exhibit",
    "Finding",
    "Grid",
    "GridMap",
    "HeadCurves",
    "HeadMap",
    "InputError",
    "Interval",
    "Judge",
    "Measurement",
    "MemoryStore",
    "Meter",
    "Network",
    "NullDistribution",
    "Panel",
    "PassageExample",
    "PassageToken",
    "Passages",
    "PatternPanel",
    "Patterns",
    "Presupposition",
    "Profile",
    "Progress",
    "RankedBars",
    "Ranking",
    "Rival",
    "Run",
    "Scatter",
    "ScatterPoint",
    "StackedBars",
    "StackedRow",
    "Subject",
    "SubjectKind",
    "Table",
    "TextBlock",
    "TextUse",
    "Trait",
    "arrangements",
    "binomial_interval",
    "bootstrap_counts",
    "claim",
    "closure",
    "cluster_interval",
    "cluster_means",
    "cluster_share_interval",
    "composition_between",
    "console",
    "contexts",
    "correlation",
    "correlation_interval",
    "correlation_null",
    "current_token_scores",
    "difference_interval",
    "expanded_level",
    "expansion",
    "fill_all",
    "first_of",
    "item_share_interval",
    "jackknife_interval",
    "kept",
    "label_p_value",
    "maximum_null",
    "measure",
    "network_of",
    "one_at_a_time",
    "or_binomial",
    "order_of",
    "pair_arrangements",
    "pair_difference_interval",
    "pair_interval",
    "percentile_band",
    "percentile_interval",
    "percentiles",
    "permutation_null",
    "permutation_p_value",
    "planted_induction",
    "prefix_matching_scores",
    "previous_token_scores",
    "refuse_missing",
    "row_correlations",
    "shipped",
    "stratified_counts",
    "two_way_interval",
    "welch_interval",
    "write_bytes_atomically",
    "write_text_atomically",
]  # fmt: skip

# Needs torch, or a terminal's libraries, or reads every paper: imported when it is asked for.
_LATE = {
    "Network": "heads.network", "contexts": "heads.network", "network_of": "heads.network",
    "composition_between": "heads.composition", "planted_induction": "heads.head_types_planted",
    "current_token_scores": "heads.head_types", "prefix_matching_scores": "heads.head_types",
    "previous_token_scores": "heads.head_types",
    "Judge": "running.judge", "TextUse": "running.judge", "Run": "running.run", "Subject": "running.subjects",
    "console": "running.console", "Exhibit": "report.figures.evidence", "Grid": "report.figures.evidence",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"circuit_claims.{_LATE[name]}")
    return module if name == "console" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
