"""The recorded numbers: read as they stand, refused when damaged or foreign; the authors' own file where it is here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from circuit_claims.keeping.measure import Context
from circuit_claims.papers.refined_llc.runs.recorded import (
    ENVIRONMENT,
    FILE,
    RecordedArray,
    RecordedData,
    RecordedDataError,
    RecordedRun,
    checkpoint_noise,
    find_recorded,
)
from circuit_claims.papers.refined_llc.runs.recorded_planted import planted_numbers
from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def numbers():
    return planted_numbers()


@pytest.fixture
def written(tmp_path, numbers):
    def write(**changes):
        table = {key: value for key, value in {**numbers, **changes}.items() if value is not None}
        (tmp_path / FILE).write_text(json.dumps(table))
        return RecordedRun(RecordedData(tmp_path / FILE), Context(None))

    return write


def test_arrays_are_read_with_their_labels(written, numbers):
    run = written()
    assert run.steps[:3] == (0, 100, 200)
    loss = run.data.series("L2_test_loss")
    assert (loss.labels[1], loss.updates[1], loss.values[1]) == (100, 101, numbers["L2_test_loss"][1])
    pair = run.k_composition()
    assert pair.values[7, 3, 5] == numbers["L2_kcomp"]["3->5"][7]
    assert run.head_scores("prefix").values[-1, 1, 6] == numbers["L2_prefix_scores"][-1][1][6]
    norms, total = run.position_norms()
    assert (len(norms), total) == (1024, numbers["L2_norm"][0])


def test_a_quantity_may_lack_the_last_labels(written, numbers):
    short = dict(list(numbers["L2_llc_mean"].items())[:-1])
    curve = written(L2_llc_mean=short).llc_curve()
    assert len(curve.steps) == len(numbers["steps"]) - 1
    assert curve.at(1e9) == len(curve.steps) - 1


def test_nothing_is_parsed_before_it_is_asked_for(tmp_path):
    run = RecordedRun(RecordedData(tmp_path / "not there"), Context(None))
    assert not vars(run.data).keys() & {"_bytes", "_table", "labels"}
    with pytest.raises(RecordedDataError, match="a file that can be read"):
        _ = run.steps


def test_one_damaged_quantity_leaves_the_others_readable(written):
    run = written(L2_prev_scores=None)
    with pytest.raises(RecordedDataError, match=r"L2_prev_scores.*\n  expected this key\n  found    none"):
        run.head_scores("previous")
    assert run.loss_curve().values[0] > 7


@pytest.mark.parametrize(
    ("changes", "ask", "found"),
    [
        ({"L2_test_loss": [1.0, 2.0]}, lambda run: run.loss_curve(), r"shape \(2,\)"),
        ({"L2_test_loss": "many"}, lambda run: run.loss_curve(), "not an array of numbers"),
        ({"L2_test_loss": [float("nan")] * 501}, lambda run: run.loss_curve(), "501 that are not"),
        ({"L2_prev_scores": [[1.0] * 8] * 501}, lambda run: run.head_scores("previous"), r"shape \(501, 8\)"),
        ({"L2_kcomp": {}}, lambda run: run.k_composition(), "none"),
        ({"L2_llc_mean": {"50": 1.0}}, lambda run: run.llc_curve(), "1 labels"),
        ({"L2_llc_mean": {"a": 1.0}}, lambda run: run.llc_curve(), "'a'"),
        ({"steps": [0, 200, 100]}, lambda run: run.steps, "0"),
        ({"L2_pos_row_norms_step0": [1.0]}, lambda run: run.position_norms(), r"shape \(1,\)"),
    ],
    ids=["short", "no list", "nan", "shape", "no pairs", "foreign label", "no label", "order", "norms"],
)
def test_a_damaged_array_is_named(written, changes, ask, found):
    with pytest.raises(RecordedDataError, match=found) as caught:
        ask(written(**changes))
    assert "pytest claims/refined_llc --claims-recorded DIR" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"[1, 2]", b'{"other": 1}', b"[" * 100_000, b"\xff\xfe{"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(RecordedDataError, match="is not the authors' recorded numbers"):
        _ = RecordedRun(RecordedData(path), Context(None)).steps


def test_a_file_that_changes_under_the_claims_is_noticed(written):
    run = written()
    run.identity()
    run.check_untouched()
    run.data.path.write_text("{}")
    with pytest.raises(RecordedDataError, match="changed while the claims ran"):
        run.check_untouched()


def test_the_file_is_found_by_folder_by_name_and_by_the_environment(written, tmp_path, monkeypatch):
    path = written().data.path
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert find_recorded(path) == find_recorded(tmp_path) == path
    path.rename(tmp_path / "renamed.json")
    assert find_recorded(tmp_path) == tmp_path / "renamed.json"
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    assert find_recorded(None) == tmp_path / "renamed.json"


def test_where_it_is_not_the_way_out_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    with pytest.raises(RunNotAvailable, match="CSV files and pickles") as caught:
        find_recorded(None)
    assert caught.value.command == "pytest claims/refined_llc --claims-recorded DIR"
    with pytest.raises(RecordedDataError, match=f"expected {FILE}"):
        find_recorded(tmp_path)


def test_planted_heads_get_their_types(written):
    types = written().head_types()
    kinds = {name: kind for name, kind in types.items() if kind != "multigram"}
    assert kinds == {
        "0:1": "previous-token",
        "0:4": "previous-token",
        "0:5": "current-token",
        "1:6": "induction",
        "1:7": "induction",
    }


def test_noise_is_told_from_a_trend():
    """The median of 400 estimates from overlapping windows errs by 4 %: 15 % is beyond four standard deviations."""
    generator = np.random.default_rng(0)
    trend = np.linspace(0, 5, 400) ** 2
    noise = checkpoint_noise(trend + 0.3 * generator.standard_normal(400))
    assert np.median(noise) == pytest.approx(0.3, rel=0.15)
    assert checkpoint_noise(trend).max() < 1e-9
    assert np.isnan(checkpoint_noise(trend[:3])).all()


def test_labels_count_from_one_update():
    assert RecordedArray(np.array([0, 50_000]), np.zeros(2)).updates.tolist() == [1, 50_001]


@pytest.fixture(scope="module")
def published():
    beside = ROOT.parent / "shared" / "data" / "recorded_run"
    folder = Path(os.environ.get(ENVIRONMENT, beside))
    if not folder.exists():
        pytest.skip(f"no recorded numbers: expected {FILE} in {folder}; export {ENVIRONMENT}=FOLDER that holds it")
    return RecordedRun(RecordedData(find_recorded(folder)), Context(None))


def test_the_authors_file_is_read_whole(published):
    assert len(published.steps) == 501
    assert len(published.llc_curve().steps) == 500
    assert len(published.llc_curve(1).steps) == 499
    loss = published.loss_curve()
    assert [round(float(loss.values[loss.at(step)]), 3) for step in (0, 900, 50_000)] == [7.943, 4.348, 3.215]


def test_the_authors_scores_and_composition(published):
    previous, prefix = (published.head_scores(score).values[-1] for score in ("previous", "prefix"))
    assert [round(float(previous[0, head]), 3) for head in (1, 4)] == [0.289, 0.225]
    assert np.delete(previous[0], [1, 4]).max() < 0.08
    assert [round(float(prefix[1, head]), 3) for head in (6, 7)] == [0.055, 0.079]
    assert np.delete(prefix[1], [6, 7]).max() < 0.008
    ends = published.k_composition().values[-1]
    assert [round(float(ends[writer, reader]), 3) for writer, reader in ((1, 6), (1, 7), (4, 6), (4, 7))] == [
        0.138, 0.147, 0.134, 0.131,
    ]  # fmt: skip
