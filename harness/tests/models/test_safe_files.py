"""When a file is read again for its checksum: always, unless nothing has touched it since this process read it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from circuit_claims.models.files import safe_files
from circuit_claims.models.files.safe_files import sha256_of, sha256_unless_unchanged, sound_unless_changed, stamp


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read through, in order; files count as settled as soon as they are written."""
    found: list[Path] = []

    def counted(path: Path, advance=None) -> str:
        found.append(path)
        return sha256_of(path, advance)

    monkeypatch.setattr(safe_files, "sha256_of", counted)
    monkeypatch.setattr(safe_files, "SETTLED_NS", -1)
    monkeypatch.setattr(safe_files, "_KNOWN", {})
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 100)
    return path


def test_a_file_that_nobody_touched_is_read_once_and_its_progress_told(file, readings):
    told: list[int] = []
    found = [sha256_unless_unchanged(file, told.append) for _ in range(3)]
    assert found == [hashlib.sha256(b"a" * 100).hexdigest()] * 3
    assert readings == [file]
    assert told == [100, 100, 100]


def test_other_bytes_are_found_even_behind_an_old_time_stamp(file, readings):
    before = file.stat()
    first = sha256_unless_unchanged(file)
    file.write_bytes(b"b" * 100)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert sha256_unless_unchanged(file) == hashlib.sha256(b"b" * 100).hexdigest() != first
    assert len(readings) == 2


def test_another_file_in_its_place_is_read(file, readings):
    sha256_unless_unchanged(file)
    other = file.with_name("other")
    other.write_bytes(b"c" * 100)
    other.rename(file)
    assert sha256_unless_unchanged(file) == hashlib.sha256(b"c" * 100).hexdigest()


def test_a_file_written_a_moment_ago_is_read_each_time(file, readings, monkeypatch):
    monkeypatch.setattr(safe_files, "SETTLED_NS", 60_000_000_000)
    sha256_unless_unchanged(file)
    sha256_unless_unchanged(file)
    assert readings == [file, file]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(file, monkeypatch):
    def slow(path: Path, advance=None) -> str:
        digest = sha256_of(path, advance)
        path.write_bytes(b"d" * 101)
        return digest

    monkeypatch.setattr(safe_files, "SETTLED_NS", -1)
    monkeypatch.setattr(safe_files, "_KNOWN", {})
    monkeypatch.setattr(safe_files, "sha256_of", slow)
    sha256_unless_unchanged(file)
    monkeypatch.setattr(safe_files, "sha256_of", sha256_of)
    assert sha256_unless_unchanged(file) == hashlib.sha256(b"d" * 101).hexdigest()


@pytest.fixture
def check(file, monkeypatch):
    """Check the part "w" of the file, opened when `opened` was its stamp; whether it was read, and its checksum."""
    monkeypatch.setattr(safe_files, "SETTLED_NS", -1)
    monkeypatch.setattr(safe_files, "_SOUND", set())

    def checked(opened, expected: str = "sound", found: str = "sound") -> tuple[bool, str]:
        read: list[str] = []
        digest = sound_unless_changed(file, opened, "w", expected, lambda: read.append(found) or found)
        return bool(read), digest

    return checked


def test_a_part_that_was_sound_is_not_read_again(file, check):
    opened = stamp(file)
    assert [check(opened) for _ in range(3)] == [(True, "sound"), (False, "sound"), (False, "sound")]


def test_a_part_that_was_not_sound_or_is_to_be_another_is_read_again(file, check):
    opened = stamp(file)
    assert [check(opened, found="other") for _ in range(2)] == [(True, "other")] * 2
    check(opened)
    assert check(opened, expected="another") == (True, "sound")


def test_parts_of_a_file_that_changed_or_was_replaced_since_it_was_opened_are_read(file, check):
    opened = stamp(file)
    check(opened)
    file.write_bytes(b"b" * 99)
    assert [check(opened) for _ in range(2)] == [(True, "sound")] * 2, "bytes of the old file say nothing of the new"
    assert check(stamp(file)) == (True, "sound")


def test_parts_of_a_file_written_a_moment_ago_are_read_each_time(file, check, monkeypatch):
    monkeypatch.setattr(safe_files, "SETTLED_NS", 60_000_000_000)
    opened = stamp(file)
    assert [check(opened) for _ in range(2)] == [(True, "sound")] * 2


def test_parts_of_a_file_that_is_gone_are_read(file, check):
    opened = stamp(file)
    check(opened)
    file.unlink()
    assert check(opened) == (True, "sound")
