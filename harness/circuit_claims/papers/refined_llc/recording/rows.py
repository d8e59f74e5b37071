"""Token rows that coefficients are measured on: standard texts cut with the run's tokenizer, or rows from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from circuit_claims.papers.refined_llc.recording.cells import CellsError
from circuit_claims.papers.refined_llc.recording.coefficients import LENGTH, ROWS, rows_digest
from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.live import LiveRun
    from circuit_claims.toy.tokenizer import Tokenizer

PER_DOCUMENT = 3


def standard_rows(
    name: str, tokenizer: Any, bos: int, *, length: int | None = None, most: int | None = None
) -> Int[Tensor, "row pos"]:
    """Rows of a standard text, BOS first, spread evenly over the text.

    Raises KeyError for another name, `CellsError` for a text too short for a single row.
    """
    from circuit_claims.texts import standard_text

    return cut_evenly(np.asarray(tokenizer.encode(standard_text(name))), bos, length=length, most=most, name=name)


def cut_evenly(
    ids: Int[np.ndarray, " token"], bos: int, *, length: int | None = None, most: int | None = None, name: str = "text"
) -> Int[Tensor, "row pos"]:
    """At most `most` windows of `length` - 1 tokens, evenly spread over `ids`, BOS in front of each.

    >>> cut_evenly(np.arange(9), 99, length=3, most=2).tolist()
    [[99, 0, 1], [99, 4, 5]]
    """
    length, most = length or LENGTH, most or ROWS
    count = len(ids) // (length - 1)
    if count == 0:
        raise CellsError(f"rows of {name}: expected at least {length - 1} tokens, found {len(ids)}. Give a longer text")
    chosen = evenly(ids[: count * (length - 1)].reshape(count, length - 1).astype(np.int64), most)
    return torch.from_numpy(np.concatenate([np.full((len(chosen), 1), bos), chosen], 1))


def evenly(rows: Any, most: int) -> Any:
    """At most `most` rows of an array or tensor, evenly spread over it.

    >>> evenly(np.arange(10), 3).tolist()
    [0, 3, 6]
    """
    count = min(most, len(rows))
    return rows[[index * len(rows) // count for index in range(count)]]


def rows_from_file(path: Path, *, length: int | None = None, most: int | None = None) -> Int[Tensor, "row pos"]:
    """The first `most` rows of an .npy file of token ids, cut to `length`. Raises `CellsError` for anything else."""
    length = length or LENGTH
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise CellsError(f"rows {path}\n  expected  an .npy file of token rows\n  found     {error}") from None
    if found.ndim != 2 or found.shape[1] < length or found.dtype.kind not in "iu":
        raise CellsError(
            f"rows {path}\n  expected  a table of whole numbers, rows of {length} tokens or more\n"
            f"  found     shape {found.shape} of {found.dtype}\n  Save one with numpy.save(file, rows)"
        )
    return torch.from_numpy(np.array(found[: most or ROWS, :length], dtype=np.int64))


def rows_from_documents(
    path: Path, tokenizer: Any, bos: int, *, length: int | None = None, most: int | None = None, seed: int = 0
) -> Int[Tensor, "row pos"]:
    """Rows of a .jsonl or .jsonl.zst file of documents, see `rows_of_texts`. Raises `CorpusError` or `CellsError`."""
    from circuit_claims.toy.corpus import read_texts

    return rows_of_texts(list(read_texts(path)), tokenizer, bos, length=length, most=most, seed=seed, name=path.name)


def rows_of_texts(
    documents: Sequence[str],
    tokenizer: Any,
    bos: int,
    *,
    length: int | None = None,
    most: int | None = None,
    seed: int = 0,
    name: str = "text",
) -> Int[Tensor, "row pos"]:
    """Rows of documents in an order drawn by `seed`, at most `PER_DOCUMENT` from one.

    Short documents are joined, BOS between, as in training. Raises `CellsError` for too little text.
    """
    length = length or LENGTH
    texts = [text for text in documents if text.strip()]
    parts, enough = [], (most or ROWS) * (length - 1)
    for index in np.random.default_rng(seed).permutation(len(texts)):
        ids = np.asarray(tokenizer.encode(texts[index][: PER_DOCUMENT * 8 * length]), dtype=np.int64)
        parts.append(np.append(ids[: PER_DOCUMENT * (length - 1)], bos))
        enough -= len(parts[-1])
        if enough <= 0:
            break
    joined = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    return cut_evenly(joined, bos, length=length, most=most, name=name)


def given_rows(path: Path, tokenizer: Any, bos: int) -> Int[Tensor, "row pos"]:
    """Rows of a file: token ids (.npy) or documents (.jsonl, .jsonl.zst)."""
    return rows_from_file(path) if path.suffix == ".npy" else rows_from_documents(path, tokenizer, bos)


def tokenizer_of(run: LiveRun) -> Tokenizer:
    """The run's tokenizer. Raises `RunNotAvailable` where it is not beside the checkpoints."""
    if run.run.card.get("tokenizer") and run.run.tokenizer_path.exists():
        return run.run.tokenizer
    reason = f"texts cannot be cut into its tokens: there is no tokenizer.json in {run.run.folder.name} or beside it"
    raise RunNotAvailable(run.name, reason, f"claims convert-checkpoint {run.name} FILE.pth ...")


def comparable(rows: Mapping[str, Tensor], recorded: Mapping[str, str]) -> tuple[str, ...]:
    """The texts whose rows here are those that recorded cells were measured on: another Python has other texts."""
    return tuple(name for name, table in rows.items() if recorded.get(name) == rows_digest(table))
