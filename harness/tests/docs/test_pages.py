"""Every code block of the pages runs: Python as it stands, commands as typed, and of skipped ones the options exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import forked

ROOT = Path(__file__).resolve().parents[3]
PAGES = (*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
# Installs, builds and version control: not this project's own commands.
OTHERS = ("python3", "python", "bash", "tox", "git", "pip")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, why it is not run (empty: it is), its text."""

    language: str
    skipped: str
    body: str


def blocks_of(page: Path) -> list[Block]:
    found = []
    for match in FENCE.finditer(page.read_text(encoding="utf-8")):
        language, _, rest = match["info"].strip().partition(" ")
        reason = re.fullmatch(r'skip="(.+)"', rest.strip())
        found.append(Block(language, reason[1] if reason else "", match["body"]))
    return found


def commands(page: Path, *, skipped: bool) -> list[list[str]]:
    """The lines of a page's shell blocks, split as a shell would; continued lines are joined, comments dropped."""
    wanted = [item.body for item in blocks_of(page) if item.language == "sh" and bool(item.skipped) == skipped]
    lines = [line for body in wanted for line in body.replace("\\\n", " ").splitlines() if line.strip()]
    split = [shlex.split(part, comments=True) for line in lines for part in line.split(" && ")]
    return [[Path(words[0]).name, *words[1:]] for words in split if words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page):
    known = {"python", "sh", "toml", "text", "{toctree}", "{eval-rst}"}
    assert {item.language for item in blocks_of(page)} <= known


def check_blocks(blocks: list[str], page: Path, names: dict[str, object]) -> None:
    """Run the blocks of a page one after the other; an error says which line of which block it comes from."""
    for number, body in enumerate(blocks, 1):
        exec(compile(body, f"{page}, Python block {number}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_runs(page, tmp_path, monkeypatch):
    blocks = [item.body for item in blocks_of(page) if item.language == "python" and not item.skipped]
    if not blocks:
        pytest.skip("no Python on this page")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": page.stem}
    check_blocks(blocks, page, names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_run(page, tmp_path):
    lines = commands(page, skipped=False)
    if not lines:
        pytest.skip("no commands on this page")
    place = {"CIRCUIT_CLAIMS_STORE": str(tmp_path / "store"), "CIRCUIT_CLAIMS_CACHE": str(tmp_path / "cache")}
    for words in lines:
        done = forked.run(words, tmp_path, {**place, "HF_HUB_OFFLINE": "1"}, output=tmp_path)
        assert done.status == 0, f"{' '.join(words)}\n{done.text}"


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    """The help of each command, asked once: what `pytest` and `claims NAME` know."""
    texts: dict[tuple[str, ...], str] = {}

    def help_of(*words: str) -> str:
        if words not in texts:
            done = forked.run([*words, "--help"], ROOT, {"COLUMNS": "200"}, output=tmp_path_factory.mktemp("help"))
            assert done.status == 0, f"{' '.join(words)} --help\n{done.text}"
            texts[words] = done.text
        return texts[words]

    return help_of


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_skipped_commands_have_the_options_they_are_typed_with(page, helps):
    for words in commands(page, skipped=True):
        if words[0] in OTHERS:
            continue
        asked = ("pytest",) if words[0] == "pytest" else tuple(words[:2])
        for word in words[1:]:
            if word.startswith("--"):
                assert word.split("=")[0] in helps(*asked), f"{' '.join(words)}: {asked} knows no {word}"
        for node in (word for word in words[1:] if words[0] == "pytest" and "::" in word):
            file, _, name = node.partition("::")
            assert f"def {name.split('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8"), f"no test {node}"
