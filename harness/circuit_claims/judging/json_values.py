"""Numbers that are not finite, in strict JSON: the strings NaN, Infinity and -Infinity, as pydantic writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WRITTEN = {str(value): name for name, value in NAMES.items()}


def to_plain(value: Any) -> Any:
    """`value` as strict JSON: tuples become lists, numbers that are not finite the strings NaN, Infinity, -Infinity.

    >>> to_plain({"values": (1.0, float("nan"))})
    {'values': [1.0, 'NaN']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return _WRITTEN[str(float(value))]
    if isinstance(value, Mapping):
        if set(value) == {"not finite"}:
            return _WRITTEN.get(str(value["not finite"]), str(value["not finite"]))
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def to_number(value: Any) -> Any:
    """The inverse of `to_plain` for one number: NaN, Infinity and -Infinity become floats; all else is unchanged.

    What older stores wrote, `{"not finite": "nan"}`, is read as well.
    """
    if isinstance(value, Mapping) and set(value) == {"not finite"}:
        value = to_plain(value)
    return NAMES.get(value, value) if isinstance(value, str) else value
