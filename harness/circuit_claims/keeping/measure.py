"""From a measure function to a stored measurement: the key, the store look-up, the clock and the memory gauge."""

from __future__ import annotations

import functools
import inspect
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from circuit_claims.errors import ClaimsError, InputError
from circuit_claims.judging.measurement import Cost, Measurement
from circuit_claims.keeping.cells import CellPlan, CellStore, fill_all
from circuit_claims.keeping.keys import closure_of_measure
from circuit_claims.keeping.profiles import PROFILES, Profile
from circuit_claims.keeping.store import key_of

# Which measure is at work: what it reads of the run beside its key would be kept under the wrong one.
_MEASURING: ContextVar[str] = ContextVar("measuring", default="")


class ProfileInMeasure(ClaimsError, RuntimeError):
    """A measure asked how much to measure: its figure would be kept for every profile alike."""


@dataclass
class Context:
    """Where measurements of one run are kept and made: the store, the device, and what was already measured.

    `tell` says a line at once to whoever waits for a long measurement. A run makes its own; for a test of a measure:

    >>> from circuit_claims.keeping.cells import MemoryStore
    >>> context = Context(MemoryStore(), profile=PROFILES["quick"])
    >>> context.device, context.profile.shuffles
    ('cpu', 200)
    """

    store: CellStore
    device: str = "cpu"
    remeasure: bool = False
    profile: Profile = PROFILES["standard"]
    memo: dict[str, Measurement] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda line: None

    def __getattribute__(self, name: str) -> Any:
        if name == "profile" and (measuring := _MEASURING.get()):
            raise ProfileInMeasure(
                f"{measuring} read context.profile: expected how much is measured among its parameters, which stand in "
                "its key\n  Read the profile in the test, and hand the numbers on: measure(subject, rows=amounts.rows)"
            )
        return super().__getattribute__(name)


class Measurable(Protocol):
    """What a measure function takes first: something with an identity (digests) and the run's context."""

    context: Context

    def identity(self) -> Mapping[str, Any]:
        """JSON values that tell this subject from every other: weights and tokenizer digests, or a text's."""
        ...


def measure(function: Callable[..., Measurement]) -> Callable[..., Measurement]:
    """Make a function `(subject, *, parameters) -> Measurement` look in the store first.

    The key digests the code that the figure hangs on (`keys.closure_of_measure`: the function's, the subject's, with
    the versions of the libraries they use), the measure's name, the subject's identity, every parameter (defaults
    filled in) and the kind of device. Parameters are JSON values; a text, as the fixture `text` gives it, counts by its
    digest. A measure never sees a claim, and cannot read the run's profile (`ProfileInMeasure`): how much is measured
    comes as parameters. A file that it reads is no part of its key: hand on what stands in the file, or its digest.

    >>> @measure
    ... def mean_score(subject, *, seed: int = 0) -> Measurement:
    ...     return Measurement("mean score", subject.scores.mean(), seed=seed)
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def stored(subject: Measurable, **parameters: Any) -> Measurement:
        bound = signature.bind(subject, **parameters)
        bound.apply_defaults()
        chosen = dict(list(bound.arguments.items())[1:])
        texts = [value for value in chosen.values() if _is_text(value)]
        parts = {
            "measure": function.__qualname__,
            **closure_of_measure(function, subject, *texts).parts(),
            "subject": dict(subject.identity()),
            "parameters": {name: _in_key(function.__qualname__, name, value) for name, value in chosen.items()},
            "device": subject.context.device.split(":")[0],
        }
        return _found_or_made(subject.context, function.__qualname__, parts, lambda: function(subject, **chosen))

    return stored


def _is_text(value: Any) -> bool:
    """Whether a parameter is a `Text`: told by its name and digest, since texts stand above this room."""
    return all(isinstance(getattr(value, name, None), str) for name in ("name", "digest"))


def _in_key(measure_name: str, name: str, value: Any) -> Any:
    """A parameter as it enters the key: a text by its digest, a JSON value as it is. Raises `InputError` for others."""
    if _is_text(value):
        return {"text": value.digest}
    try:
        key_of({name: value})
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{measure_name}: its parameter `{name}` cannot enter the key that the measurement is kept under\n"
            "  expected  a JSON value (finite number, string, truth value, None, list or dict of these) or a text\n"
            f"  found     {type(value).__name__} ({error})\n"
            f"  Give `{name}` as JSON values (an array as array.tolist()), or in the first argument: a class with the\n"
            "  subject and it as fields, whose `identity()` has its digest beside the subject's own."
        ) from None
    return value


def _found_or_made(
    context: Context, name: str, parts: Mapping[str, Any], run: Callable[[], Measurement]
) -> Measurement:
    """What this run measured already, or what the store has, or what is made now and kept."""

    def make(_names: Sequence[str]) -> list[Measurement]:
        started = time.perf_counter()
        before = _MEASURING.set(name)
        try:
            made = run()
        finally:
            _MEASURING.reset(before)
        cost = Cost(seconds=time.perf_counter() - started, peak_bytes=peak_bytes())
        return [replace(made, cost=cost, facts={**made.facts, "key": plan.keys[name]})]

    plan = CellPlan({name: parts}, make)
    key = plan.keys[name]
    if key not in context.memo:
        context.memo[key] = fill_all(plan, context.store, anew=context.remeasure)[name]
    return context.memo[key]


def peak_bytes() -> int:
    """The largest resident size of this process so far, in bytes.

    Linux: VmHWM, since ru_maxrss starts at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
