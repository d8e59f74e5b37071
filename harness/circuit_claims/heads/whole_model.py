"""The whole model behind the measures that run it: booted for each, or once for all inside `one_booted_model`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_KEPT: ContextVar[dict[tuple[str, str], Any] | None] = ContextVar("whole models kept open", default=None)


@contextmanager
def one_booted_model() -> Iterator[None]:
    """Measures made inside share one booted model; its memory is given back at the end.

    Booting reads and checks every byte of the weights, which takes longer than some measures do.
    """
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def whole_model(subject: Any) -> Any:
    """The subject's transformer-lens bridge for token ids, weights raw in fp32. Errors: those of `bridge.boot`."""
    from circuit_claims.models.bridge import boot

    kept, device = _KEPT.get(), subject.context.device
    if kept is None:
        return boot(subject.model, device, text=False)
    key = (subject.model.digest, device)
    if key not in kept:
        kept[key] = boot(subject.model, device, text=False)
    return kept[key]
