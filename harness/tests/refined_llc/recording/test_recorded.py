"""Recorded cells of a tiny run: recorded, compared with live ones, and refused where weights or values are others'."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.store import Store
from circuit_claims.llc import sweep
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.papers.refined_llc.curves import evidence as show
from circuit_claims.papers.refined_llc.curves import findings as curves_findings
from circuit_claims.papers.refined_llc.curves.findings import coefficients
from circuit_claims.papers.refined_llc.multigrams import evidence as together
from circuit_claims.papers.refined_llc.multigrams import findings as mf
from circuit_claims.papers.refined_llc.multigrams import measures as mm
from circuit_claims.papers.refined_llc.recording import record as rec
from circuit_claims.papers.refined_llc.recording import recorded as cr
from circuit_claims.papers.refined_llc.recording import rows as curves_rows
from circuit_claims.papers.refined_llc.recording.cells import CellKey, CellsError, load_cells, save_cells
from circuit_claims.papers.refined_llc.recording.compare import RecordedCellDiffers
from circuit_claims.papers.refined_llc.runs.live import LiveRun
from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable
from circuit_claims.report.figures.evidence import exhibit
from circuit_claims.texts import standard_text
from circuit_claims.toy.checkpoints import RunFolder, save_checkpoint
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from circuit_claims.toy.tokenizer import train_tokenizer

CONFIG = AttentionOnlyConfig(d_model=8, n_heads=2, d_head=4, n_ctx=128, init_std=0.3)
QUICK = SGLDSettings(30.0, 200.0, 1e-3, num_chains=2, num_draws=12, batch_size=2, mala_every=0, control_draws=2)
STEPS = (0, 5, 9)


@pytest.fixture(scope="module", autouse=True)
def few_rows():
    """Few and short rows: tables of tokens by vocabulary are what takes time and memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves_rows, "ROWS", 16)
        patch.setattr(curves_rows, "LENGTH", 17)
        yield


@pytest.fixture(scope="module")
def recorded(few_rows, tmp_path_factory):
    """A run of three steps with its one-layer run and recorded cells."""
    root = tmp_path_factory.mktemp("runs")
    tokenizer = train_tokenizer([standard_text("python-docs"), standard_text("stdlib-source")])
    (root / "tokenizer.json").write_text(tokenizer.definition)
    for name, config in (("two_layer", CONFIG), ("one_layer", replace(CONFIG, n_layers=1))):
        (root / name).mkdir()
        for step in STEPS:
            save_checkpoint(root / name, step, AttentionOnly(config).initialise(step), torch.float16)
        card = {"model": asdict(config), "tokenizer": tokenizer.digest, "recipe": {"seed": 1}}
        (root / name / "run_card.json").write_text(json.dumps(card))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rec, "PAPER", QUICK)
        patch.setattr(rec, "choose_second", lambda *_: replace(QUICK, gamma=100.0))
        told = []
        rec.record_cells(root / "two_layer", {}, Store(root / "store"), tell=told.append)
    return root / "two_layer", told


def opened(folder):
    return LiveRun(RunFolder.open(folder), Context(store=Store(folder.parent / "store")), "own-run", "own")


def test_every_cell_that_claims_need_is_recorded(recorded):
    folder, told = recorded
    table = cr.open_cells(opened(folder))
    losses = cr.losses_of(opened(folder))
    wanted = {key for part in cr.plan(opened(folder), list(table.texts), losses) for key in part.cells()}
    assert wanted == set(table.cells)
    assert {"paper", "second"} == set(table.settings)
    assert {key.loss for key in table.cells} == {"next token", "one-layer reference"}
    assert any("hours" in line for line in told)
    assert set(table.recordings[0]) >= {"hardware", "date", "commit"}


def test_a_recording_that_is_stopped_early_has_cells_that_every_machine_can_measure_again(recorded):
    """Before anything is measured over training: rows of Python's own texts are the same wherever its version is."""
    given = ["training-mixture", "code", "tinystories", "python-docs", "stdlib-source"]
    first, second, *_ = cr.plan(opened(recorded[0]), given, {"next token": None})
    assert set(first.texts) == {"training-mixture", "code"}
    assert {(key.checkpoint, key.text, key.weights[0]) for key in second.cells()} == {
        ("9", "python-docs", "1"),
        ("9", "stdlib-source", "1"),
    }


