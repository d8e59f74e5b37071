"""Where a text's documents are looked for: a local folder, the hub's cache, the hub; and what stands in for it."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from circuit_claims.models.errors import Attempt, ModelNotAvailable
from circuit_claims.texts.files import TextDamaged, read_documents
from circuit_claims.texts.library import STANDARD_TEXTS
from circuit_claims.texts.registry import HubText, TextRow, find_text

NOT_ASKED = "not asked: nothing is to be fetched"


class TextNotAvailable(ModelNotAvailable):
    """No source has the text. `tried` is what each answered, `command` the line that would fetch it."""


@dataclass(frozen=True)
class Document:
    """One document: a name that finds it again, its text, and the part of the whole text it belongs to."""

    name: str
    text: str
    group: str = ""


@dataclass(frozen=True)
class Text:
    """A text on this machine. `stands_for` names the text it replaces, if any; `label` says so in the report."""

    name: str
    label: str
    documents: tuple[Document, ...] = field(repr=False)
    source: Mapping[str, str]
    stands_for: str = ""

    @cached_property
    def digest(self) -> str:
        """sha256 over all documents (see `documents_digest`): what measurements on this text are filed under."""
        return documents_digest(document.text for document in self.documents)

    @property
    def joined(self) -> str:
        """All documents in one string, blank lines between."""
        return "\n\n".join(document.text for document in self.documents)


def documents_digest(texts: Iterable[str]) -> str:
    """sha256 over documents: for each one its length in bytes as 8 bytes, big end first, then its UTF-8.

    >>> documents_digest(["ab", "c"]) != documents_digest(["a", "bc"])
    True
    """
    found = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def open_text(
    name: str,
    *,
    texts_dir: Path | str | None = None,
    fetch: bool = True,
    stand_in: bool = False,
    rows: Mapping[str, TextRow] | None = None,
) -> Text:
    """The text called `name` among `rows` (the general registry), from the first source that has it.

    `texts_dir` is a folder of jsonl, jsonl.zst or parquet files; with `fetch` the hub is asked after its cache on this
    machine. With `stand_in` a text that cannot be had is replaced by its stand-ins, and the label says so. Raises
    KeyError for an unknown name and `TextNotAvailable` with what each source answered.
    """
    row = find_text(name) if rows is None else find_text(name, rows)
    if row.kind == "library":
        return _library(row)
    tried: list[Attempt] = []
    damaged = False
    for source, ask in _sources(row, Path(texts_dir) if texts_dir else None, fetch):
        try:
            return _checked(row, *ask())
        except (_NotThere, TextDamaged, OSError) as error:
            damaged = damaged or isinstance(error, TextDamaged)
            tried.append(Attempt(source, str(error) if not isinstance(error, OSError) else f"a file: {error}"))
    # A file that was meant to be the text and is damaged must be seen, not passed over for a stand-in.
    if stand_in and row.stand_ins and not damaged:
        return _stand_in(row)
    raise TextNotAvailable(f"the text {name}", tried, f"claims fetch {name}" if row.hub else "pytest --texts FOLDER")


def standard_text(name: str) -> str:
    """One text in one string: what Python carries, or a text of the registry that is already on this machine."""
    return open_text(name, fetch=False).joined


def text_digest(name: str) -> str:
    """sha256 of a text as one string in UTF-8: what a measurement on it is filed under."""
    return hashlib.sha256(standard_text(name).encode()).hexdigest()


def text_label(name: str) -> str:
    """How a report names a text that Python carries: which Python's, and that it stands in for a paper's corpus."""
    return f"{name} of Python {platform.python_version()}, standing in for the paper's corpus"


class _NotThere(Exception):
    """This source does not have the text; the words say why."""


@cache
def _library(row: TextRow) -> Text:
    documents = tuple(Document(title, text, row.name) for title, text in STANDARD_TEXTS[row.name]())
    return Text(row.name, f"{row.name} of Python {platform.python_version()}", documents, {"from": "Python's library"})


def _stand_in(row: TextRow) -> Text:
    """The stand-ins of a text, pooled: each one's documents keep its name as their group."""
    parts = [without_repeats(_library(find_text(name))) for name in row.stand_ins]
    label = f"{' and '.join(row.stand_ins)} of Python {platform.python_version()}, standing in for {row.title}"
    documents = tuple(document for part in parts for document in part.documents)
    return Text("+".join(row.stand_ins), label, documents, {"from": "Python's library"}, stands_for=row.name)


