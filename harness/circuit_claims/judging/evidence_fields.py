"""How the fields of evidence are read: numbers, words, rows and places as plain values, whatever they came as.

Each reader takes what a caller or the event stream gives (arrays of numpy, None, NaN by its name) and raises ValueError
with what was expected. `evidence` says what the fields mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import PlainValidator

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NAMES_OF_NAN = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _number(value: Any) -> float | None:
    """A plain number, or None; what JSON cannot hold is read back from its name."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, Mapping) and set(value) == {"not finite"}:
        return _NAMES_OF_NAN.get(str(value["not finite"]), math.nan)
    if isinstance(value, bool) or not (value is None or isinstance(value, (int, float))):
        raise ValueError(f"expected a number or None, found {_shown(value)}")
    return value


def _sequence(value: Any, what: str) -> list[Any]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"expected a list of {what}, found {_shown(value)}")
    return list(value)


def _numbers(value: Any) -> tuple[float | None, ...]:
    return tuple(map(_number, _sequence(value, "numbers")))


def _rows(value: Any) -> tuple[tuple[float | None, ...], ...]:
    return tuple(map(_numbers, _sequence(value, "rows of numbers")))


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {_shown(value)}")
    return value


def _words(value: Any) -> tuple[str, ...]:
    return tuple(map(_word, _sequence(value, "texts")))


def _cell(value: Any) -> Any:
    return value if isinstance(value, (str, bool)) else _number(value)


def _cells(value: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(map(_cell, _sequence(row, "cells"))) for row in _sequence(value, "rows"))


def _places(value: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of whole numbers; one pair alone is a list of one."""
    pairs = _sequence(value, "pairs of whole numbers")
    pairs = [pairs] if pairs and isinstance(pairs[0], int) else pairs
    return tuple((_whole(row), _whole(column)) for row, column in map(_pair, pairs))


def _pair(value: Any) -> list[Any]:
    pair = _sequence(value, "two whole numbers")
    if len(pair) != 2:
        raise ValueError(f"expected a pair of whole numbers, found {_shown(value)}")
    return pair


def _whole(value: Any) -> int:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, found {_shown(value)}")
    return value


def wholes_field(value: Any) -> tuple[int, ...]:
    """A list of whole numbers."""
    return tuple(map(_whole, _sequence(value, "whole numbers")))


def band_field(value: Any) -> tuple[float | None, ...]:
    """Two numbers, low and high."""
    band = _numbers(value)
    if len(band) != 2:
        raise ValueError(f"expected two numbers, low and high, found {len(band)}")
    return band


def null_field(value: Any) -> Any:
    """One number for all rows, or for each row a number or a pair (low, high)."""
    if isinstance(value, (Mapping, str)) or not isinstance(value, Iterable):
        return _number(value)
    return tuple(_numbers(one) if isinstance(one, (list, tuple)) else _number(one) for one in _sequence(value, "nulls"))


def stages_field(value: Any) -> tuple[tuple[str, float | None, float | None], ...]:
    """Stages as name, first and last."""
    stages = [_sequence(stage, "a name and two ends") for stage in _sequence(value, "stages")]
    return tuple((_word(name), _number(first), _number(last)) for name, first, last in stages)


def promoted_field(value: Any) -> tuple[tuple[str, float | None], ...]:
    """Tokens with what each gains."""
    pairs = [_sequence(pair, "a token and its number") for pair in _sequence(value, "pairs")]
    return tuple((_word(text), _number(logit)) for text, logit in pairs)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"


Number = Annotated[float | None, PlainValidator(_number)]
Numbers = Annotated[Sequence[float | None], PlainValidator(_numbers)]
NumberRows = Annotated[Sequence[Sequence[float | None]], PlainValidator(_rows)]
Word = Annotated[str, PlainValidator(_word)]
Words = Annotated[Sequence[str], PlainValidator(_words)]
Cells = Annotated[Sequence[Sequence[Any]], PlainValidator(_cells)]
Places = Annotated[Sequence[Sequence[int]], PlainValidator(_places)]
Scale = Literal["linear", "log"]
