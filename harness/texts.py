"""Texts that every machine with Python has: stand-ins where the papers' corpora cannot be had, and labelled so."""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from collections.abc import Callable
from pathlib import Path

SOURCE_MODULES = (
    "argparse", "ast", "asyncio/base_events", "asyncio/tasks", "bisect", "calendar", "collections/__init__",
    "configparser", "csv", "dataclasses", "datetime", "difflib", "email/message", "enum", "fractions", "functools",
    "heapq", "http/client", "inspect", "json/decoder", "locale", "logging/__init__", "mailbox", "optparse", "pathlib",
    "pickle", "shutil", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap", "threading",
    "tokenize", "typing", "unittest/case", "unittest/mock", "urllib/parse", "uuid", "weakref", "zipfile",
)  # fmt: skip


def standard_text(name: str) -> str:
    """One of the standard texts, the same on every machine with the same Python version.

    `python-docs` is `pydoc_data.topics`, some 450 kB of technical English; `stdlib-source` the source of some forty
    modules of the standard library. Raises KeyError for another name.

    >>> len(standard_text("python-docs")) > 400_000
    True
    """
    if name not in STANDARD_TEXTS:
        raise KeyError(f"no standard text named {name!r}: expected one of {', '.join(STANDARD_TEXTS)}")
    return STANDARD_TEXTS[name]()


def text_digest(name: str) -> str:
    """sha256 of a standard text as UTF-8: what a measurement on it is filed under."""
    return hashlib.sha256(standard_text(name).encode()).hexdigest()


def text_label(name: str) -> str:
    """How a report names a standard text: which Python's, and that it stands in for the paper's corpus."""
    return f"{name} of Python {platform.python_version()}, standing in for the paper's corpus"


def _python_docs() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics[topic] for topic in sorted(topics))


def _stdlib_source() -> str:
    folder = Path(sysconfig.get_path("stdlib"))
    # A module may be a file in one Python version and a package in another (pathlib): whichever is there is taken.
    found = (path for module in SOURCE_MODULES for path in (folder / f"{module}.py", folder / module / "__init__.py"))
    return "\n\n".join(path.read_text(encoding="utf-8") for path in found if path.is_file())


STANDARD_TEXTS: dict[str, Callable[[], str]] = {"python-docs": _python_docs, "stdlib-source": _stdlib_source}
