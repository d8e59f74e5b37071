"""A model as the subject of a run: known by its bytes, described on a card, and guarded while tests read it."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace

import pytest
from circuit_claims.judging.claims import Claim
from circuit_claims.keeping.measure import Context
from circuit_claims.models.errors import DamagedWeights
from circuit_claims.models.registry import load_registry
from circuit_claims.models.resolve import resolve
from circuit_claims.papers.successor_heads.succession.planted_subject import WordTokens
from circuit_claims.running.papers import shipped_papers
from circuit_claims.running.subjects import Subject

from tests.helpers import forked
from tests.helpers.subjects import save_planted_subject
from tests.helpers.toy_project import CLAIM, make_project


@pytest.fixture
def opened(tmp_path):
    save_planted_subject(tmp_path / "planted", tasks=("days", "letters"))
    return lambda name="planted": Subject(name, resolve(tmp_path / name, cache_dir=tmp_path / "cache"), Context(None))


def claim(*requires):
    (raw,) = tomllib.loads(CLAIM.format(id="TY-01", subjects='["gpt2"]'))["claim"]
    return Claim.model_validate({**raw, "paper": "successor_heads", "requires": requires})


def not_applicable(subject, *claims):
    return shipped_papers().not_applicable(subject, claims)


def test_a_copy_of_a_model_is_the_same_subject_and_other_weights_are_not(tmp_path, opened):
    shutil.copytree(tmp_path / "planted", tmp_path / "copy")
    save_planted_subject(tmp_path / "other", tasks=("months", "letters"))
    identities = [opened(name).identity() for name in ("planted", "copy", "other")]
    assert identities[0] == identities[1] != identities[2]


def test_the_card_says_what_a_reader_should_know(opened):
    card = opened().card()
    assert (card["title"], card["licence"], card["note"]) == ("planted", "not known: a local model", "")
    assert card["source"] == "from: local folder, kind: hf"
    assert (card["architecture"], card["n_layers"], card["n_heads"]) == ("llama", 2, 4)
    assert shipped_papers().card_lines(opened())["tokenizer"]["days"] == 28
    assert shipped_papers().card_lines("a training run") == {}
    assert json.loads(json.dumps(card)) == card


@pytest.mark.parametrize(("n_ctx", "applies"), [(64, False), (511, False), (512, True), (None, True)])
def test_a_claim_on_long_contexts_is_not_asked_of_a_model_that_cannot_read_them(tmp_path, opened, n_ctx, applies):
    config = json.loads((tmp_path / "planted" / "config.json").read_text())
    limits = {"max_position_embeddings": n_ctx} if n_ctx else {}
    config = {key: value for key, value in config.items() if key != "max_position_embeddings"} | limits
    (tmp_path / "planted" / "config.json").write_text(json.dumps(config))
    reason = "" if applies else "not applicable: the model reads fewer than the 512 tokens of the paper's contexts"
    assert not_applicable(opened(), claim(), claim("long_contexts")) == reason
    assert not_applicable(opened(), claim()) == ""


def test_a_claim_of_training_steps_is_not_applicable_without_any(opened):
    assert not_applicable(opened(), claim(), claim("training_revisions")) == (
        "not applicable: no weights of earlier training steps are published"
    )
    assert not_applicable(opened(), claim()) == ""
    rows = load_registry()
    steps = {name: replace(opened(), model=replace(opened().model, row=rows[name])) for name in ("pythia-70m", "gpt2")}
    assert not_applicable(steps["pythia-70m"], claim("training_revisions")) == ""
    assert not_applicable(steps["gpt2"], claim("training_revisions")).startswith("not applicable")


def test_whether_a_local_model_has_whole_numbers_is_read_off_its_tokenizer(opened):
    assert not_applicable(opened(), claim("multi_digit_numbers")) == "not applicable: numbers are split into digits"
    whole = opened()
    whole.__dict__["tokens"] = WordTokens({str(number): number for number in range(1, 201)})
    assert not_applicable(whole, claim("multi_digit_numbers")) == ""


def test_weights_changed_on_disk_are_noticed(tmp_path, opened):
    subject = opened()
    subject.check_untouched()
    with open(tmp_path / "planted" / "model.safetensors", "ab") as file:
        file.write(b"\0")
    with pytest.raises(DamagedWeights):
        subject.check_untouched()


def test_a_test_that_changes_the_weights_is_an_error_and_its_verdict_falls(tmp_path):
    tests = (
        '@claim("TY-01")\ndef test_it(subject, judge):\n    judge("TY-01", found(0.6, 0.9))\n'
        '    with open("planted/model.safetensors", "ab") as file:\n        file.write(b"x")\n'
    )
    root = make_project(tmp_path, tests, conftest="")
    paper = root / "claims" / "toy" / "paper.toml"
    paper.write_text(paper.read_text().replace("others = false", "others = true"))
    save_planted_subject(root / "planted", tasks=("days",))
    words = ("pytest", "claims/", "-p", "no:cacheprovider", "--report", "out", "--store", "store")
    environment = {"CIRCUIT_CLAIMS_CACHE": str(tmp_path / "cache")}
    done = forked.run((*words, "--subjects", "planted"), root, environment)
    assert done.status == 1
    assert "1 error" in done.text
    results = json.loads((root / "out" / "results.json").read_text())
    (verdict,) = [verdict for verdict in results["verdicts"] if verdict["subject"] == "planted"]
    assert verdict["outcome"] == "failed", "a verdict on weights that changed under it does not stand"
    assert verdict["reason"].startswith("DamagedWeights")
