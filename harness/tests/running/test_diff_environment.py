"""`tox -e diff` compares runs in an environment that holds nothing but what tox.ini lists for it."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "reports" / "reference"
ONLY = """
import importlib.machinery
import sys
from importlib import metadata

allowed = set(sys.argv.pop(1).split(","))
owners = metadata.packages_distributions()
plain = importlib.machinery.PathFinder.find_spec


def of_the_environment(name, path=None, target=None):
    top = name.partition(".")[0]
    names = {each.lower().replace("_", "-") for each in owners.get(top, [])}
    return plain(name, path, target) if top == "circuit_claims" or not names or names & allowed else None


importlib.machinery.PathFinder.find_spec = of_the_environment
sys.argv[0] = "claims"
from circuit_claims.running.command_line import main

main()
"""


def installed_with(names: set[str]) -> set[str]:
    """These distributions and all that they require without extras."""
    found, ahead = set[str](), {name.lower() for name in names}
    while ahead:
        name = ahead.pop()
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        plain = [re.split(r"[^A-Za-z0-9_.-]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need]
        ahead |= {each.lower().replace("_", "-") for each in plain} - found
    return found


@pytest.mark.parametrize("words", [("diff",), ("diff", "--html", "page.html")])
def test_comparing_needs_what_its_environment_lists_and_no_more(words, tmp_path):
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    listed = installed_with(set(tox["testenv:diff"]["deps"].split()))
    assert not {"torch", "pytest", "scipy"} & listed
    command = [sys.executable, "-c", ONLY, ",".join(sorted(listed)), *words, str(REFERENCE), str(REFERENCE)]
    environment = {"PYTHONPATH": str(ROOT / "harness"), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "verdicts compared over 2 runs: 0 changed" in done.stdout
    assert (tmp_path / "page.html").exists() == ("--html" in words)
