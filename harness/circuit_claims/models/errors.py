"""What can go wrong with a model's weights; the messages say what was expected, what was found, what to type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from circuit_claims.errors import ClaimsError


class ModelError(ClaimsError):
    """Something about a model's weights that a person has to see; the message says what to do about it."""


class RegistryError(ModelError):
    """fixtures/models.toml does not say what it must, or a name is not in it."""


class UnsafeFile(ModelError):
    """A file that will not be opened: a pickle, whatever it is called, or a name that climbs out of its folder."""


class WeightsMismatch(ModelError):
    """The tensors of a file are not those its config.json describes: missing, unexpected, or of another shape."""


class DamagedWeights(ModelError):
    """Bytes on disk are not those that were written down when the model was stored."""


class DoesNotFit(ModelError):
    """A model needs more memory than there is; the message states both."""


@dataclass(frozen=True)
class Attempt:
    """One source that was asked for a model, and what it answered."""

    source: str
    answer: str


class ModelNotAvailable(ModelError):
    """No source has the model. `tried` is what each answered, `command` the line that would fetch it."""

    def __init__(self, name: str, tried: Sequence[Attempt], command: str) -> None:
        self.name = name
        self.tried = tuple(tried)
        self.command = command
        width = max((len(attempt.source) for attempt in tried), default=0)
        lines = [f"{name} is not on this machine and could not be fetched"]
        for attempt in tried:
            first, *rest = attempt.answer.splitlines() or [""]
            lines.append(f"  {attempt.source:<{width}}  {first}")
            lines += [f"  {'':<{width}}  {line}" for line in rest]
        super().__init__("\n".join([*lines, f"  Type: {command}"]))


class DamagedCacheWarning(UserWarning):
    """A cache entry was damaged: it was set aside (`path`) for `reason` and will be built again."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"cached weights were damaged and are built again: {reason}\n  the bad copy is now {path}")
