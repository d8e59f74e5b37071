"""The text of a claim, seen from outside: which one was read, under which scope it counts, and what a miss says."""

from __future__ import annotations

import json

from tests.helpers import forked
from tests.helpers.toy_project import make_project

TEST = '@claim("TY-01")\ndef test_it(subject, text, judge):\n    judge("TY-01", found(0.6, 0.9))\n'
ROWS = "".join(json.dumps({"text": f"document {number}"}) + "\n" for number in range(3))


def verdict_on(root, text: str, *words: str):
    """The one verdict of a toy claim about `text`, run with these options; never with the hub."""
    project = make_project(root, TEST)
    paper = root / "claims" / "toy" / "paper.toml"
    paper.write_text(paper.read_text().replace('text = "none"', f'text = "{text}"'))
    command = [
        "pytest",
        "claims/",
        "-p",
        "no:cacheprovider",
        "--offline",
        "--report",
        "out",
        "--store",
        "store",
        *words,
    ]
    done = forked.run(command, project, {"HF_HUB_CACHE": str(root / "no hub here")})
    lines = (project / "out" / "events.jsonl").read_text().splitlines()
    (verdict,) = [event for event in map(json.loads, lines) if event["event"] == "verdict"]
    return verdict, done.text, (project / "out" / "index.html").read_text()


def test_on_a_stand_in_even_the_papers_own_subject_generalises(tmp_path):
    verdict, _, page = verdict_on(tmp_path, "pile")
    assert (verdict["outcome"], verdict["scope"], verdict["subject"]) == ("reproduced", "generalisation", "gpt2")
    assert "standing in for the Pile" in verdict["text"]
    assert "standing in for the Pile" in page


def test_a_file_that_is_not_the_published_text_generalises_too_and_the_line_to_rerun_names_its_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pile.jsonl").write_text(ROWS)
    verdict, _, _ = verdict_on(tmp_path, "pile", "--texts", "mine")
    assert verdict["scope"] == "generalisation"
    assert "the Pile (3 documents, taken for it unchecked" in verdict["text"]
    assert "--texts mine" in verdict["rerun"]


def test_on_its_own_text_a_claim_reproduces(tmp_path):
    verdict, _, _ = verdict_on(tmp_path, "python-docs")
    assert verdict["scope"] == "reproduction"
    assert verdict["text"].startswith("python-docs of Python 3.")


def test_a_text_that_cannot_be_had_leaves_its_claims_not_run(tmp_path):
    verdict, text, _ = verdict_on(tmp_path, "languages")
    assert verdict["outcome"] == "not here"
    assert verdict["command"] == "pytest --texts FOLDER"
    assert "1 skipped" in text
