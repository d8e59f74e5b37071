"""Texts that every machine with Python has, document by document: stand-ins where the papers' corpora are not."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

SOURCE_MODULES = (
    "argparse", "ast", "asyncio/base_events", "asyncio/tasks", "bisect", "calendar", "collections/__init__",
    "configparser", "csv", "dataclasses", "datetime", "difflib", "email/message", "enum", "fractions", "functools",
    "heapq", "http/client", "inspect", "json/decoder", "locale", "logging/__init__", "mailbox", "optparse", "pathlib",
    "pickle", "shutil", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "tokenize", "typing", "unittest/case", "unittest/mock", "urllib/parse", "uuid", "weakref", "zipfile",
)  # fmt: skip
NOT_THE_LIBRARY = frozenset({"test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "__pycache__"})
NamedDocument = tuple[str, str]


def python_docs() -> Iterator[NamedDocument]:
    """`pydoc_data.topics`, some 450 kB of technical English, one document a topic."""
    from pydoc_data.topics import topics

    for topic in sorted(topics):
        yield topic, topics[topic]


def stdlib_source() -> Iterator[NamedDocument]:
    """The source of some forty modules of the standard library, one document a module."""
    folder = Path(sysconfig.get_path("stdlib"))
    for module in SOURCE_MODULES:
        # A module may be a file in one Python version and a package in another (pathlib): whichever is there is taken.
        for path in (folder / f"{module}.py", folder / module / "__init__.py"):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")


def stdlib_complete() -> Iterator[NamedDocument]:
    """The source of the whole standard library but its tests, one document a module."""
    folder = Path(sysconfig.get_path("stdlib"))
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(folder)
        if not NOT_THE_LIBRARY & set(place.parts):
            yield place.as_posix(), path.read_text(encoding="utf-8", errors="replace")


STANDARD_TEXTS: dict[str, Callable[[], Iterator[NamedDocument]]] = {
    "python-docs": python_docs,
    "stdlib-source": stdlib_source,
    "stdlib-complete": stdlib_complete,
}
