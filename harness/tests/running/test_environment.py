"""What a run says of where it ran: enough to repeat it, nothing that names a person or a machine."""

from __future__ import annotations

import getpass
import json
import platform
import re
import subprocess
from pathlib import Path

import pytest
from circuit_claims.running.machine import commit, describe


def test_versions_device_and_threads_are_said(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = describe("cuda:1")
    assert (found["device"], found["threads"], found["python"]) == ("cuda:1", 3, platform.python_version())
    assert found["torch"] == found["packages"]["torch"]
    assert {"torch", "numpy", "transformer-lens", "safetensors"} <= found["packages"].keys()
    assert json.loads(json.dumps(found)) == found


def test_neither_person_nor_machine_is_named():
    text = json.dumps(describe("cpu"))
    for word in (platform.node(), getpass.getuser(), str(Path.home())):
        assert not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text), f"{word} is in {text}"


def git(root, *words):
    identity = ("-c", "user.name=A. Person", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def test_the_commit_is_named_and_changes_to_it_are(checkout):
    clean = commit(checkout)
    assert re.fullmatch("[0-9a-f]{12}", clean)
    (checkout / "notes.txt").write_text("not tracked: no part of the code")
    assert commit(checkout) == clean
    (checkout / "code.py").write_text("x = 2\n")
    assert commit(checkout) == f"{clean}+changes"


def test_without_a_checkout_or_without_git_it_says_so(tmp_path, checkout, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert commit(elsewhere) == "not a checkout"
    monkeypatch.setenv("PATH", str(elsewhere))
    assert commit(checkout) == "unknown"
