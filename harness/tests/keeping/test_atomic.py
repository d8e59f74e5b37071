"""A file is wholly old or wholly new: after errors, on a full disk, under SIGKILL, with two writers at once."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from circuit_claims.keeping import atomic
from circuit_claims.keeping.atomic import NoSpaceLeft, write_bytes_atomically, write_text_atomically


def test_writes_the_bytes_and_leaves_no_neighbour(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.bin"
    write_bytes_atomically(target, b"one")
    write_bytes_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert [entry.name for entry in target.parent.iterdir()] == ["file.bin"]


def test_text_keeps_line_ends_and_shows_lone_surrogates(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", "a\r\nb\udcff")
    assert (tmp_path / "a.txt").read_bytes() == b"a\r\nb\\udcff"


def test_a_new_file_has_ordinary_permissions_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    ordinary, written = tmp_path / "ordinary", tmp_path / "written"
    ordinary.write_bytes(b"")
    write_bytes_atomically(written, b"")
    assert written.stat().st_mode == ordinary.stat().st_mode
    written.chmod(0o640)
    write_bytes_atomically(written, b"again")
    assert written.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127])
def test_the_longest_names_the_system_allows_can_be_written(tmp_path: Path, name: str) -> None:
    write_bytes_atomically(tmp_path / name, b"ok")
    assert (tmp_path / name).read_bytes() == b"ok"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_named_and_the_old_file_stands(tmp_path: Path, monkeypatch, call: str) -> None:
    target = tmp_path / "index.html"
    write_bytes_atomically(target, b"old")

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, call, full)
    with pytest.raises(NoSpaceLeft, match=r"index\.html.*3,000 bytes.*old file is unchanged.*Free some space"):
        write_bytes_atomically(target, b"new" * 1000)
    assert target.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.html"]


def test_a_file_size_limit_is_a_full_disk_too(tmp_path: Path) -> None:
    """A real refusal by the system, in a process of its own: RLIMIT_FSIZE below the size of the file."""
    target = tmp_path / "index.html"
    target.write_bytes(b"old")
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from circuit_claims.keeping.atomic import write_bytes_atomically\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_bytes_atomically(Path(sys.argv[1]), b'x' * 100_000)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(target)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "NoSpaceLeft" in ended.stderr
    assert "expected room for 100,000 bytes" in ended.stderr
    assert target.read_bytes() == b"old"


def test_two_writers_at_once_never_mix(tmp_path: Path) -> None:
    target, wholes = tmp_path / "shared", {bytes([65 + i]) * 200_000 for i in range(4)}
    threads = [
        threading.Thread(target=lambda data=data: [write_bytes_atomically(target, data) for _ in range(5)])
        for data in wholes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in wholes


def test_twenty_kills_never_leave_a_torn_file(tmp_path: Path) -> None:
    target = tmp_path / "killed"
    script = (
        "import itertools, sys; from pathlib import Path\n"
        "from circuit_claims.keeping.atomic import write_bytes_atomically\n"
        "for i in itertools.count(): write_bytes_atomically(Path(sys.argv[1]), bytes([65 + i % 26]) * 300_000)"
    )
    moments = random.Random(0)
    for _ in range(20):
        writer = subprocess.Popen([sys.executable, "-c", script, str(target)])
        deadline, before = time.monotonic() + 30, target.stat().st_mtime_ns if target.exists() else 0
        while (not target.exists() or target.stat().st_mtime_ns == before) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.02))
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        data = target.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1
