"""Measuring cells: equal to the engine called plainly, resumable, kept under what decides them; rows of texts."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_claims.keeping.store import Store
from circuit_claims.llc.losses import DivergenceFrom, NextToken
from circuit_claims.llc.refined import refined_llc
from circuit_claims.papers.refined_llc.curves.roles import text_for
from circuit_claims.papers.refined_llc.recording import coefficients as cv
from circuit_claims.papers.refined_llc.recording.cells import CellsError
from circuit_claims.papers.refined_llc.recording.rows import comparable, cut_evenly, rows_from_file
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

CONFIG = AttentionOnlyConfig(d_model=16, n_heads=2, d_head=8, n_ctx=12, d_vocab=31, init_std=0.4)
SETTINGS = cv.SGLDSettings(n_beta=10.0, gamma=100.0, eps=1e-3, num_chains=2, num_draws=25, batch_size=4)


def ingredients(**changes):
    models = {step: AttentionOnly(CONFIG).initialise(int(step)) for step in ("1", "2")}
    rows = torch.randint(0, 31, (16, 12), generator=torch.Generator().manual_seed(0))
    one = AttentionOnly(replace(CONFIG, n_layers=1)).initialise(7)
    losses = {"next token": NextToken(), "one-layer reference": DivergenceFrom(one)}
    given = cv.Ingredients(models.__getitem__, {"words": rows, "more": rows.flip(0)}, losses, {"paper": SETTINGS})
    return replace(given, **changes)


KEYS = cv.SweepPart(["1", "2"], ["1:0", "0:1"], ["words"]).cells()


def test_a_cell_is_what_the_engine_gives_when_called_plainly():
    given = ingredients()
    for cell in cv.measure_cells(KEYS, given):
        model, rows = given.models(cell.key.checkpoint), given.texts["words"]
        plain = refined_llc(model, rows, weights=cell.key.weights, n_beta=10.0, gamma=100.0, eps=1e-3, num_chains=2,
                            num_draws=25, batch_size=4, trace_probes=cv.PROBES)  # fmt: skip
        assert cell.mean == pytest.approx(plain.mean, rel=1e-6)
        assert cell.per_chain == pytest.approx(plain.per_chain, rel=1e-6)
        assert cell.numbers["hessian_trace"] == pytest.approx(plain.surroundings.hessian_trace, rel=1e-6)
        assert cell.trace.mean() == pytest.approx(plain.mean, rel=1e-4)
        assert cell.status == plain.status


def test_the_loss_and_the_text_of_a_cell_are_the_ones_it_names():
    given = ingredients()
    part = cv.SweepPart(["1"], ["1:0"], ["words", "more"], loss="one-layer reference")
    found = {cell.key: cell.mean for cell in cv.measure_cells(part.cells(), given)}
    for key, mean in found.items():
        plain = refined_llc(given.models("1"), given.texts[key.text], weights="1:0", loss=given.losses[key.loss],
                            n_beta=10.0, gamma=100.0, eps=1e-3, num_chains=2, num_draws=25, batch_size=4)  # fmt: skip
        assert mean == pytest.approx(plain.mean, rel=1e-6)
    assert len(set(found.values())) == 2


def test_a_sweep_that_was_cut_off_goes_on_where_it_stopped(tmp_path):
    steps = []
    store = Store(tmp_path)
    list(itertools.islice(cv.measure_cells(KEYS, ingredients(), store), 3))
    again = list(cv.measure_cells(KEYS, ingredients(), store, steps.append))
    assert [step.stored for step in steps] == [True, True, True, False]
    assert [step.done for step in steps] == [1, 2, 3, 4]
    unbroken = list(cv.measure_cells(KEYS, ingredients()))
    assert [cell.mean for cell in again] == [cell.mean for cell in unbroken]
    assert all(np.array_equal(a.trace, b.trace) for a, b in zip(again, unbroken, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"paper": replace(SETTINGS, seed=1)}},
        {"settings": {"paper": replace(SETTINGS, gamma=50.0)}},
        {"models": lambda step: AttentionOnly(CONFIG).initialise(9)},
        {"texts": {"words": torch.zeros(16, 12, dtype=torch.long)}},
    ],
)
def test_nothing_is_read_for_something_else(tmp_path, changes):
    steps = []
    list(cv.measure_cells(KEYS[:1], ingredients(), Store(tmp_path)))
    list(cv.measure_cells(KEYS[:1], ingredients(**changes), Store(tmp_path), steps.append))
    assert not steps[0].stored


def test_noise_of_no_length_changes_nothing_and_long_noise_costs_loss():
    given = ingredients()
    bench = cv.Bench(given.models("1"), given.estimands(given.models("1"), KEYS[:1]))
    potential = bench.potential(KEYS[0])
    assert cv.noise_llc(potential, SETTINGS, 0.0) == pytest.approx(0.0, abs=1e-5)
    assert np.isnan(cv.noise_llc(potential, SETTINGS, float("nan")))


def test_rows_are_spread_over_the_text_behind_a_beginning():
    rows = cut_evenly(np.arange(1000), 4999, length=11, most=10)
    assert rows.shape == (10, 11)
    assert rows[:, 0].tolist() == [4999] * 10
    assert rows[:, 1].tolist() == [index * 100 for index in range(10)]
    with pytest.raises(CellsError, match="at least 10 tokens"):
        cut_evenly(np.arange(5), 4999, length=11)


def test_rows_from_a_file_are_cut_and_anything_else_is_refused(tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(60, dtype=np.uint16).reshape(3, 20))
    assert rows_from_file(tmp_path / "rows.npy", length=4, most=2).tolist() == [[0, 1, 2, 3], [20, 21, 22, 23]]
    with pytest.raises(CellsError, match="rows of 21 tokens"):
        rows_from_file(tmp_path / "rows.npy", length=21)
    (tmp_path / "no.npy").write_text("x")
    with pytest.raises(CellsError, match=r"an \.npy file"):
        rows_from_file(tmp_path / "no.npy")


def test_texts_that_differ_are_not_compared_and_the_best_one_at_hand_is_taken():
    rows = {"a": torch.zeros(2, 3, dtype=torch.long), "b": torch.ones(2, 3, dtype=torch.long)}
    assert comparable(rows, {"a": cv.rows_digest(rows["a"]), "b": "another"}) == ("a",)
    assert text_for("training mixture", ["python-docs", "pile"]) == "pile"
    with pytest.raises(LookupError, match="cells on code"):
        text_for("code", ["python-docs"])
