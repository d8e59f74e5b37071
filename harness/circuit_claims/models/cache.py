"""The verified cache of models: written whole or not at all, checked when opened, built by one process at a time."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from circuit_claims.models.errors import DamagedCacheWarning, DamagedWeights, ModelError
from circuit_claims.models.files.manifest import MANIFEST, Manifest, check_fully, check_quickly
from circuit_claims.models.progress import DownloadProgress

ENVIRONMENT = "CIRCUIT_CLAIMS_CACHE"
Build = Callable[[Path], None]


def default_cache() -> Path:
    """Where models are kept: `CIRCUIT_CLAIMS_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_path

    given = os.environ.get(ENVIRONMENT)
    return Path(given).expanduser() if given else user_cache_path("circuit-claims")


@dataclass(frozen=True)
class ModelCache:
    """Folders of models under `root/models`, each with its manifest; `root/locks` keeps two builders apart."""

    root: Path

    def path(self, entry: str) -> Path:
        """Where an entry is, or would be."""
        return self.root / "models" / entry

    def find(self, entry: str) -> tuple[Path, Manifest] | None:
        """The entry with its manifest if it is there and sound at first sight; a damaged one is set aside."""
        folder = self.path(entry)
        if not folder.exists():
            return None
        try:
            return folder, self._checked(folder)
        except DamagedWeights:
            with self._lock(entry):
                # Another process may have set it aside, or built it again, in the meantime.
                return self._find_locked(entry)

    def find_or_build(self, entry: str, build: Build, progress: DownloadProgress) -> tuple[Path, Manifest]:
        """The entry, built by `build(folder)` if it is not there; a second process waits for what the first builds.

        `build` fills an empty folder that becomes the entry by one rename after all of it is on disk; if it raises or
        the process is killed, no entry appears.
        """
        if (found := self.find(entry)) is not None:
            return found
        lock = self._wait(entry, progress)
        try:
            if (found := self._find_locked(entry)) is not None:
                return found
            self._build(entry, build)
            return self.path(entry), self._checked(self.path(entry))
        finally:
            lock.release()

    def set_aside_if_damaged(self, entry: str, reason: str) -> None:
        """Read all of an entry that was found damaged for `reason` and set it aside unless it is sound by now.

        Of two processes that find the same damage the second may find the entry already built again.
        """
        with self._lock(entry):
            found = self._find_locked(entry)
            if found is None:
                return
            try:
                check_fully(*found)
            except DamagedWeights:
                self._set_aside(entry, reason)

    def _set_aside(self, entry: str, reason: str) -> None:
        """Move a damaged entry out of the way and say so; only the newest bad copy is kept. The lock must be held."""
        folder = self.path(entry)
        for old in folder.parent.glob(f"{entry}.damaged-*"):
            shutil.rmtree(old, ignore_errors=True)
        aside = folder.with_name(f"{entry}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        folder.rename(aside)
        warnings.warn(DamagedCacheWarning(aside, reason), stacklevel=2)

    def remove(self, entry: str) -> None:
        """Delete an entry, so that it is built again."""
        with self._lock(entry):
            if self.path(entry).exists():
                shutil.rmtree(self.path(entry))

    def _checked(self, folder: Path) -> Manifest:
        manifest = Manifest.read(folder / MANIFEST)
        check_quickly(folder, manifest)
        return manifest

    def _find_locked(self, entry: str) -> tuple[Path, Manifest] | None:
        folder = self.path(entry)
        if not folder.exists():
            return None
        try:
            return folder, self._checked(folder)
        except DamagedWeights as error:
            self._set_aside(entry, str(error))
            return None

    def _build(self, entry: str, build: Build) -> None:
        parent = self.path(entry).parent
        parent.mkdir(parents=True, exist_ok=True)
        # The lock is ours, so whatever other builders of this entry left behind was left by killed ones.
        for stale in parent.glob(f".{entry}.building-*"):
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{entry}.building-", dir=parent))
        try:
            build(folder)
            self._checked(folder)
            _sync(folder)
            folder.chmod(0o755)
            folder.rename(self.path(entry))
            _sync_folder(parent)
        finally:
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)

    def _lock(self, entry: str) -> FileLock:
        path = self.root / "locks" / f"{entry}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except OSError as error:
            raise ModelError(
                f"the cache of models cannot be written: expected a writable folder at {self.root}\n  found: {error}"
                f"\n  Type: export {ENVIRONMENT}=FOLDER"
            ) from error
        return FileLock(path)

    def _wait(self, entry: str, progress: DownloadProgress) -> FileLock:
        lock = self._lock(entry)
        while True:
            try:
                lock.acquire(timeout=0.5)
                return lock
            except Timeout:
                progress(f"waiting for another process that prepares {entry}")


def _sync(folder: Path) -> None:
    """Everything in `folder` on disk before the rename that makes it an entry."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
