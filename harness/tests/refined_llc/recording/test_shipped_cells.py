"""The recorded coefficients that ship with the project: of the shipped weights, whole, and with their errors."""

import math

import pytest
from circuit_claims.heads.head_types import all_heads
from circuit_claims.keeping.measure import Context
from circuit_claims.papers.refined_llc.recording.recorded import NEXT_TOKEN, REFERENCE, UNTRAINED, open_cells
from circuit_claims.papers.refined_llc.runs.live import LiveRun
from circuit_claims.places import FIXTURES
from circuit_claims.toy.checkpoints import RunFolder

HEADS = set(all_heads(2, 8))


@pytest.fixture(scope="module")
def run():
    return LiveRun(RunFolder.open(FIXTURES / "attention_only" / "two_layer"), Context(store=None), "own-run", "own")


@pytest.fixture(scope="module")
def table(run):
    return open_cells(run)


def test_every_head_was_recorded_at_every_checkpoint(run, table):
    for step in map(str, run.steps):
        found = table.select(text="training-mixture", checkpoint=step, loss=NEXT_TOKEN, setting="paper")
        assert {key.weights for key in found} >= HEADS
        assert table.checkpoints[step] == run.run.digest(int(step))
    for step in (UNTRAINED, str(run.steps[-1])):
        found = table.select(text="code-by-language", checkpoint=step, loss=NEXT_TOKEN, setting="paper")
        assert {key.weights for key in found} >= HEADS


def test_the_reference_loss_and_a_second_setting_were_recorded_at_the_end(run, table):
    last = str(run.steps[-1])
    for wanted in ({"loss": REFERENCE, "setting": "paper"}, {"loss": NEXT_TOKEN, "setting": "second"}):
        assert {key.weights for key in table.select(checkpoint=last, text="training-mixture", **wanted)} >= HEADS
    assert table.settings["paper"] != table.settings["second"]


def test_estimates_at_the_end_pass_the_gate_with_errors_that_are_numbers(run, table):
    for key, cell in table.select(checkpoint=str(run.steps[-1]), loss=NEXT_TOKEN).items():
        assert cell.status == "complete", key
        assert 0 < cell.error < 0.25 * abs(cell.mean) + 0.1, key
        assert math.isfinite(cell.numbers["control_llc"])
        assert math.isfinite(cell.numbers["noise_llc"])


def test_an_untrained_head_is_no_minimum_and_the_gate_says_so(table):
    """A head whose weights are noise can only be improved: chains go down as easily as up."""
    for key, cell in table.select(checkpoint=UNTRAINED, setting="paper").items():
        assert cell.mean < 3 * cell.error, key
        assert cell.status == "partial", key


def test_the_table_says_where_when_and_how_it_was_made(table):
    for recording in table.recordings:
        assert {"hardware", "date", "commit", "torch", "python"} <= set(recording)
        assert "Monte Carlo error" in recording["what rounding does"]


def test_cells_on_python_s_own_texts_are_there_to_be_measured_again_anywhere(table):
    assert {key.text for key in table.cells} >= {"python-docs", "stdlib-source"}
