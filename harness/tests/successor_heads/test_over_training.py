"""SH-25 on series of saved models: one in which the head grows slowly, one in which it is there all at once, and one
whose early steps nobody has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_claims.heads.planted import random_tensors
from circuit_claims.judging.claims import load_papers
from circuit_claims.judging.verdicts import apply_rule, judge
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.store import Store
from circuit_claims.models.errors import ModelNotAvailable
from circuit_claims.models.resolve import resolve
from circuit_claims.papers.successor_heads.amounts import profile_of
from circuit_claims.papers.successor_heads.beyond.evidence import curve_over_training
from circuit_claims.papers.successor_heads.beyond.training import ScoreOverTraining, grown
from circuit_claims.running.subjects import Subject
from safetensors.torch import load_file, save_file

from tests.helpers import forked
from tests.helpers.subjects import save_planted_subject
from tests.helpers.toy_project import make_project

CLAIM = next(
    claim
    for paper in load_papers(Path(__file__).resolve().parents[3] / "claims")
    for claim in paper.claims
    if claim.id == "SH-25"
)
STEPS = (0, 128, 256, 512, 1000, 2000, 4000)
# Shares of the planted weights in the mixture; the score rises where they pass a half, so there they go slowly.
GROWN = {"slowly": (0.0, 0.40, 0.55, 0.62, 0.68, 0.76, 1.0), "at once": (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)}


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """For each way of growing, a function from `name@step` to the model saved at that step."""
    root = tmp_path_factory.mktemp("series")
    planted = save_planted_subject(root / "planted")
    full = load_file(str(planted / "model.safetensors"))
    config = json.loads((planted / "config.json").read_text())
    bare = random_tensors(config, torch.Generator().manual_seed(0)).tensors

    def saved(kind):
        for step, share in zip(STEPS, GROWN[kind], strict=True):
            folder = root / kind / f"step{step}"
            shutil.copytree(planted, folder)
            mixed = {name: torch.lerp(bare[name], full[name], share).contiguous() for name in full}
            save_file(mixed, str(folder / "model.safetensors"), metadata={"format": "pt"})
        return lambda name: resolve(root / kind / name.split("@")[1], cache_dir=root / "cache")

    return {kind: saved(kind) for kind in GROWN}, root


def training(series, kind):
    find, root = series[0][kind], series[1]
    context = Context(Store(root / "store"), profile=profile_of("quick"))
    return ScoreOverTraining(Subject("planted", find(f"planted@step{STEPS[-1]}"), context, find), STEPS)


def test_a_head_that_grows_slowly_agrees_with_the_claim(series):
    found = training(series, "slowly")
    finding = found.steepest_doubling()
    verdict = judge(CLAIM, finding.measurement, finding.controls_for(CLAIM))
    assert verdict.outcome == "reproduced", finding.measurement
    assert [item.control.name for item in verdict.controls] == ["planted phase change"]
    assert verdict.controls[0].outcome == "contradicted"
    assert found.table.facts["head"] == "L1H2"
    assert found.table.redrawn["strings"] == len(np.unique(found.table.arrays["string"]))
    assert found.table.arrays["y"][-1] == 1.0
    evidence = curve_over_training(found)
    assert evidence.x[0] == 0.0
    assert len(evidence.series[0].y) == len(STEPS)


def test_a_head_that_is_there_at_once_contradicts_it(series):
    found = training(series, "at once")
    assert apply_rule(CLAIM, found.steepest_doubling().measurement).outcome == "contradicted"
    assert found.table.value > 0.9
    assert 200 < found.table.facts["from"] < 512


def test_the_rule_tells_a_rise_at_once_from_one_that_is_even(series):
    finding = training(series, "slowly").steepest_doubling()
    calibration = finding.calibration_for(CLAIM, draws=40)
    assert calibration.worst is not None
    assert calibration.worst.rate <= 0.10
    assert calibration.oracles
    assert not calibration.blind, calibration.blind


def test_a_curve_is_made_again_from_the_passes_of_its_head(series):
    table = training(series, "slowly").table
    again = grown(table, table.arrays["hits"], np.random.default_rng(0))
    assert again.value == pytest.approx(table.value)
    assert again.interval.low == pytest.approx(table.interval.low, abs=0.05)
    assert again.interval.high == pytest.approx(table.interval.high, abs=0.05)


def test_a_curve_is_stored_under_the_weights_of_every_step(series):
    first, second = training(series, "slowly").table, training(series, "slowly").table
    assert second.origin == "store"
    assert first.value == second.value
    assert training(series, "at once").table.facts["key"] != first.facts["key"]


def test_a_model_without_saved_steps_says_what_was_expected(series):
    model = series[0]["slowly"]("planted@step0")
    with pytest.raises(ValueError, match="expected a model of the registry with saved training steps, found none"):
        Subject("local", model, Context(None)).at_step(0)


def test_a_step_that_cannot_be_had_names_the_line_that_fetches_it(series, tmp_path):
    def find(name):
        return resolve(name, cache_dir=tmp_path, offline=True)

    model = series[0]["slowly"]("planted@step0")
    with pytest.raises(ModelNotAvailable) as caught:
        Subject("pythia-160m", model, Context(None), find).at_step(512)
    assert caught.value.command == "claims fetch pythia-160m@step512"


def test_a_claim_whose_early_step_is_missing_is_not_run(tmp_path):
    tests = (
        '@claim("TY-01")\ndef test_it(subject, judge):\n'
        "    from circuit_claims.models.resolve import resolve\n"
        '    resolve("pythia-160m@step512", offline=True)\n'
    )
    root = make_project(tmp_path, tests)
    words = ("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store")
    done = forked.run(words, root, {"CIRCUIT_CLAIMS_CACHE": str(tmp_path / "cache")})
    assert done.status == 0, done.text
    events = [json.loads(line) for line in (root / "out" / "events.jsonl").read_text().splitlines()]
    (verdict,) = [event for event in events if event["event"] == "verdict"]
    assert (verdict["outcome"], verdict["command"]) == ("not here", "claims fetch pythia-160m@step512")
    assert verdict["rerun"] == ""
    assert "pythia-160m@step512 is not on this machine" in verdict["reason"]
