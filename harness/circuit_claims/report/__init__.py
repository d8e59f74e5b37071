"""The report of a run: `write_report(run_dir)` makes it from the event stream, `load_results(path)` reads it back.

Read first: `model` (what a report holds), `collect` (from events to that), `views` and `render` (from that to a page).
`diff` sets runs side by side. May import `judging` and `keeping`, and draws with matplotlib; it measures nothing, and
no measure imports it.
"""

from circuit_claims.report.collect import ReportError
from circuit_claims.report.diff import Diff, diff_runs, diff_text, render_diff
from circuit_claims.report.files import load_results
from circuit_claims.report.model import Results
from circuit_claims.report.render import ReportPaths, write_report

__all__ = [
    "Diff",
    "ReportError",
    "ReportPaths",
    "Results",
    "diff_runs",
    "diff_text",
    "load_results",
    "render_diff",
    "write_report",
]
