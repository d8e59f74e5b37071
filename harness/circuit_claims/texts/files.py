"""Documents out of jsonl, jsonl.zst and parquet files that others wrote."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from circuit_claims.errors import ClaimsError

RawDocument = tuple[str, Mapping[str, Any]]


class TextDamaged(ClaimsError, ValueError):
    """A text file that cannot be read as one; the message names the file and the line."""


def read_documents(path: Path, column: str = "text") -> Iterator[RawDocument]:
    """Each document of a file as (text, meta). Raises `TextDamaged` that names the line for a file of another kind."""
    if path.suffix == ".parquet":
        yield from _parquet(path, column)
    elif path.name.endswith((".jsonl", ".jsonl.zst")):
        try:
            with _lines(path) as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield _row(path, number, line, column)
        except UnicodeDecodeError as error:
            raise TextDamaged(f"{path.name} is not UTF-8: {error}") from error
    else:
        raise TextDamaged(f"{path.name}: expected a file ending in .jsonl, .jsonl.zst or .parquet")


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as handle:
        if path.suffix != ".zst":
            yield io.TextIOWrapper(handle, encoding="utf-8")
            return
        zstandard = _need("zstandard", path)
        try:
            yield io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(handle), encoding="utf-8")
        except zstandard.ZstdError as error:
            raise TextDamaged(f"{path.name} is cut short or is not zstandard: {error}") from error


def _row(path: Path, number: int, line: str, column: str) -> RawDocument:
    wanted = f'expected an object with "{column}": a string'
    try:
        found = json.loads(line)
    except ValueError as error:
        raise TextDamaged(f"{path.name}, line {number}: {wanted}, found {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get(column), str):
        raise TextDamaged(f"{path.name}, line {number}: {wanted}, found {line.strip()[:60]!r}")
    meta = found.get("meta")
    return found[column], meta if isinstance(meta, dict) else {}


def _parquet(path: Path, column: str) -> Iterator[RawDocument]:
    parquet = _need("pyarrow.parquet", path)
    try:
        with parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise TextDamaged(f"{path.name}: expected a column {column!r}, found {names}")
            columns = [name for name in (column, "meta") if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=1024, columns=columns):
                for row in batch.to_pylist():
                    meta = row.get("meta")
                    yield str(row[column] or ""), meta if isinstance(meta, dict) else {}
    except OSError as error:  # what pyarrow raises for a file that is no parquet derives from it or from ValueError
        raise TextDamaged(f"{path.name} is not a whole parquet file: {error}") from error
    except ValueError as error:
        raise error if isinstance(error, TextDamaged) else TextDamaged(f"{path.name}: {error}") from error


def _need(module: str, path: Path) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise TextDamaged(
            f"{path.name} cannot be read: expected the package {package}, found none\n  Type: pip install {package}"
        ) from None
