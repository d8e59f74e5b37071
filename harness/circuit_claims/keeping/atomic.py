"""Files that are either wholly the old ones or wholly the new ones, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from circuit_claims.errors import ClaimsError

OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NoSpaceLeft(ClaimsError, OSError):
    """The disk (or the quota) is full: the file that stood at the path before is still there, unchanged."""


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a crash at any point, finds the old bytes or the new, never a mixture.

    Written to a hidden neighbour, synced to disk, renamed over `path`; then the folder is synced, so that the
    rename itself survives a power cut. Parent folders are made. A killed writer leaves at most its hidden
    neighbour (`.NAME.XXXX.part`); two writers at once are fine, the later rename wins.

    Raises `NoSpaceLeft` when the disk or quota is full and `OSError` for anything else the system refuses; in
    both cases the old file stands and the neighbour is gone.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_bytes_atomically(folder / "a" / "b.json", b"{}")
    >>> (folder / "a" / "b.json").read_bytes()
    b'{}'
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Long names are cut because the neighbour's name is longer than the file's own, and systems allow 255 bytes.
        prefix = f".{path.name.encode('utf-8', 'surrogateescape')[:120].decode('utf-8', 'ignore')}."
        descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, _mode_for(path))
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
            raise _no_space(path, len(data), error) from error
        raise
    _sync_folder(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_bytes_atomically` of `text` as UTF-8 with its line ends as they are.

    Lone surrogates, which no UTF-8 file can hold, are written as visible `\\udcXX` escapes.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.json"
    >>> write_text_atomically(path, "[]")
    >>> path.read_text()
    '[]'
    """
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def _mode_for(path: Path) -> int:
    """The old file's permissions, or what an ordinary `open` would have given (temporary files start at 0600)."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _no_space(path: Path, size: int, error: OSError) -> NoSpaceLeft:
    kept = "the old file is unchanged" if path.exists() else "nothing was written"
    return NoSpaceLeft(
        error.errno,
        f"no space left to write {path}: expected room for {size:,} bytes, found a full disk or quota; {kept}. "
        "Free some space and run the same command again.",
    )


def _sync_folder(folder: Path) -> None:
    """Sync the folder entry where the system lets a folder be opened (POSIX); elsewhere the rename must do."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
