"""Texts of a run's claims: found where they lie, recognised by their digest, and named for what they stand for."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from circuit_claims.keeping.measure import Context
from circuit_claims.papers.refined_llc.curves import roles
from circuit_claims.papers.refined_llc.multigrams.measures import text_names, text_rows
from circuit_claims.papers.refined_llc.recording import rows as curves_rows
from circuit_claims.papers.refined_llc.recording import texts as ctx
from circuit_claims.papers.refined_llc.recording.cells import CellsError
from circuit_claims.papers.refined_llc.runs.live import BOS, LiveRun
from circuit_claims.texts import standard_text
from circuit_claims.toy.checkpoints import RunFolder, save_checkpoint
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from circuit_claims.toy.tokenizer import train_tokenizer

CONFIG = AttentionOnlyConfig(d_model=8, n_heads=2, d_head=4, n_ctx=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of one checkpoint whose card names the corpus "ours"."""
    place = tmp_path_factory.mktemp("runs") / "two layer"
    place.mkdir()
    tokenizer = train_tokenizer([standard_text("python-docs")])
    (place / "tokenizer.json").write_text(tokenizer.definition)
    save_checkpoint(place, 0, AttentionOnly(CONFIG).initialise(0), torch.float16)
    card = {"model": asdict(CONFIG), "tokenizer": tokenizer.digest, "recipe": {"seed": 1}, "corpus": "ours"}
    (place / "run_card.json").write_text(json.dumps(card))
    return place


@pytest.fixture(autouse=True)
def short_rows(monkeypatch):
    monkeypatch.setattr(curves_rows, "ROWS", 16)
    monkeypatch.setattr(curves_rows, "LENGTH", 17)


def opened(folder, *texts, kind="own"):
    return LiveRun(RunFolder.open(folder), Context(store=None), "own-run", kind, texts_dirs=texts)


def corpus(folder, digest="ours"):
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(0, BOS, (20, 32)).astype(np.uint16)
    np.save(folder / "test.npy", rows)
    (folder / "corpus.json").write_text(json.dumps({"digest": digest}))
    return rows


def code(folder):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": f"def f_{n}(x):\n    return x + {n}\n" * 20}) for n in range(40)]
    (folder / "code_by_language.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_without_a_folder_there_is_what_python_has(folder):
    assert ctx.names_here(opened(folder)) == roles.STANDARD


def test_held_out_rows_are_known_by_the_corpus_digest(folder, tmp_path):
    rows = corpus(tmp_path / "texts" / "prepared")
    found = ctx.rows_here(opened(folder, tmp_path / "texts"), ["training-mixture"])
    assert found["training-mixture"].tolist() == rows[:16, :17].tolist()
    corpus(tmp_path / "texts" / "prepared", digest="another's")
    assert "training-mixture" not in ctx.names_here(opened(folder, tmp_path / "texts"))


def test_a_run_as_it_was_trained_has_its_held_out_rows_beside_it(folder, tmp_path):
    run = opened(folder)
    own = replace(run, run=replace(run.run, folder=tmp_path))
    corpus(tmp_path / "corpus")
    assert ctx.held_out_file(own, ()) == tmp_path / "corpus" / "test.npy"


@pytest.mark.parametrize("card", ["{", "{}", "[]", '"words"'])
def test_a_damaged_card_is_named(folder, tmp_path, card):
    corpus(tmp_path)
    (tmp_path / "corpus.json").write_text(card)
    with pytest.raises(CellsError, match=r"corpus\.json"):
        ctx.names_here(opened(folder, tmp_path))


def test_a_text_of_the_registry_gives_the_rows_that_its_file_gives(folder, tmp_path):
    """So that cells recorded from the file, by --rows, compare with live ones from the folder."""
    run = opened(folder, code(tmp_path / "texts"))
    rows = ctx.rows_here(run, ["code-by-language"])["code-by-language"]
    by_file = curves_rows.given_rows(tmp_path / "texts" / "code_by_language.jsonl", run.run.tokenizer, BOS)
    assert rows.tolist() == by_file.tolist()


def test_ablations_take_the_training_mixture_where_it_is(folder, tmp_path):
    assert text_names(opened(folder)) == ("python-docs", "stdlib-source")
    assert len(text_rows(opened(folder))) == 32
    rows = corpus(tmp_path)
    run = opened(folder, tmp_path)
    assert text_names(run) == ("training-mixture",)
    assert text_rows(run).tolist() == rows[:16, :17].tolist()


@pytest.mark.parametrize(
    ("role", "name", "kind", "stands_in"),
    [
        ("training mixture", "training-mixture", "own", False),
        ("training mixture", "pile", "own", True),
        ("training mixture", "pile", "published", False),
        ("training mixture", "python-docs", "published", True),
        ("code", "code", "own", False),
        ("code", "code-by-language", "own", False),
        ("code", "stdlib-source", "own", True),
    ],
)
def test_a_text_that_only_stands_in_says_so_and_what_to_give(folder, role, name, kind, stands_in):
    found = roles.use_of(opened(folder, kind=kind), role, [name])
    assert (found.stand_in, "standing in for" in found.label, "--texts" in found.label) == (stands_in,) * 3


def test_two_texts_stand_in_where_one_does(folder):
    run = opened(folder)
    uses = [roles.use_of(run, "code", ["code"]), roles.use_of(run, "training mixture", ["python-docs"])]
    assert roles.both_texts(uses[0]).stand_in is False
    assert roles.both_texts(*uses).stand_in is True
    assert roles.both_texts(uses[0], uses[0]).label == uses[0].label


def test_the_command_that_records_can_be_typed(folder):
    assert roles.record_command(opened(folder), "--texts X") == f"claims record-cells '{folder}' --texts X"


def test_texts_are_named_in_a_sentence():
    named = roles.words_for(["python-docs", "stdlib-source", "tinystories", "mine", "training-mixture"], "of Python 3")
    title = "TinyStories, validation split"
    assert named == f"the run's held-out training mixture, {title}, mine, python-docs and stdlib-source of Python 3"
