"""The run that ships with the project: whole, as its card says, and small enough to be cloned."""

import json

import pytest
from circuit_claims.llc.slices import digest
from circuit_claims.places import FIXTURES
from circuit_claims.toy.checkpoints import RunFolder

FOLDER = FIXTURES / "attention_only" / "two_layer"


@pytest.fixture(scope="module")
def run():
    return RunFolder.open(FOLDER)


def test_every_checkpoint_is_the_one_of_the_card(run):
    assert 10 <= len(run.steps) <= 12
    assert set(run.card["digests"]) == {str(step) for step in run.steps}
    models = [run.model(step) for step in run.steps]
    assert len({digest(model) for model in models}) == len(run.steps)
    assert run.steps[-1] == run.card["recipe"]["steps"]


def test_it_is_small_enough_to_be_cloned():
    assert sum(path.stat().st_size for path in FOLDER.parent.rglob("*") if path.is_file()) < 80e6


def test_the_tokenizer_is_the_one_it_was_trained_with(run):
    words = json.loads(run.tokenizer.definition)["model"]["vocab"]
    assert (len(words), words["\u0120"]) == (4999, 220)
    assert run.config.d_vocab == 5000


def test_the_card_says_where_everything_came_from(run):
    card = run.card
    assert sum(source["share"] for source in card["corpus_card"]["sources"]) == pytest.approx(1, abs=0.01)
    assert all(source["licence"] for source in card["corpus_card"]["sources"])
    assert len(card["differs from the paper"]) >= 3
    assert {"machine", "how it went", "torch", "device", "seed"} <= set(card) | set(card["recipe"])


def test_it_read_as_much_as_was_asked_and_its_loss_fell(run):
    losses = run.losses()
    assert losses["step"][-1] == run.steps[-1] >= 40_000
    assert losses["tokens"][-1] >= 80e6
    tested = [loss for loss in losses["test_loss"] if loss == loss]
    assert tested[-1] == min(tested) < 3.6


def test_the_one_layer_reference_beside_it_has_read_the_same_tokens_and_knows_less(run):
    one = RunFolder.open(FOLDER.parent / "one_layer")
    assert one.config.n_layers == 1
    assert (one.card["tokenizer"], one.card["corpus"]) == (run.card["tokenizer"], run.card["corpus"])
    assert one.model(one.steps[-1]) is not None
    assert set(one.card["digests"]) == {str(step) for step in one.steps}
    assert one.steps[-1] == one.card["recipe"]["steps"] >= 40_000
    assert one.losses()["tokens"][-1] >= 80e6
    assert run.losses()["test_loss"][-1] + 0.2 < one.losses()["test_loss"][-1] < 4


def test_its_first_steps_in_bf16_are_those_in_fp32(run):
    """Rounding the products moves the loss on a batch by less than a hundredth of a nat."""
    from circuit_claims.keeping.measure import Context
    from circuit_claims.papers.refined_llc.runs.live import LiveRun
    from circuit_claims.papers.refined_llc.stages.run_evidence import loss_curves

    whole, first = loss_curves(LiveRun(run, Context(store=None), "own-run", "own"))
    assert whole.x[-1] == run.steps[-1]
    rounded, exact = (series.y for series in first.series)
    assert len(rounded) == len(exact) >= 8
    apart = max(abs(a - b) for a, b in zip(rounded, exact, strict=True))
    assert 0 < apart < 0.01
    assert f"at most {apart:.4f} nats" in first.caption
