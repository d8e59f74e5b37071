"""Training text for the attention-only models: a mixture of sources, tokenised and packed to the context.

Rows are as `transformer-lens` packs them for the published run: documents joined by BOS, cut into pieces of
`n_ctx` - 1 tokens, BOS in front of each. Rows come in an order drawn by the mixture's seed, so a step's batch is known
from its number.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from circuit_claims.errors import ClaimsError
from circuit_claims.keeping.atomic import write_bytes_atomically
from circuit_claims.toy.tokenizer import BOS, Tokenizer

CorpusRows = UInt16[np.ndarray, "row n_ctx"]


class CorpusError(ClaimsError, ValueError):
    """A folder, mixture or file of training text that cannot be used; the text says what to type."""


class Source(BaseModel):
    """One file of documents: what it stands for in the Pile, its licence, and at most how much of it is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[\w.-]+\.jsonl(\.zst)?$")
    stands_for: str
    licence: str
    megabytes: float = Field(gt=0)


class Mixture(BaseModel):
    """The sources, the seed that draws and orders documents, and the share of documents held out for the test loss."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int
    held_out: float = Field(gt=0, lt=0.5)
    source: tuple[Source, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Corpus:
    """Packed rows for training and for the test loss, with the card that says what is in them."""

    train: CorpusRows
    test: CorpusRows
    card: dict[str, Any]

    @property
    def n_ctx(self) -> int:
        """Tokens a row, BOS included."""
        return int(self.train.shape[1])

    @property
    def digest(self) -> str:
        """sha256 over the rows: what a run resumes against."""
        return str(self.card["digest"])


def load_mixture(path: Path) -> Mixture:
    """Read a mixture file. Raises `CorpusError` naming the field that is wrong."""
    try:
        return Mixture.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise CorpusError(
            f"mixture {path}\n  expected  seed, held_out and [[source]] tables\n  found     {error}\n"
            "  Type: --mixture with a TOML file like fixtures/attention_only/mixture.toml"
        ) from None


def documents(folder: Path, source: Source, seed: int) -> list[str]:
    """Whole documents of a source in an order drawn by `seed`, up to its `megabytes` of UTF-8; empty ones left out."""
    texts = [text for text in read_texts(folder / source.file) if text.strip()]
    # Seeded by the file's name too: sources must not share one permutation.
    name = int.from_bytes(hashlib.sha256(source.file.encode()).digest()[:4], "big")
    kept, size = [], 0
    for index in np.random.default_rng([seed, name]).permutation(len(texts)):
        size += len(texts[index].encode())
        if kept and size > source.megabytes * 1e6:
            break
        kept.append(texts[index])
    if not kept:
        raise CorpusError(f"{folder / source.file}\n  expected  documents with text\n  found     none")
    return kept


def read_texts(path: Path) -> Iterator[str]:
    """The field "text" of each line of a `.jsonl` or `.jsonl.zst` file. Raises `CorpusError` with the line's number."""
    try:
        with _opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = json.loads(line)["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise CorpusError(
                        f'{path}, line {number}\n  expected  a JSON object with a field "text"\n  found     {error!r}'
                    ) from None
                if not isinstance(text, str):
                    raise CorpusError(f"{path}, line {number}\n  expected  text\n  found     {type(text).__name__}")
                yield text
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}\n  expected  a file of training text\n  found     {error}") from None


def _opened(path: Path) -> Any:
    if path.suffix != ".zst":
        return path.open(encoding="utf-8")
    import zstandard

    return zstandard.open(path, "rt", encoding="utf-8")


def split_held_out(texts: Sequence[str], share: float) -> tuple[list[str], list[str]]:
    """Training and held-out documents of one source: the last `share` of them, at least one where there are two."""
    count = max(1, round(share * len(texts))) if len(texts) > 1 else 0
    return list(texts[: len(texts) - count]), list(texts[len(texts) - count :])


def pack(ids: Sequence[np.ndarray], n_ctx: int, bos: int = BOS) -> CorpusRows:
    """Rows of `n_ctx` tokens from documents: joined by BOS, cut every `n_ctx` - 1, BOS in front, rest dropped."""
    if n_ctx < 2:
        raise CorpusError(f"context: expected at least 2 tokens, found {n_ctx}")
    joined = [part for document in ids for part in (document, np.array([bos], dtype=np.uint16))]
    stream = np.concatenate(joined) if joined else np.zeros(0, dtype=np.uint16)
    count = len(stream) // (n_ctx - 1)
    body = stream[: count * (n_ctx - 1)].reshape(count, n_ctx - 1).astype(np.uint16)
    return np.concatenate([np.full((count, 1), bos, dtype=np.uint16), body], axis=1)


def prepare(
    folder: Path,
    mixture: Mixture,
    tokenizer: Tokenizer,
    n_ctx: int,
    into: Path,
    progress: Callable[[str], None] = lambda message: None,
) -> Corpus:
    """Tokenise and pack every source of `folder`, write `train.npy`, `test.npy`, `corpus.json` into `into`, open it."""
    train, test, sources = [], [], []
    for source in mixture.source:
        progress(f"tokenising {source.file}")
        kept, held = split_held_out(documents(folder, source, mixture.seed), mixture.held_out)
        ids = tokenizer.encode_all(kept)
        train.append(pack(ids, n_ctx))
        test.append(pack(tokenizer.encode_all(held), n_ctx))
        size = sum(len(text.encode()) for text in kept)
        sources.append({**source.model_dump(), "documents": len(kept), "bytes": size, "tokens": sum(map(len, ids))})
    order = np.random.default_rng(mixture.seed)
    arrays = {"train": order.permutation(np.concatenate(train)), "test": order.permutation(np.concatenate(test))}
    total = sum(row["tokens"] for row in sources)
    card = {
        "n_ctx": n_ctx,
        "seed": mixture.seed,
        "tokenizer": tokenizer.digest,
        "rows": {name: len(array) for name, array in arrays.items()},
        "sources": [{**row, "share": round(row["tokens"] / total, 4)} for row in sources],
        "digest": _digest(arrays),
    }
    into.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_bytes_atomically(into / f"{name}.npy", _npy(array))
    write_bytes_atomically(into / "corpus.json", json.dumps(card, indent=1).encode())
    return Corpus(arrays["train"], arrays["test"], card)


def open_corpus(folder: Path, check: bool = True) -> Corpus:
    """A prepared corpus, its rows mapped from disk and checked against the digest of its card."""
    try:
        card = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        train, test = (np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("train", "test"))
        found = _digest({"train": train, "test": test}) if check else card["digest"]
        expected = card["digest"]
    except (OSError, ValueError, KeyError) as error:
        raise CorpusError(
            f"corpus {folder}\n  expected  train.npy, test.npy and corpus.json as written by `claims train`\n"
            f"  found     {error}\n  Delete the folder and type the same command again."
        ) from None
    if found != expected:
        raise CorpusError(
            f"corpus {folder}\n  expected  rows with sha256 {expected[:16]}...\n  found     {found[:16]}...\n"
            "  The files were changed or damaged: delete the folder and type the same command again."
        )
    return Corpus(train, test, card)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name}{arrays[name].shape}".encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
