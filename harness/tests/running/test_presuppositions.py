"""A claim about a thing is not asked of a model without it, and calibration, oracles and their words reach the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import forked
from tests.helpers.subjects import save_planted_subject
from tests.helpers.toy_project import make_project

MEASURES = """
from circuit_claims.api import Contribution, Interval, Measurement, Presupposition


def no_wave(subject):
    return None if subject.name == "tall" else ("no wave stands out here", Measurement("height", 0.1, Interval(0, 0.2)))


CONTRIBUTION = Contribution(presuppositions={"a wave": Presupposition("measures:no_wave")})
"""
TESTS = """
@claim("TY-01", "TY-02")
def test_it(subject, judge):
    print("MEASURED ON", subject.name)
    judge("TY-01", found(0.6, 0.9))
    judge("TY-02", found(0.6, 0.9))
"""
CALIBRATED = """
from dataclasses import replace

@claim("TY-01")
def test_it(subject, judge):
    plain = found(0.6, 0.9)
    ends = lambda generator: [0.6, 0.9] if generator.random() < %s else [0.0, 0.1]
    false = {"waves shuffled": lambda generator: found(*ends(generator)).measurement}
    oracles = {"a perfect wave": lambda: found(%s, 0.95).measurement}
    judge("TY-01", replace(plain, false=false, oracles=oracles, without={"without wind": lambda: plain.measurement}))
"""


def run(root: Path, *words: str) -> tuple[forked.Done, dict[tuple[str, str], dict[str, Any]]]:
    command = ("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store", "--offline")
    done = forked.run((*command, *words), root, {"CIRCUIT_CLAIMS_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"})
    results = root / "out" / "results.json"
    found = json.loads(results.read_text())["verdicts"] if results.exists() else []
    return done, {(verdict["claim"], verdict["subject"]): verdict for verdict in found}


def with_waves(root: Path, presupposing: tuple[str, ...], name: str = "a wave") -> Path:
    make_project(
        root, TESTS, claims=("TY-01", "TY-02"), conftest="", subjects=("gpt2",), contribution="measures:CONTRIBUTION"
    )
    (root / "claims" / "toy" / "measures.py").write_text(MEASURES)
    paper = root / "claims" / "toy" / "paper.toml"
    parts = paper.read_text().replace("others = false", "others = true").split("[[claim]]")
    for place, claim_id in ((1, "TY-01"), (2, "TY-02")):
        if claim_id in presupposing:
            parts[place] += f'presupposes = ["{name}"]\n'
    paper.write_text("[[claim]]".join(parts))
    for subject in ("flat", "tall"):
        save_planted_subject(root / subject, tasks=("days",))
    return root


def test_a_model_without_the_thing_is_not_measured_and_the_figure_that_says_so_is_shown(tmp_path):
    root = with_waves(tmp_path, ("TY-01", "TY-02"))
    done, found = run(root, "--subjects", "flat,tall", "-s")
    assert done.status == 0, done.text
    assert "MEASURED ON tall" in done.text
    assert "MEASURED ON flat" not in done.text
    assert {key: verdict["outcome"] for key, verdict in found.items() if key[1] != "gpt2"} == {
        ("TY-01", "flat"): "does not apply", ("TY-02", "flat"): "does not apply",
        ("TY-01", "tall"): "reproduced", ("TY-02", "tall"): "reproduced",
    }  # fmt: skip
    assert found["TY-01", "flat"]["reason"] == "no wave stands out here"
    assert found["TY-01", "flat"]["measurement"]["value"] == 0.1
    assert (
        "generalisation: 2 of 2 judged reproduced, 0 contradicted, 0 inconclusive; not judged: 2 does not apply"
        in done.text
    )


def test_of_two_claims_of_a_test_only_the_one_that_presupposes_is_left_out(tmp_path):
    _, found = run(with_waves(tmp_path, ("TY-02",)), "--subjects", "flat")
    assert found["TY-01", "flat"]["outcome"] == "reproduced"
    assert found["TY-02", "flat"]["outcome"] == "does not apply"


def test_an_unknown_presupposition_is_named_with_the_nearest(tmp_path):
    root = with_waves(tmp_path, ("TY-01",), "a wawe")
    done, found = run(root, "--subjects", "flat")
    assert done.status == 1
    assert "TY-01 presupposes the unknown thing 'a wawe'" in found["TY-01", "flat"]["reason"]
    checked = forked.run(("claims", "check", "claims/"), root, {})
    assert checked.status == 1
    assert "unknown 'a wawe' in `presupposes`" in checked.text
    assert "nearest   a wave" in checked.text


@pytest.mark.parametrize(
    ("share", "low", "outcome", "words"),
    [
        (0.02, 0.6, "reproduced", "of 200 called reproduced"),
        (0.30, 0.6, "failed", "the rule cannot tell: with waves shuffled"),
        (0.02, 0.2, "cannot be decided here", "a perfect wave, where the claim is true, gives"),
    ],
)
def test_calibration_decides_and_is_shown_beside_the_verdict(tmp_path, share, low, outcome, words):
    root = make_project(tmp_path, CALIBRATED % (share, low))
    done, found = run(root)
    verdict = found["TY-01", "gpt2"]
    assert verdict["outcome"] == outcome
    assert done.status == (1 if outcome == "failed" else 0), done.text
    (alarm,) = verdict["calibration"]["false_alarms"]
    assert sum(alarm["outcomes"].values()) == 200
    page = (root / "out" / "index.html").read_text()
    assert words in page
    assert "where it is false: waves shuffled" in page
    assert "where it is true: a perfect wave" in page
    assert ("the same without the instrument, which adds nothing here" in page) == (outcome == "reproduced")
    assert page.count("The same comes of without wind: the instrument adds") == 2 * (outcome == "reproduced")
