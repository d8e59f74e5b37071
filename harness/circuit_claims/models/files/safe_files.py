"""Opening files that others wrote: no pickles, no names that climb out of a folder, nothing cut short."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from circuit_claims.models.errors import DamagedWeights, ModelError, UnsafeFile

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".th"})
PICKLE_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))
INDEX = "model.safetensors.index.json"
CHUNK = 1 << 22
SETTLED_NS = 2_000_000_000
Advance = Callable[[int], None]


def inside(folder: Path, name: str) -> Path:
    """`folder / name`, refused with `UnsafeFile` if the name could point outside of the folder.

    >>> inside(Path("models"), "part/a.safetensors").as_posix()
    'models/part/a.safetensors'
    """
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    climbs = ".." in posix.parts or ".." in windows.parts
    if not name or "\0" in name or climbs or posix.is_absolute() or windows.drive or windows.root:
        raise UnsafeFile(f"a file name climbs out of its folder: expected a name inside {folder}\n  found {name!r}")
    return folder / name


def refuse_pickle(path: Path) -> None:
    """Raise `UnsafeFile` for a pickle, told by its extension or, whatever its name, by its first bytes."""
    advice = "  Only safetensors and GGUF are read: opening a pickle can run code.\n  Type: claims fetch --help"
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise UnsafeFile(f"{path} is a pickle by its extension: expected .safetensors or .gguf\n{advice}")
    with path.open("rb") as handle:
        head = handle.read(9)
    # The length of a safetensors header comes first and may look like any magic number; its ninth byte is always "{".
    is_safetensors = len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32
    if not is_safetensors and head.startswith(PICKLE_MAGIC):
        raise UnsafeFile(f"{path} is a pickle or an archive by its first bytes {head[:4]!r}\n{advice}")


def sha256_of(path: Path, advance: Advance | None = None) -> str:
    """The sha256 of a file's bytes; `advance` is told the number of bytes after each piece."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(CHUNK):
            digest.update(piece)
            if advance:
                advance(len(piece))
    return digest.hexdigest()


_KNOWN: dict[tuple[int, ...], str] = {}
_SOUND: set[tuple[int | str, ...]] = set()


def sha256_unless_unchanged(path: Path, advance: Advance | None = None) -> str:
    """`sha256_of`, or what it was before in this process where neither file, size, nor either time stamp is another.

    A file that was written less than two seconds before it was read is read again: time stamps are that coarse on
    some file systems. Bits that rot on the disk itself leave no time stamp: the next process reads everything again.
    """
    before, now = stamp(path), time.time_ns()
    if before not in _KNOWN:
        digest = sha256_of(path, advance)
        if stamp(path) == before and max(before[-2:]) < now - SETTLED_NS:
            _KNOWN[before] = digest
        return digest
    if advance:
        advance(path.stat().st_size)
    return _KNOWN[before]


def sound_unless_changed(
    path: Path, opened: tuple[int, ...], part: str, expected: str, found: Callable[[], str]
) -> str:
    """The sha256 `found` gives of a part of a file, or `expected` where it was that before and the file is unchanged.

    `opened` is the file's `stamp` from before it was opened. Unchanged as for `sha256_unless_unchanged`, whose limits
    hold here too.
    """
    now = time.time_ns()
    if (same := _is_still(path, opened)) and (*opened, part, expected) in _SOUND:
        return expected
    digest = found()
    if same and digest == expected and _is_still(path, opened) and max(opened[-2:]) < now - SETTLED_NS:
        _SOUND.add((*opened, part, expected))
    return digest


def _is_still(path: Path, opened: tuple[int, ...]) -> bool:
    try:
        return stamp(path) == opened
    except OSError:
        return False


def stamp(path: Path) -> tuple[int, ...]:
    """What tells a file from another in its place and from itself after a change, as far as the system keeps it."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def open_safetensors(path: Path) -> Any:
    """A `safetensors.safe_open` handle (CPU, torch). Raises `UnsafeFile` for a pickle, `DamagedWeights` for a file that
    is cut short, too long, or has an unreadable header."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise DamagedWeights(f"a file of the model is gone: expected {path}")
    refuse_pickle(path)
    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except (SafetensorError, OSError, ValueError) as error:
        size = path.stat().st_size
        raise DamagedWeights(
            f"{path} is not a whole safetensors file\n  found {size:,} bytes; the reader says: {error}"
            "\n  It was cut short or changed on disk: fetch or copy it again."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file; raises `DamagedWeights` that names the file if there is none in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DamagedWeights(f"a file of the model is gone: expected {path}") from error
    except (OSError, ValueError) as error:
        raise DamagedWeights(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedWeights(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a Hugging Face folder: those its index names, else the only one there is.

    Raises `UnsafeFile` for an index that names a file outside the folder or a pickle, and for a folder that has nothing
    but pickles; `DamagedWeights` if there are no weights, or several files and no index.
    """
    index = folder / INDEX
    if index.exists():
        names = read_json(index).get("weight_map", {})
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise DamagedWeights(f"{index}: expected a weight_map from tensor names to file names")
        paths = tuple(inside(folder, name) for name in sorted(set(names.values())))
        for path in paths:
            if path.suffix != ".safetensors":
                raise UnsafeFile(f"{index} names {path.name}: expected files ending in .safetensors")
        return paths
    found = sorted(folder.glob("*.safetensors"))
    if (folder / "model.safetensors") in found:
        return (folder / "model.safetensors",)
    if len(found) == 1:
        return tuple(found)
    raise _no_weights(folder, [path.name for path in found])


def _no_weights(folder: Path, found: Sequence[str]) -> ModelError:
    """Why a folder's weights cannot be told, and what to do."""
    names = sorted(path.name for path in folder.iterdir())
    if found:
        return DamagedWeights(
            f"{folder} has {len(found)} safetensors files and no {INDEX} that says what is where"
            f"\n  expected  one file, model.safetensors, or that index beside the parts\n  found     {_some(found)}"
            "\n  Copy the index that was saved with them, or rename the file that is meant to model.safetensors."
        )
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        return UnsafeFile(
            f"{folder} has its weights only as pickles ({', '.join(pickles[:3])}): expected safetensors"
            "\n  Opening a pickle can run code. Save the model again with safe_serialization=True where you trust it."
        )
    return DamagedWeights(
        f"{folder} has no weights: expected model.safetensors or {INDEX}\n  found     {_some(names) or 'nothing'}"
        "\n  Type the path of a Hugging Face folder (config.json, weights, tokenizer.json) or of a GGUF file instead."
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