def without_repeats(text: Text) -> Text:
    """The text without documents that stand whole inside another: two topics of the reference, say, with one chapter.

    Windows of both would count one passage twice, as two documents. Compares all pairs: for texts of few documents.
    """
    by_length = sorted(text.documents, key=lambda document: -len(document.text))
    kept: list[Document] = []
    for document in by_length:
        if not any(document.text.strip() in other.text for other in kept):
            kept.append(document)
    names = {id(document) for document in kept}
    return replace(text, documents=tuple(document for document in text.documents if id(document) in names))


LocatedText = tuple[tuple[Document, ...], dict[str, str]]


def _sources(row: TextRow, folder: Path | None, fetch: bool) -> Iterator[tuple[str, Callable[[], LocatedText]]]:
    yield "local folder", lambda: _local(row, folder)
    if (hub := row.hub) is not None:
        yield "hub's cache", lambda: _from_hub(row, hub, _hub_cached)
        yield f"hub {hub.repo}", lambda: _from_hub(row, hub, _hub_download if fetch else _hub_not_asked)


def _local(row: TextRow, folder: Path | None) -> LocatedText:
    if folder is None:
        raise _NotThere("none given (--texts FOLDER)")
    if not folder.is_dir():
        raise _NotThere(f"{folder} is not a folder")
    for pattern in row.files:
        if paths := sorted(path for path in folder.glob(pattern) if path.is_file()):
            names = ", ".join(path.relative_to(folder).as_posix() for path in paths)
            return _read(row, paths, "text"), {"from": "local folder", "files": names}
    raise _NotThere(f"nothing in {folder} is called {', '.join(row.files[:3])}, ...")


def _from_hub(row: TextRow, hub: HubText, get: Callable[[HubText, str], Path]) -> LocatedText:
    paths = [get(hub, name) for name in hub.files]
    facts = {"from": f"hub {hub.repo}", "revision": hub.revision, "files": ", ".join(hub.files)}
    # In the hub's cache a file lies in the folder named by its commit.
    commits = sorted({part for path in paths for part in path.parts if len(part) == 40 and part.isalnum()})
    return _read(row, paths, hub.column), facts | ({"commit": commits[0]} if len(commits) == 1 else {})


def _hub_cached(hub: HubText, name: str) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub.repo, name, revision=hub.revision, repo_type="dataset")
    if not isinstance(found, str):
        raise _NotThere("nothing there")
    return Path(found)


def _hub_download(hub: HubText, name: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download

    from circuit_claims.models.sources import HUB_TIMEOUT

    try:
        # Asked first because it answers at once where there is no network.
        HfApi().dataset_info(hub.repo, revision=hub.revision, timeout=HUB_TIMEOUT)
        return Path(hf_hub_download(hub.repo, name, revision=hub.revision, repo_type="dataset"))
    except Exception as error:  # the hub's client raises its own, httpx's and requests' errors
        first = (str(error).strip().splitlines() or [""])[0]
        raise _NotThere(f"{type(error).__name__}: {first[:200]}") from error


def _hub_not_asked(hub: HubText, name: str) -> Path:
    raise _NotThere(NOT_ASKED)


def _read(row: TextRow, paths: Iterable[Path], column: str) -> tuple[Document, ...]:
    found: list[Document] = []
    for path in paths:
        for place, (text, meta) in enumerate(read_documents(path, column)):
            group = str(meta.get(row.group, "")) if row.group else ""
            found.append(Document(f"{path.name}:{place + 1}", text, group))
    return tuple(found)


def _checked(row: TextRow, documents: tuple[Document, ...], source: dict[str, str]) -> Text:
    """The text with a label that says whether it was recognised as the published one."""
    if not documents:
        raise _NotThere("it holds no document")
    known = row.first is not None and (
        documents_digest(document.text for document in documents[: row.first.documents]) == row.first.sha256
    )
    words = "" if known or row.first is None else ", taken for it unchecked: its first documents are not the published"
    label = f"{row.title} ({len(documents):,} documents{words})"
    text = Text(row.name, label, documents, source)
    return text if known or row.first is None else replace(text, stands_for=row.name)
