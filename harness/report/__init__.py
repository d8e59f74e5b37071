"""The report of a run: `write_report(run_dir)` makes it from the event stream, `load_results(path)` reads it back."""

from harness.report.collect import ReportError
from harness.report.diff import Diff, diff_runs, diff_text, render_diff
from harness.report.files import load_results
from harness.report.model import Results
from harness.report.render import ReportPaths, write_report

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
