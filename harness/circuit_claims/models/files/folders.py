"""A person's own Hugging Face folder as a subject: read, never written to, and verified like the cache.

A folder's checksums are computed once, by reading all of it, and kept in the harness's cache. Size, time and inode of
every file only decide whether that record may be used at all; they are not trusted beyond that. config.json and the
tokenizer are hashed again whenever the folder is opened, and each tensor is held against its recorded sha256 as it is
read, so that no figure ever rests on bytes other than those its digest names.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from circuit_claims.keeping.atomic import write_text_atomically
from circuit_claims.models.errors import DamagedWeights
from circuit_claims.models.files.manifest import Manifest, bytes_to_describe, check_quickly, describe_folder
from circuit_claims.models.files.safe_files import read_json
from circuit_claims.models.progress import Counter, DownloadProgress


@dataclass(frozen=True)
class FolderRecord:
    """Where the checksums of one folder are kept."""

    folder: Path
    path: Path

    @classmethod
    def of(cls, folder: Path, cache_root: Path) -> FolderRecord:
        """The record of `folder` in a cache."""
        key = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()
        return cls(folder, cache_root / "folders" / f"{key[:24]}.json")

    def manifest(self, name: str, facts: dict[str, str], progress: DownloadProgress) -> Manifest:
        """The folder's checksums, from the record if no file has been touched since, else by reading everything."""
        stamps = self._stamps()
        known = self._known(stamps)
        if known is not None:
            return known
        counter = Counter(progress, f"hashing {self.folder.name}", bytes_to_describe(self.folder))
        manifest = describe_folder(self.folder, name, source=facts, advance=counter)
        record = {"stamps": stamps, "manifest": json.loads(manifest.to_json())}
        try:
            write_text_atomically(self.path, json.dumps(record))
        except OSError:
            # A cache that cannot be written costs time at the next run, and nothing else.
            return manifest
        return manifest

    def forget(self, reason: str) -> tuple[Path, Manifest]:
        """Drop the record, because a tensor was not what it says; always raises `DamagedWeights`."""
        self.path.unlink(missing_ok=True)
        raise DamagedWeights(
            f"{reason}\n  The file was changed while its size and time stayed the same. Its record was dropped:"
            " run the same command again to measure it as it is now."
        )

    def _known(self, stamps: dict[str, list[int]]) -> Manifest | None:
        try:
            record = read_json(self.path)
            if record.get("stamps") != stamps:
                return None
            manifest = Manifest.from_content(record["manifest"], self.path)
            check_quickly(self.folder, manifest)
            return manifest
        except (DamagedWeights, KeyError):
            return None

    def _stamps(self) -> dict[str, list[int]]:
        files = [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        stats = {path.name: path.stat() for path in files if path.suffix in (".json", ".safetensors")}
        return {name: [stat.st_size, stat.st_mtime_ns, stat.st_ino] for name, stat in stats.items()}