def test_recording_again_measures_nothing(recorded, monkeypatch):
    folder, _ = recorded
    monkeypatch.setattr(rec, "PAPER", QUICK)
    steps = []
    found = rec.record_cells(folder, {}, Store(folder.parent / "store"), progress=steps.append)
    assert (found.missing, steps) == (0, [])


def test_a_recording_with_a_rounded_readout_says_what_that_does(recorded, monkeypatch, tmp_path):
    folder, _ = recorded
    monkeypatch.setattr(rec, "PAPER", QUICK)
    monkeypatch.setattr(rec, "choose_second", lambda *_: None)
    how = {"into": tmp_path / "cells", "precision": "bf16", "hours": 0.0}
    assert rec.record_cells(folder, {}, Store(tmp_path / "store"), **how).cells == 1
    rounded, exact = load_cells(tmp_path / "cells"), cr.open_cells(opened(folder))
    (key,) = rounded.cells
    assert rounded.cells[key].mean == pytest.approx(exact.cells[key].mean, abs=exact.cells[key].error)
    assert rounded.cells[key].mean != exact.cells[key].mean
    told = rounded.recordings[0]["what rounding does"]
    assert f"{key}: {rounded.cells[key].mean:.4g}, in float32 {exact.cells[key].mean:.4g}" in told
    assert rounded.recordings[0]["readout"] == "bfloat16"
    with pytest.raises(CellsError, match="expected fp32 or bf16\n  Type: --precision bf16"):
        rec.record_cells(folder, {}, Store(tmp_path / "store"), precision="fp8")


def test_cells_measured_again_with_other_random_numbers_agree(recorded):
    run = opened(recorded[0])
    found = cr.measure_again(run, cr.open_cells(run), np.random.default_rng(0), count=3)
    assert len(found) == 3
    assert all(one.agrees and one.live != one.recorded for one in found)


def test_a_comparison_is_made_once_for_the_same_code_and_cells(recorded, monkeypatch):
    run = opened(recorded[0])
    table, made = cr.open_cells(run), []
    measured = sweep.measure_chains
    monkeypatch.setattr(sweep, "measure_chains", lambda *given, **how: made.append(1) or measured(*given, **how))

    def compared():
        generator = np.random.default_rng(cr.comparison_seed(run, table))
        return cr.measure_again(run, table, generator, store=run.context.store)

    first = compared()
    count = len(made)
    assert count > 0
    assert compared() == first
    assert len(made) == count
    other = replace(table, cells={key: replace(cell, seed=9) for key, cell in table.cells.items()})
    assert cr.comparison_seed(run, other) != cr.comparison_seed(run, table)


def test_a_recorded_cell_that_is_wrong_is_named(recorded):
    run = opened(recorded[0])
    table = cr.open_cells(run)
    wrong = {
        key: replace(cell, numbers={**cell.numbers, "mean": cell.mean + 1000 * cell.error + 100})
        for key, cell in table.cells.items()
    }
    with pytest.raises(RecordedCellDiffers, match=r"\d:\d at .* on (python-docs|stdlib-source)") as error:
        cr.measure_again(run, replace(table, cells=wrong), np.random.default_rng(0))
    assert "claims record-cells" in str(error.value)


def test_other_texts_are_not_compared(recorded):
    run = opened(recorded[0])
    table = replace(cr.open_cells(run), texts={"python-docs": "another", "stdlib-source": "another"})
    assert cr.measure_again(run, table, np.random.default_rng(0)) == ()


def test_cells_of_other_weights_are_refused(recorded, tmp_path):
    run = opened(recorded[0])
    table = cr.open_cells(run)
    folder = cr.cells_folder(run)
    save_cells(folder, replace(table, checkpoints={**table.checkpoints, "9": "0" * 64}))
    try:
        with pytest.raises(CellsError, match="other weights"):
            cr.open_cells(run)
    finally:
        save_cells(folder, table)


def test_a_run_without_cells_says_what_to_type(recorded, tmp_path):
    run = opened(recorded[0])
    other = replace(run, run=replace(run.run, folder=tmp_path / "two_layer"))
    with pytest.raises(RunNotAvailable, match="claims record-cells"):
        cr.open_cells(other)


