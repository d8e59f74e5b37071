"""Rows of tokens for an estimate: from a table of token ids on disk, a text file, or a text known by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from circuit_claims.errors import InputError

Encode = Callable[[str], Sequence[int] | np.ndarray]


def read_text(text: str) -> str | Int[np.ndarray, "rows pos"]:
    """What `text` names: an .npy file of token rows, a text file in UTF-8, or a standard text.

    Raises ValueError with what was found and what to type for anything else.
    """
    path = Path(text)
    if path.is_dir():
        raise _unfit(text, "a folder")
    if path.suffix == ".npy":
        return _table(path)
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise _unfit(text, f"a file that is not UTF-8 text: {error}") from None
    from circuit_claims.models.errors import RegistryError
    from circuit_claims.texts import STANDARD_TEXTS, standard_text

    try:
        return standard_text(text)
    except RegistryError:
        found = f"neither a file of that name nor a standard text ({', '.join(STANDARD_TEXTS)})"
        raise _unfit(text, found) from None


def _unfit(text: str, found: str) -> InputError:
    return InputError(
        f"text {text!r}\n  expected  a standard text, a text file, or an .npy file of token rows\n  found     {found}\n"
        "  Type for example: --text python-docs, --text my.txt, or --text rows.npy (numpy.save(file, rows), integers)"
    )


def _table(path: Path) -> Int[np.ndarray, "rows pos"]:
    if not path.is_file():
        raise _unfit(str(path), "no file of that name")
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError):  # numpy's own words advise unpickling, which is never safe
        raise _unfit(str(path), "a file that is no whole array of numbers in numpy's format") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or 0 in rows.shape:
        shape = rows.shape if isinstance(rows, np.ndarray) else "an archive of several arrays"
        raise _unfit(str(path), f"shape {shape}: a table rows x tokens is wanted")
    if rows.dtype.kind not in "iu":
        raise _unfit(str(path), f"numbers of type {rows.dtype}: token ids are integers. Try rows.astype(int)")
    return rows


def cut_rows(
    found: str | Int[np.ndarray, "rows pos"],
    model: nn.Module,
    encode: Encode | None,
    *,
    text: str,
    length: int,
    batch: int = 1,
    most: int = 512,
) -> Int[Tensor, "rows pos"]:
    """At least `batch` and at most `most` rows of `length` tokens that `model` can read; a text is cut end to end.

    `encode` turns strings into token ids (None where that cannot be had), `text` is the name for messages. Raises
    ValueError where rows are too short or few, longer than the model's context, or hold ids outside its vocabulary.
    """
    context = _first(getattr(model, "config", None), "n_ctx", "max_position_embeddings", "n_positions")
    if context is not None and length - 1 > context:
        raise InputError(
            f"length: expected at most {context + 1} tokens, what the model reads and one to predict, found {length}. "
            f"Type: --length {context}"
        )
    rows = found if isinstance(found, np.ndarray) else _windows(found, encode, text, length)
    if rows.shape[1] < length:
        raise InputError(
            f"text {text!r}: expected rows of {length} tokens or more, found {rows.shape[1]}. "
            f"Type: --length {rows.shape[1]}"
        )
    rows = rows[:most, :length]
    if len(rows) < batch:
        raise InputError(
            f"text {text!r}: expected a batch of {batch} rows or more, found {len(rows)}. Type: --batch {len(rows)}"
        )
    size = _vocabulary(model)
    if size is not None and not (rows.min() >= 0 and rows.max() < size):
        raise InputError(
            f"text {text!r}: expected token ids from 0 to {size - 1:,}, the model's vocabulary, found {rows.min():,} "
            f"to {rows.max():,}. Were the rows made with this model's tokenizer?"
        )
    return torch.from_numpy(rows.astype(np.int64))


def _windows(words: str, encode: Encode | None, text: str, length: int) -> Int[np.ndarray, "rows pos"]:
    if encode is None:
        raise InputError(
            f"text {text!r}: expected an .npy file of token rows, since no tokenizer.json lies beside the model. "
            "Save one with numpy.save(file, rows)"
        )
    tokens = np.asarray(encode(words), dtype=np.int64)
    count = len(tokens) // length
    if count == 0:
        raise InputError(
            f"text {text!r}: expected at least {length} tokens, found {len(tokens)}. Type: --length with a smaller "
            "number, or give a longer text"
        )
    return tokens[: count * length].reshape(count, length)


def _first(config: Any, *names: str) -> int | None:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _vocabulary(model: nn.Module) -> int | None:
    own = getattr(getattr(model, "config", None), "d_vocab", None)
    if own is not None:
        return own
    table = getattr(model, "get_input_embeddings", lambda: None)()
    return None if table is None else len(table.weight)
