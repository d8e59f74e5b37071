"""The texts a run's claims are measured on: which are here, under which names, and which stand in for which.

Third-party text never ships. What is here comes with Python, lies in the run's own folder (`claims train` leaves the
rows it held out in `corpus/`), or lies in the folder given with `--texts` or one folder below it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from circuit_claims.papers.refined_llc.curves.roles import HELD_OUT, STANDARD
from circuit_claims.papers.refined_llc.recording.cells import CellsError
from circuit_claims.papers.refined_llc.recording.rows import rows_from_file, rows_of_texts, standard_rows, tokenizer_of

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.runs.live import LiveRun
    from circuit_claims.texts import TextRow

TextRows = Int[Tensor, "row pos"]


def rows_here(run: LiveRun, wanted: Collection[str] | None = None) -> dict[str, TextRows]:
    """Rows of every text that is here by its name in cells, of those `wanted` where they are named.

    Raises `CellsError` or `TextDamaged` for a file that should be such a text and cannot be read.
    """
    makers = _makers(run)
    return {name: make() for name, make in makers.items() if wanted is None or name in wanted}


def names_here(run: LiveRun) -> tuple[str, ...]:
    """Names of the texts that are here, without reading them."""
    return tuple(_makers(run))


def _makers(run: LiveRun) -> dict[str, Callable[[], TextRows]]:
    folders = tuple(_with_subfolders(run.texts_dirs))
    found: dict[str, Callable[[], TextRows]] = {}
    if (path := held_out_file(run, folders)) is not None:
        found[HELD_OUT] = lambda: rows_from_file(path)
    tokenizer, bos, place = tokenizer_of(run), run.probes.bos, run.run.tokenizer_path
    for row, folder in _given(folders):
        found[row.name] = lambda row=row, folder=folder: _cut(row.name, folder, place, tokenizer.digest, bos)
    return found | {name: lambda name=name: _cut(name, None, place, tokenizer.digest, bos) for name in STANDARD}


def _with_subfolders(folders: Collection[Path]) -> Iterator[Path]:
    for folder in folders:
        yield folder
        yield from sorted(path for path in folder.glob("*") if path.is_dir())


def held_out_file(run: LiveRun, folders: Collection[Path]) -> Path | None:
    """The rows that this run's training held out: in its own `corpus` or in a folder with the same corpus digest."""
    expected = run.run.card.get("corpus")
    for folder in (run.run.folder / "corpus", *folders):
        card = folder / "corpus.json"
        try:
            same = card.is_file() and json.loads(card.read_text(encoding="utf-8"))["digest"] == expected
        except (ValueError, KeyError, TypeError) as error:
            raise CellsError(
                f"corpus {card}\n  expected  a card as `claims train` writes it\n  found     {error!r}"
            ) from None
        if same and (folder / "test.npy").is_file():
            return folder / "test.npy"
    return None


def _given(folders: Collection[Path]) -> Iterator[tuple[TextRow, Path]]:
    """Texts of the registry with the first folder that has files of theirs."""
    from circuit_claims.texts import load_texts

    for row in load_texts().values():
        for folder in folders if row.kind == "documents" else ():
            if any(path.is_file() for pattern in row.files for path in folder.glob(pattern)):
                yield row, folder
                break


@cache
def _cut(name: str, folder: Path | None, tokenizer_path: Path, digest: str, bos: int) -> TextRows:
    """Read once a process: several claims are asked on the same text."""
    from circuit_claims.texts import open_text
    from circuit_claims.toy.tokenizer import open_tokenizer

    del digest  # part of the key alone: another tokenizer under the same path cuts other rows
    tokenizer = open_tokenizer(tokenizer_path)
    if folder is None:
        return standard_rows(name, tokenizer, bos)
    documents = open_text(name, texts_dir=folder, fetch=False).documents
    return rows_of_texts([one.text for one in documents], tokenizer, bos, name=name)
