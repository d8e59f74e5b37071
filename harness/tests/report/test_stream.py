"""What the harness writes is what the report reads: claim, judge and event stream to page, without pytest between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.evidence import TextBlock
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.measurement import Cost, Interval, Measurement
from circuit_claims.keeping.events import EventStream
from circuit_claims.report import load_results, write_report
from circuit_claims.running.judge import Judge

from tests.report.sample import CLAIMS, PAPER


def finding(value: float) -> Finding:
    """A made-up finding with a negative control that fails and arrays that stay out of the stream."""
    measured = Measurement(
        "made-up ratio", value, Interval(value - 0.5, value + 0.5, 0.9, "bootstrap"), "ratio", n=10, seed=0,
        arrays={"draws": np.zeros(3)}, facts={"path": "mlp0"}, cost=Cost(1.0, 1 << 20), origin="store",
    )  # fmt: skip
    shuffled = Measurement("made-up ratio", 1.0, Interval(0.9, 1.1), "ratio")
    return Finding(measured, {"shuffled map": lambda: shuffled})


def test_verdicts_written_by_the_judge_are_reported_as_given(tmp_path: Path) -> None:
    claim = Claim.model_validate(CLAIMS[2])
    stream = EventStream(tmp_path)
    stream.start()
    stream.write("run", id="x", argv="--profile quick", profile="quick", papers=[PAPER],
                 claims=[claim.model_dump(mode="json")])  # fmt: skip
    for subject, value in (("synthetic-a", 9.0), ("synthetic-b", 2.0)):
        judge = Judge(
            {claim.id: claim}, subject, f"test.py::test[{subject}]", f'pytest "test.py::test[{subject}]"', stream
        )
        judge(claim.id, finding(value), evidence=[TextBlock(title="note", text="said")])
    missing = Judge({claim.id: claim}, "synthetic-paper-model", "test.py::test[c]", "pytest c", stream)
    missing.not_judged("no weights here", "claims fetch c")
    broken = Judge({claim.id: claim}, "synthetic-d", "test.py::test[d]", "pytest d", stream)
    broken.broke(RuntimeError("it <broke>"))
    stream.write("end", finished="later", exitstatus=1)

    paths = write_report(tmp_path)
    results = load_results(paths.results)
    assert [(item.subject, item.scope, item.outcome) for item in results.verdicts] == [
        ("synthetic-paper-model", "reproduction", "not here"),
        ("synthetic-a", "generalisation", "reproduced"),
        ("synthetic-b", "generalisation", "contradicted"),
        ("synthetic-d", "generalisation", "failed"),
    ]
    assert results.complete
    found = results.verdicts[1].measurement
    assert found is not None
    assert (found.value, found.n, found.interval.low) == (9.0, 10, 8.5)  # type: ignore[union-attr]
    assert [control.as_it_must_be for control in results.verdicts[1].controls] == [True]
    page = paths.index.read_text()
    for words in ("RuntimeError: it &lt;broke&gt;", "claims fetch c", "read from the store", "--profile quick"):
        assert words in page
