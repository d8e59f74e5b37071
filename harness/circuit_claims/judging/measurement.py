"""What a measure returns: a value with its uncertainty, and everything needed to judge and to show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

Status = Literal["complete", "partial", "diverged"]
STATUSES: tuple[Status, ...] = ("complete", "partial", "diverged")


@dataclass(frozen=True)
class Interval:
    """A confidence interval `[low, high]` at `level`, with the words that name its `method`.

    >>> Interval(0.2, 0.4, 0.90, "bootstrap over tokens, 2,000 draws").width
    0.2
    """

    low: float
    high: float
    level: float = 0.90
    method: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"interval ends are out of order: expected low <= high, found [{self.low}, {self.high}]")
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"interval level must lie between 0 and 1, found {self.level}")

    @property
    def width(self) -> float:
        """High end less low end, in the unit of the value."""
        return self.high - self.low


@dataclass(frozen=True)
class Rival:
    """Who stands against a label: the `label` that is ahead of it in the greatest share of resamples, `ahead`.

    The share allows for the choice of the strongest among all rivals (`judging.ranking`).

    >>> Rival("L5H1", 0.97).ahead  # what stands against L5H8: L5H1 is ahead of it in 97 % of resamples
    0.97
    """

    label: str
    ahead: float


@dataclass(frozen=True)
class Cost:
    """What a measurement took: wall seconds and peak resident bytes of the process that made it."""

    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Measurement:
    """One measured quantity, or a whole table of them with the quantity a claim is judged on.

    `value` is the number (or, for `identity`, the label) a claim is judged on; `interval` its uncertainty.
    `support` gives, for `order` and `identity` claims, the share of resamples in which each label came first;
    `rivals` says of each label (of each pair "a > b" where an order is measured) who stands against it most firmly
    (`judging.ranking`). `redrawn` says what was redrawn for the interval, and how many there are: {"strings": 214}.
    `p_value` compares a maximum over many heads with the null distribution of that maximum.
    `arrays` are the tables behind the value (one row a head, a token, a draw), `facts` anything else as JSON.
    `origin` says where the figure came from: `live`, `store` or `recorded`.

    >>> score = Measurement("induction score", 0.7, Interval(0.65, 0.74), unit="share", redrawn={"rows": 64}, n=64)
    >>> score.status, dict(score.redrawn)
    ('complete', {'rows': 64})
    """

    quantity: str
    value: float | str | None
    interval: Interval | None = None
    unit: str = ""
    support: Mapping[str, float] = field(default_factory=dict)
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    redrawn: Mapping[str, int] = field(default_factory=dict)
    p_value: float | None = None
    n: int = 0
    seed: int | None = None
    dtype: str = "float32"
    batch: int | None = None
    status: Status = "complete"
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost = Cost()
    origin: Literal["live", "store", "recorded"] = "live"

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status of a measurement: expected one of {', '.join(STATUSES)}, found {self.status!r}")
        object.__setattr__(self, "support", MappingProxyType(dict(self.support)))
        object.__setattr__(self, "rivals", MappingProxyType(dict(self.rivals)))
        object.__setattr__(self, "redrawn", MappingProxyType(dict(self.redrawn)))
        object.__setattr__(self, "arrays", MappingProxyType(dict(self.arrays)))
        object.__setattr__(self, "facts", MappingProxyType(dict(self.facts)))

    def __getstate__(self) -> dict[str, Any]:
        plain = {name: dict(getattr(self, name)) for name in ("support", "rivals", "redrawn", "arrays", "facts")}
        return {**vars(self), **plain}  # a read-only view cannot travel to another process

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    def derive(self, quantity: str, value: float | str | None, **changes: Any) -> Measurement:
        """The same measurement read for another quantity: provenance kept, value and interval new, tables dropped.

        What was redrawn stays too: say `redrawn` where the new quantity's interval rests on something else.
        """
        fresh: dict[str, Any] = {"interval": None, "p_value": None, "unit": ""}
        fresh |= {"support": {}, "rivals": {}, "arrays": {}, "facts": {}}
        return replace(self, quantity=quantity, value=value, **{**fresh, **changes})

    def to_xarray(self) -> Any:
        """The arrays as an `xarray.Dataset`, one dimension per axis, facts as attributes."""
        import json

        import xarray

        variables = {
            name: ([f"{name}_{axis}" for axis in range(np.ndim(array))], array) for name, array in self.arrays.items()
        }
        attributes = {"quantity": self.quantity, "unit": self.unit, "facts": json.dumps(dict(self.facts))}
        return xarray.Dataset(variables, attrs=attributes)
