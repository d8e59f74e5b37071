"""The miniature paper judged: present where it was planted, absent where it was not, whatever kind of network."""

from __future__ import annotations

import json

import pytest
from circuit_claims.heads.head_types_planted import planted_types_model
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.verdicts import judge
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.store import Store
from circuit_claims.models.resolve import resolve
from circuit_claims.papers.refined_llc.runs.live import LiveRun
from circuit_claims.report.figures.evidence import exhibit
from circuit_claims.running.subjects import Subject
from circuit_claims.toy.checkpoints import CARD, RunFolder, save_checkpoint

from tests.api import third_paper
from tests.helpers.small_models import save_small_model

CLAIM = Claim(
    id="TP-01", paper="third", title="A head matches prefixes", locus="here", kind="at_least",
    quantity="prefix matching of the best head", unit="share", expected=0.5, trust="?", margin=0.1,
    margin_reason="ours", subjects=("run",), text="none", controls=("untrained weights",),
    positive_controls=("planted",), cost="seconds",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    model = planted_types_model({"0:1": "previous-token", "1:6": "induction"})
    config = {name: getattr(model.config, name) for name in ("n_layers", "d_model", "n_heads", "d_head", "n_ctx")}
    (root / CARD).write_text(json.dumps({"model": {**config, "d_vocab": model.config.d_vocab}}))
    save_checkpoint(root, 100, model)
    return LiveRun(RunFolder.open(root), Context(Store(root / "store")), "run", "own")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    root = tmp_path_factory.mktemp("model")
    folder = save_small_model("llama", root / "model")
    return Subject("small", resolve(folder, cache_dir=root / "cache"), Context(Store(root / "store")))


def test_a_run_with_a_planted_induction_head_reproduces_the_claim(run):
    finding = third_paper.induction(run)
    verdict = judge(CLAIM, finding.measurement, finding.controls_for(CLAIM))
    assert verdict.outcome == "reproduced", verdict
    assert finding.measurement.facts["head"] == [1, 6]
    assert finding.measurement.p_value == pytest.approx(1 / 21)
    assert all(control.as_it_must_be for control in verdict.controls)


def test_a_random_pretrained_model_contradicts_it(pretrained):
    finding = third_paper.induction(pretrained)
    verdict = judge(CLAIM, finding.measurement, finding.controls_for(CLAIM))
    assert verdict.outcome == "contradicted", verdict
    assert all(control.as_it_must_be for control in verdict.controls)


def test_what_is_shown_is_drawn(run, pretrained):
    for subject in (run, pretrained):
        for evidence in third_paper.shown(subject):
            assert exhibit(evidence.to_json(), "x").trouble == ""