def test_remeasuring_says_how_long_and_gives_the_same_cells(recorded):
    run, told = opened(recorded[0]), []
    table = cr.open_cells(run)
    few = replace(table, cells={key: table.cells[key] for key in sorted(table.cells)[:3]})
    found = cr.remeasure(run, few, told.append)
    assert "hours" in told[0]
    for key, cell in found.cells.items():
        assert cell.mean == pytest.approx(table.cells[key].mean, rel=1e-4)


def test_coefficients_are_the_recorded_ones_with_errors(recorded):
    run = opened(recorded[0])
    found = coefficients(run)
    table = found.table("training mixture")
    assert table.steps == (5, 9)
    cell = load_cells(cr.cells_folder(run)).cells[CellKey("9", "1:1", "python-docs")]
    assert (table.mean[1, 3], table.error[1, 3]) == pytest.approx((cell.mean, cell.error))
    assert len(found.again) == 2
    assert coefficients(run) is found


def test_a_cell_that_differs_stops_every_claim_of_the_session(recorded, monkeypatch):
    """The next two cells drawn might agree: what one claim saw, the others must not forget."""
    asked = []

    def differs(*_, **__):
        asked.append(1)
        raise RecordedCellDiffers("1 recorded cell differs from what is measured here")

    monkeypatch.setattr(curves_findings, "_OPENED", {})
    monkeypatch.setattr(cr, "measure_again", differs)
    for _ in range(3):
        with pytest.raises(RecordedCellDiffers, match="1 recorded cell differs"):
            coefficients(opened(recorded[0]))
    assert len(asked) == 1


def test_ablations_of_a_run_are_measured_stored_and_shown(recorded, monkeypatch):
    monkeypatch.setattr(mm, "ROWS", 8)
    monkeypatch.setattr(mm, "PATH_ROWS", 4)
    ablations = mf.PathAblations(opened(recorded[0]))
    counts = ablations.counts()
    assert set(counts) == {"0:0", "0:1", "1:0", "1:1"}
    effects = ablations.effects("9")
    assert effects.shape == (2, 2, 8, 16)
    assert set(ablations.types.values()) <= {"multigram", "bracket", "current-token", "previous-token", "induction"}
    assert -1 <= ablations.paths_and_composition().measurement.value <= 1
    assert ablations.nested().arrays["closers"].shape[:2] == (2, 2)
    again = mf.PathAblations(opened(recorded[0])).samples("9")
    assert (again.origin, again.facts["agreement"]) == ("store", ablations.samples("9").facts["agreement"])
    shown = [
        *together.sample_table(ablations),
        *together.path_ablation_maps(ablations),
        *together.nested_table(ablations),
    ]
    shown += [together.overlap_bars(ablations), *together.overlap_maps(ablations)]
    shown += [show.types_table(ablations.run), show.attention_patterns(ablations.run)]
    assert [exhibit(one.to_json(), f"e{index}").trouble for index, one in enumerate(shown)] == [""] * len(shown)


@pytest.mark.parametrize("statuses", [("complete", "complete", "partial"), ("partial", "diverged", "partial")])
def test_the_second_setting_is_the_one_of_those_that_pass_the_gate_with_the_most_draws(recorded, monkeypatch, statuses):
    made = {}

    def fake(keys, given, kept):
        for index, (key, status) in enumerate(zip(keys, statuses, strict=True)):
            made[key.setting] = given.settings[key.setting]
            yield SimpleNamespace(key=key, status=status, numbers={"ess": 10.0 * index})

    monkeypatch.setattr(rec, "GRID", ((50.0, 1e-3), (100.0, 1e-3), (400.0, 3e-4)))
    monkeypatch.setattr(rec, "measure_cells", fake)
    found = rec.choose_second(
        RunFolder.open(recorded[0].parent / "one_layer"), torch.zeros(4, 9), None, "cpu", lambda _: None
    )
    assert found == (made["100/0.001"] if "complete" in statuses else None)


def test_pairs_of_name_and_file_are_asked_for():
    with pytest.raises(CellsError, match="NAME=FILE"):
        rec.parse_rows(["code"])
