"""Figures drawn before: kept in the store by what they show and by the code that drew it, so a second report is quick.

Nothing depends on what is kept: a file that is missing, torn or altered is drawn anew, and where none can be written
the report is made all the same.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec

from markupsafe import Markup

Args = ParamSpec("Args")
_FOLDER: ContextVar[Path | None] = ContextVar("folder of cached figures", default=None)


@contextmanager
def figure_cache(folder: Path | None) -> Iterator[None]:
    """Figures drawn inside are looked for in `folder` and kept there; with None every figure is drawn."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


def drawn_once(plot: Callable[Args, Markup]) -> Callable[Args, Markup]:
    """`plot`, a pure function of plain data (numbers, text, lists, dictionaries, frozen dataclasses), kept by them."""

    @functools.wraps(plot)
    def cached(*args: Args.args, **kwargs: Args.kwargs) -> Markup:
        folder = _FOLDER.get()
        if folder is None:
            return plot(*args, **kwargs)
        # `repr` tells a list from a tuple and keeps every digit and every NaN, which JSON does not.
        shown = f"{plot.__qualname__}{args!r}{sorted(kwargs.items())!r}{drawing_code()}"
        path = folder / f"{hashlib.sha256(shown.encode('utf-8', 'surrogatepass')).hexdigest()}.svg"
        figure = _read(path)
        if figure is None:
            figure = plot(*args, **kwargs)
            _write(path, figure)
        return figure

    return cached


@functools.cache
def drawing_code() -> str:
    """The sha256 of the report's own modules and the version of matplotlib: what else a figure depends on."""
    digest = hashlib.sha256(version("matplotlib").encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> Markup | None:
    try:
        seal, _, body = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    sound = seal == hashlib.sha256(body).hexdigest().encode()
    return Markup(body.decode("utf-8", "surrogatepass")) if sound else None


def _write(path: Path, figure: Markup) -> None:
    body = figure.encode("utf-8", "surrogatepass")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed whole but not synced: a figure torn by a power cut does not match its seal.
        descriptor, name = tempfile.mkstemp(suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        os.replace(name, path)
