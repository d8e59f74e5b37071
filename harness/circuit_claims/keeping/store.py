"""The store: measurements kept under the digest of everything that made them, written whole, read only when sound."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.json_values import to_number, to_plain
from circuit_claims.judging.measurement import Cost, Interval, Measurement, Rival

FORMAT = 1
RECORD, ARRAYS, COST, ASIDE = "measurement.json", "arrays.safetensors", "cost.json", "set-aside"


class StoreError(ClaimsError, OSError):
    """The store cannot be written or read; the text says where, why, and what to type."""


def key_of(parts: Mapping[str, Any]) -> str:
    """The sha256 of `parts` as canonical JSON: sorted keys, no spaces, no value that JSON cannot hold.

    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(_canonical(parts)).hexdigest()


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _in_order(data: Any) -> bytes:
    """The same with names in the order they were given in: what is read back goes through them as what was measured."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


class Store:
    """Measurements on disk, one folder an entry: `measurement.json` and, if there are arrays, `arrays.safetensors`.

    What a measurement cost (seconds, memory) lies beside it in `cost.json`, outside the checksums: two runs that
    measure the same thing write the same record, byte for byte.
    `on_bad(path, reason)` is told of each entry that was found damaged and set aside.
    """

    def __init__(self, root: Path, on_bad: Callable[[Path, str], None] | None = None) -> None:
        self.root = Path(root)
        self._on_bad = on_bad or (lambda path, reason: None)

    def path(self, key: str) -> Path:
        """Where the entry of `key` lies. Raises `StoreError` for a key that is not 64 hexadecimal digits."""
        if len(key) != 64 or any(letter not in "0123456789abcdef" for letter in key):
            raise StoreError(f"store key: expected 64 hexadecimal digits, found {key!r}")
        return self.root / key[:2] / key

    def load(self, key: str) -> Measurement | None:
        """The measurement under `key`, or None where there is none or it was damaged (then it is set aside)."""
        folder = self.path(key)
        if not folder.is_dir():
            return None
        try:
            return _read(folder, key)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._set_aside(folder, f"{type(error).__name__}: {error}")
            return None

    def save(self, key: str, measurement: Measurement, *, anew: bool = False) -> None:
        """Write `measurement` under `key`: all of it or nothing.

        A second writer of the same key changes nothing, unless it comes with `anew`: then it takes the old one's place.
        """
        folder = self.path(key)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(str(folder.parent / ".lock")):
                if anew and folder.exists():
                    shutil.rmtree(folder)
                if not folder.exists():
                    _write(folder, key, measurement)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store\n  expected {self.root} to be writable, with room\n  found    {error}\n"
                "  Free some space, or type: pytest claims/ --claims-store ANOTHER_FOLDER"
            ) from error

    def _set_aside(self, folder: Path, reason: str) -> None:
        aside = self.root / ASIDE
        aside.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder.parent / ".lock")):
            if folder.exists():
                target = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=aside))
                os.rename(folder, target / "entry")
                self._on_bad(target / "entry", reason)


def _write(folder: Path, key: str, measurement: Measurement) -> None:
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        body = to_json(measurement)
        if measurement.arrays:
            from safetensors.numpy import save

            arrays = {name: np.ascontiguousarray(array) for name, array in sorted(measurement.arrays.items())}
            blob = save(arrays)
            _put(draft / ARRAYS, blob)
            body["arrays_sha256"] = hashlib.sha256(blob).hexdigest()
        record = {"format": FORMAT, "key": key, "sha256": hashlib.sha256(_canonical(body)).hexdigest(), "body": body}
        _put(draft / RECORD, _in_order(record) + b"\n")
        _put(draft / COST, _canonical(asdict(measurement.cost)) + b"\n")
        _sync(draft)
        os.rename(draft, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(folder: Path, key: str) -> Measurement:
    record = json.loads((folder / RECORD).read_bytes())
    if record["format"] != FORMAT or record["key"] != key:
        raise ValueError(f"expected format {FORMAT} and key {key}, found {record['format']} and {record['key']}")
    body = record["body"]
    if hashlib.sha256(_canonical(body)).hexdigest() != record["sha256"]:
        raise ValueError("the record does not match its own sha256")
    arrays: dict[str, np.ndarray] = {}
    if expected := body.pop("arrays_sha256", None):
        blob = (folder / ARRAYS).read_bytes()
        if hashlib.sha256(blob).hexdigest() != expected:
            raise ValueError("the arrays do not match their sha256")
        from safetensors.numpy import load

        arrays = load(blob)
    cost = Cost(**json.loads((folder / COST).read_bytes()))
    return replace(measurement_from_json(body), arrays=arrays, cost=cost, origin="store")


def to_json(measurement: Measurement) -> dict[str, Any]:
    """A measurement without arrays and cost as plain JSON values; numbers that are not finite become strings."""
    fields = {name: getattr(measurement, name) for name in _PLAIN}
    fields["value"] = to_plain(measurement.value)
    interval = measurement.interval
    fields["interval"] = None if interval is None else to_plain(asdict(interval))
    fields["support"] = dict(measurement.support)
    fields["rivals"] = {label: asdict(rival) for label, rival in measurement.rivals.items()}
    fields["redrawn"] = dict(measurement.redrawn)
    fields["facts"] = json.loads(_in_order(dict(measurement.facts)))
    return fields


def measurement_from_json(body: Mapping[str, Any]) -> Measurement:
    """The inverse of `to_json`; arrays and cost are empty."""
    interval = body["interval"]
    return Measurement(
        **{name: body[name] for name in _PLAIN},
        value=to_number(body["value"]),
        interval=None if interval is None else Interval(**{k: to_number(v) for k, v in interval.items()}),
        support=body["support"],
        rivals={label: Rival(**rival) for label, rival in body.get("rivals", {}).items()},
        redrawn=body.get("redrawn", {}),
        facts=body["facts"],
    )


_PLAIN = ("quantity", "unit", "p_value", "n", "seed", "dtype", "batch", "status")
