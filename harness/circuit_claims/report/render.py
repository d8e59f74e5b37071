"""The report as one HTML page: no scripts, nothing loaded from elsewhere, every value escaped by one environment."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from circuit_claims.judging.numbers import number
from circuit_claims.keeping.atomic import write_bytes_atomically, write_text_atomically
from circuit_claims.report import groups, opening, text, views
from circuit_claims.report.collect import Collected, read_run
from circuit_claims.report.figures.cache import figure_cache
from circuit_claims.report.figures.evidence import Draw, drawn_by
from circuit_claims.report.figures.palette import css
from circuit_claims.report.files import RESULTS, RUN, results_bytes, run_bytes
from circuit_claims.report.model import Results, RunRecord

INDEX = "index.html"


@dataclass(frozen=True)
class ReportPaths:
    """The three files of a report: the page, what was found, and when, where and how long."""

    index: Path
    results: Path
    run: Path


def write_report(
    run_dir: Path, figures: Path | None = None, brought: Mapping[str, Draw] = MappingProxyType({})
) -> ReportPaths:
    """Write `index.html`, `results.json` and `run.json` into `run_dir` from the event stream that lies there.

    Works at any time, on a finished run or one that was cut short; the same stream gives the same bytes. Each file
    is replaced whole: on a full disk (`NoSpaceLeft`) those not yet written stay as they were. `figures` is a folder
    where drawn figures are kept for the next report; `brought` draw the kinds of evidence that papers add. Raises
    `ReportError` where there is no event stream.
    """
    run_dir = Path(run_dir)
    collected = read_run(run_dir)
    with figure_cache(figures), drawn_by(brought):
        page = render_index(collected)
    paths = ReportPaths(run_dir / INDEX, run_dir / RESULTS, run_dir / RUN)
    write_bytes_atomically(paths.results, results_bytes(collected.results))
    write_bytes_atomically(paths.run, run_bytes(collected.run))
    write_text_atomically(paths.index, page)
    return paths


def render_index(collected: Collected) -> str:
    """The page of one run. Pure: the same results and run give the same text."""
    results, run = collected.results, collected.run
    papers = views.paper_views(results, run)
    return page("index.html.j2", title="Circuit claims: report", **_index_context(results, run, papers))


def _index_context(results: Results, run: RunRecord, papers: tuple[views.PaperView, ...]) -> dict[str, Any]:
    return {
        "results": results,
        "run": run,
        "papers": papers,
        "subjects": views.subject_views(results),
        "scopes": opening.scope_views(results),
        "bad": groups.badly(papers),
        "held": groups.held(papers),
        "sureness": opening.sureness(results),
        "state": opening.state_words(results, run),
        "checked": opening.checked_words(results),
        "ran_on": opening.ran_subjects(results),
        "columns": opening.ran_subjects(results),
        "not_judged": groups.not_judged_groups(papers),
        "q_of": opening.q_of(results),
        "unreported": [claim for claim in results.claims if claim.id in {item.claim for item in results.unreported}],
        "seconds": sum(cost.seconds or 0.0 for cost in run.costs) or None,
        "peak": max((cost.peak_bytes or 0 for cost in run.costs), default=0),
    }


def page(template: str, **context: Any) -> str:
    """`template` filled in; the style sheet is inline and its hash is the only style the page's policy allows."""
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return _environment().get_template(template).render(style=Markup(style), policy=policy, **context)


@functools.cache
def _style() -> str:
    sheet = files("circuit_claims.report").joinpath("templates", "style.css").read_text(encoding="utf-8")
    return f"\n{css()}{sheet}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("circuit_claims.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, duration=text.duration, size=text.size)
    environment.filters.update(moment=text.moment, brief=text.shorten)
    environment.globals.update(_words())
    return environment


def _words() -> Mapping[str, Any]:
    return {
        "kind_words": text.KIND_WORDS,
        "marks": text.OUTCOME_MARKS,
        "outcome_meaning": text.OUTCOME_MEANING,
        "claim_anchor": views.claim_anchor,
        "slug_of": {name: name.replace(" ", "-") for name in text.OUTCOME_MARKS},
        "measured_words": views.measured_words,
        "session_rows": opening.session_rows,
        "marked_sign": views.MARK_OF_MARKED,
    }


def _printable(value: Any) -> Any:
    """Applied to every value a template prints: hostile characters become visible, None prints as nothing."""
    if isinstance(value, Markup):
        return value
    return "" if value is None else text.visible(str(value))
