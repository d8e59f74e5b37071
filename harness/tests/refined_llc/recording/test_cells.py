"""The file of recorded cells: what is written is read, what is damaged is refused, what clashes is not merged."""

import json
from dataclasses import replace

import numpy as np
import pytest
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.papers.refined_llc.recording.cells import (
    BLOCKS,
    HEADER,
    NUMBERS,
    TABLE,
    Cell,
    CellKey,
    CellsError,
    CellTable,
    load_cells,
    save_cells,
    seconds_each,
)


def cell(checkpoint="100", weights="1:6", mean=3.0, **changes):
    rng = np.random.default_rng(len(weights))
    numbers = {name: float(index) for index, name in enumerate(NUMBERS)} | {"mean": mean, "mcse": 0.1, "seconds": 20.0}
    key = CellKey(checkpoint, weights, "python-docs")
    made = Cell(key, numbers, mean + rng.normal(size=4) / 4, rng.normal(size=(4, BLOCKS)), "complete", seed=0)
    return replace(made, **changes)


def table(*cells, **changes):
    made = CellTable(
        cells={each.key: each for each in cells},
        checkpoints={"100": "aa", "200": "bb"},
        texts={"python-docs": "cc"},
        settings={"paper": SGLDSettings(30.0, 200.0, 1e-3, batch_size=8)},
        recordings=({"hardware": "one core", "date": "2026-11-22", "commit": "abc"},),
    )
    return replace(made, **changes)


def test_what_was_written_is_read(tmp_path):
    written = table(cell(), cell("200", "0:1", 2.0))
    save_cells(tmp_path, written)
    found = load_cells(tmp_path)
    assert found.settings == written.settings
    assert found.recordings == written.recordings
    for key, own in written.cells.items():
        assert found.cells[key].mean == pytest.approx(own.mean, rel=1e-6)
        assert found.cells[key].per_chain == pytest.approx(own.per_chain, rel=1e-6)
        assert found.cells[key].trace == pytest.approx(own.trace, abs=0.01)
        assert (found.cells[key].status, found.cells[key].seed) == ("complete", 0)
    assert found.seconds == 40.0
    assert seconds_each(found.cells.values()) == 20.0


def test_equal_tables_give_equal_bytes(tmp_path):
    first, second = cell(), cell("200", "0:1", 2.0)
    for name, cells in (("a", (first, second)), ("b", (second, first))):
        save_cells(tmp_path / name, table(*cells))
    for file in (HEADER, TABLE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_cells_with_other_numbers_of_chains_stand_in_one_table(tmp_path):
    few = cell("200", per_chain=np.array([1.0, 2.0]), trace=np.ones((2, 7)))
    save_cells(tmp_path, table(cell(), few))
    assert np.isfinite(load_cells(tmp_path).cells[few.key].per_chain).sum() == 2


@pytest.mark.parametrize("file", [HEADER, TABLE])
def test_a_flipped_bit_a_cut_file_and_a_missing_one_are_refused(tmp_path, file):
    save_cells(tmp_path, table(cell()))
    good = (tmp_path / file).read_bytes()
    for bad in (good[:-40] + bytes([good[-40] ^ 1]) + good[-39:], good[: len(good) // 2], b"", b"null"):
        (tmp_path / file).write_bytes(bad)
        with pytest.raises(CellsError, match="claims record-cells"):
            load_cells(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CellsError, match="claims record-cells"):
        load_cells(tmp_path)


def test_a_number_changed_in_the_header_is_seen(tmp_path):
    save_cells(tmp_path, table(cell()))
    header = json.loads((tmp_path / HEADER).read_text())
    header["body"]["settings"]["paper"]["gamma"] = 100.0
    (tmp_path / HEADER).write_text(json.dumps(header))
    with pytest.raises(CellsError, match="sha256"):
        load_cells(tmp_path)


def test_tables_of_one_run_are_merged_the_later_cell_first():
    old, new = table(cell(mean=1.0), cell("200")), table(cell(mean=5.0), recordings=({"commit": "def"},))
    both = old.merged(new)
    assert both.cells[cell().key].mean == 5.0
    assert both.recordings[both.cells[cell().key].origin]["commit"] == "def"
    assert both.recordings[both.cells[cell("200").key].origin]["commit"] == "abc"


@pytest.mark.parametrize("what", ["checkpoints", "texts"])
def test_tables_of_different_weights_or_texts_are_not(what):
    with pytest.raises(CellsError, match=what):
        table(cell()).merged(table(cell(), **{what: {"100": "zz", "python-docs": "zz"}}))


def test_the_error_is_never_below_the_spread_of_the_chains():
    spread = cell(per_chain=np.array([1.0, 2.0, 3.0, 4.0]))
    assert spread.error == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert cell(per_chain=np.array([1.0, 1.0, 1.0, 1.0])).error == 0.1
    assert cell(per_chain=np.array([1.0, np.nan, np.nan, np.nan])).error == np.inf
