"""What hangs on nothing but its arguments: kept under a digest of the code and of all the data that come in.

A measure is known by its subject's identity. Data made of measured tables (a known answer, a clustering) have none of
their own: there every array, number and text that a function takes, holds or closes over is digested, subjects by their
identity. What cannot be digested is made anew each time, and nothing is kept of it.

>>> from circuit_claims.keeping.cells import MemoryStore
>>> store = MemoryStore()
>>> [kept(store, twice, 21.0).value for _ in range(2)]  # made once
[42.0, 42.0]
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.measurement import Measurement
from circuit_claims.keeping.cells import CellPlan, CellStore, fill_all
from circuit_claims.keeping.keys import Root, SourceMissing, closure
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.store import to_json


class NoDigest(ClaimsError, TypeError):
    """A value whose content cannot be told from another's."""


def twice(number: float) -> Measurement:
    """The doctest's measure."""
    return Measurement("twice", 2 * number)


def kept(store: CellStore, function: Callable[..., Measurement], *given: Any, anew: bool = False) -> Measurement:
    """`function(*given)` from the store, or made and kept there; made and not kept where `given` has no digest.

    For what is made of measured tables; what is measured of a subject is kept by `measure`. `anew`: nothing is read.

    >>> from circuit_claims.keeping.cells import MemoryStore
    >>> kept(MemoryStore(), twice, 21.0).value
    42.0
    """
    try:
        parts = {"by content": getattr(function, "__qualname__", "partial"), **content_of(function, *given)}
    except (NoDigest, SourceMissing):
        return function(*given)
    plan = CellPlan({"it": parts}, lambda _: [function(*given)])
    return fill_all(plan, store, anew=anew)["it"]


def content_of(*values: Any) -> dict[str, Any]:
    """Parts of a key: a digest of the data in `values`, one of the code in it, and the libraries that it uses.

    Raises `NoDigest` for a value of a kind that is not known to hold nothing else, `SourceMissing` for code typed at a
    prompt.
    """
    reader = _Reader()
    for value in values:
        reader.read(value)
    return {"data": reader.digest.hexdigest(), **closure(*sorted(reader.roots, key=_name)).parts()}


def _name(root: Root) -> str:
    return f"{root.__module__}.{root.__qualname__}"


class _Reader:
    """Walks through values and digests what they hold; collects the functions and classes whose code they run."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.roots: set[Root] = set()
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # an id is a value's own only as long as the value is there

    def read(self, value: Any) -> None:
        """Digest one value."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
            self.note(f"{type(value).__name__} {value!r}")
            return
        if id(value) in self._seen:
            self.note(f"again {self._seen[id(value)]}")
            return
        self._seen[id(value)] = len(self._seen)
        self._alive.append(value)
        self._whole(value)

    def note(self, text: str) -> None:
        """Some text, told from what follows."""
        data = text.encode("utf-8", "surrogatepass")
        self.digest.update(f"{len(data)}:".encode() + data)

    def _whole(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, Measurement):
            self.note("measurement " + json.dumps(to_json(value), sort_keys=True, default=repr))
            self.read(dict(value.arrays))
        elif isinstance(value, Mapping):
            self.note(f"mapping of {len(value)}")
            for key, item in value.items():
                self.read(key)
                self.read(item)
        elif isinstance(value, (Sequence, range)):
            self.note(f"sequence of {len(value)}")
            for item in value:
                self.read(item)
        elif isinstance(value, (set, frozenset)):
            self.note(f"set {sorted(map(repr, value))}")
        elif callable(value):
            self._code(value)
        else:
            self._object(value)

    def _array(self, value: np.ndarray) -> None:
        if value.dtype.hasobject:
            self.read(value.tolist())
            return
        self.note(f"array {value.dtype.str} {value.shape}")
        self.digest.update(np.ascontiguousarray(value).data)

    def _code(self, value: Any) -> None:
        """A function with what it closes over; a class; a method with its object."""
        if isinstance(value, functools.partial):
            self.note("partial")
            self.read((value.func, value.args, value.keywords))
        elif isinstance(value, types.MethodType):
            self.note("method")
            self.read((value.__self__, value.__func__))
        elif hasattr(value, "__wrapped__"):  # a measure: what is around it only looks in the store
            self.note("wrapped")
            self.read(value.__wrapped__)
        elif isinstance(value, types.FunctionType):
            self._root(value)
            self._compiled(value.__code__)
            self.read((_closed_over(value), value.__defaults__, value.__kwdefaults__))
        elif isinstance(value, (type, types.BuiltinFunctionType, np.ufunc)):
            self._root(value)
        else:
            self._object(value)

    def _compiled(self, code: types.CodeType) -> None:
        """Of two functions within one definition, which: they have its source in common."""
        self.note(code.co_code.hex() + repr((code.co_names, code.co_varnames, code.co_freevars)))
        for constant in code.co_consts:
            self._compiled(constant) if isinstance(constant, types.CodeType) else self.read(constant)

    def _root(self, value: Any) -> None:
        module = getattr(value, "__module__", None) or "builtins"
        self.note(f"code {module}.{getattr(value, '__qualname__', type(value).__name__)}")
        if module.partition(".")[0] not in sys.stdlib_module_names and isinstance(value, (types.FunctionType, type)):
            self.roots.add(value)

    def _object(self, value: Any) -> None:
        """A subject by its identity, plain data by its fields; anything else may hold what is not seen."""
        kind = type(value)
        if isinstance(value, Context):
            self.note(f"context {value.device.partition(':')[0]}")
            self.read(value.profile)
            return
        self._root(kind)
        if isinstance(value, enum.Enum):
            self.note(value.name)
        elif callable(getattr(value, "identity", None)):
            self.note(json.dumps(dict(value.identity()), sort_keys=True, default=repr))
            self.read(getattr(value, "context", None))  # the amounts of the profile
        elif isinstance(value, np.random.Generator):
            self.note(repr(value.bit_generator.state))
        elif hasattr(kind, "model_fields") and callable(getattr(value, "model_dump_json", None)):
            self.note(value.model_dump_json())
        elif dataclasses.is_dataclass(value):
            self.read({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
        elif hasattr(value, "detach") and hasattr(value, "numpy"):
            self._array(value.detach().cpu().numpy())
        else:
            raise NoDigest(f"a {kind.__module__}.{kind.__qualname__} has no digest")


def _closed_over(function: types.FunctionType) -> dict[str, Any]:
    """What a function closes over, by name; what is not there yet is left out."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found
