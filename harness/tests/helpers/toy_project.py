"""A project of its own with one small paper, for tests that run pytest inside pytest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

PAPER = """
[paper]
id = "toy"
title = "A toy paper"
authors = ["A. Person"]
venue = "Nowhere 2024"
year = 2024
url = "https://example.org"
"""
CLAIM = """
[[claim]]
id = "{id}"
title = "The score is at least a half"
locus = "section 1"
kind = "at_least"
quantity = "score"
unit = "share"
expected = 0.5
trust = "P"
margin = 0.0
margin_reason = "it says so"
subjects = {subjects}
text = "none"
controls = ["nothing"]
cost = "seconds"
others = false
"""
# A subject that needs no model: the fixture of the same name in the project's conftest wins over the plugin's.
PLAIN_SUBJECT = """
import pytest

@pytest.fixture
def subject(request):
    return request.param.subject
"""
HELPERS = """
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.measurement import Interval, Measurement
from circuit_claims.running.plugin import claim

def found(low, high, control=0.0):
    nothing = Measurement("score", control, Interval(control, control))
    return Finding(Measurement("score", (low + high) / 2, Interval(low, high), n=5), {"nothing": lambda: nothing})
"""


def as_toml(subjects: Mapping[str, Sequence[str]] | Sequence[str]) -> str:
    """Names, alone or by scope, as they stand in a paper.toml."""
    if isinstance(subjects, Mapping):
        return "{ " + ", ".join(f"{scope} = {json.dumps(list(names))}" for scope, names in subjects.items()) + " }"
    return json.dumps(list(subjects))


def make_project(
    root: Path,
    tests: str,
    *,
    claims: tuple[str, ...] = ("TY-01",),
    deviations: str = "",
    conftest: str = PLAIN_SUBJECT,
    subjects: Mapping[str, Sequence[str]] | Sequence[str] = ("gpt2",),
    contribution: str = "",
) -> Path:
    """Write claims/toy with a paper of these claims and a test file; returns the project's root."""
    folder = root / "claims" / "toy"
    folder.mkdir(parents=True)
    paper = PAPER + (f'contribution = "{contribution}"\n' if contribution else "")
    text = paper + "".join(CLAIM.format(id=name, subjects=as_toml(subjects)) for name in claims)
    (folder / "paper.toml").write_text(text)
    (folder / "deviations.toml").write_text(deviations)
    (folder / "test_toy.py").write_text(HELPERS + tests)
    (root / "claims" / "conftest.py").write_text(conftest)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = gpu: needs an accelerator\n")
    return root
