"""The registry of models, fixtures/models.toml: what each model is, and every place its weights can come from.

Importing this module costs neither torch nor transformers: the claims are collected with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from circuit_claims.models.errors import RegistryError
from circuit_claims.models.runs import add_row
from circuit_claims.places import FIXTURES

REGISTRY = FIXTURES / "models.toml"
SCHEMA = 1
Architecture = Literal["gpt2", "gpt_neox", "llama", "qwen2", "gemma3_text"]
STRICT = ConfigDict(extra="forbid")


def _plain_file_name(name: str) -> str:
    pure = PurePosixPath(name)
    if not name or "\\" in name or "\0" in name or ":" in name or pure.name != name or name in (".", ".."):
        raise ValueError(f"expected a plain file name without folders, found {name!r}")
    return name


def _model_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise ValueError(f"expected small letters, digits, dots and dashes, found {name!r}")
    return name


def _sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"expected 64 hexadecimal digits in small letters, found {text!r}")
    return text


FileName = Annotated[str, AfterValidator(_plain_file_name)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Count = Annotated[int, Field(gt=0, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


@dataclass(frozen=True, config=STRICT)
class PinnedFile:
    """One file whose bytes are known: the sha256 is its identity, the name only a hint."""

    name: FileName
    bytes: Count
    sha256: Sha256


@dataclass(frozen=True, config=STRICT)
class HubSource:
    """A repository on the Hugging Face hub; `file` is the wanted file if its name there differs from the pinned one.

    `same_bytes = false`: the hub's file means the same but may not be the pinned bytes.
    """

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    file: FileName | None = None
    revision: str = "main"
    same_bytes: Flag = True


@dataclass(frozen=True, config=STRICT)
class Wheel:
    """A wheel that carries a piece of a model file; its sha256 pins it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][0-9a-z.]*$")]
    bytes: Count
    sha256: Sha256

    @property
    def requirement(self) -> str:
        """The line of a requirements file that names and pins this wheel."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, config=STRICT)
class WheelSource:
    """Wheels whose members matching `member` are, one after another in this order, the model file."""

    member: str
    pinned: Annotated[tuple[Wheel, ...], Field(min_length=1)]


@dataclass(frozen=True, config=STRICT)
class Training:
    """Saved training steps: 0, then 1, 2, 4, ... to `doubling_to`, then every `every`th to `last`."""

    doubling_to: int
    every: int
    last: int
    tokens_per_step: int

    @property
    def steps(self) -> tuple[int, ...]:
        """All saved steps in order."""
        doubling = [1 << power for power in range(self.doubling_to.bit_length()) if 1 << power <= self.doubling_to]
        return (0, *doubling, *range(self.every, self.last + 1, self.every))


@dataclass(frozen=True, config=STRICT)
class Traits:
    """What claims must know before they measure.

    `multi_digit_numbers`: the tokenizer keeps numbers such as 42 whole (left out: it is read off the tokenizer).
    `needs_bos`: the model was trained with a beginning-of-sequence token in front of every text. `gated`: its licence
    must be accepted on the hub first.
    """

    multi_digit_numbers: Flag | None = None
    needs_bos: Flag = False
    gated: Flag = False


@dataclass(frozen=True, config=STRICT)
class ModelRow:
    """One model of the registry.

    `format` is how its source keeps it: one GGUF file, a Hugging Face folder (`hf`), or a tokenizer without weights
    (`tokenizer`). `revision` is the training step a name like `pythia-70m@step512` asks for, else None.
    """

    name: Annotated[str, AfterValidator(_model_name)]
    title: str
    architecture: Architecture
    format: Literal["gguf", "hf", "tokenizer"]
    parameters: Annotated[int, Field(ge=0, strict=True)]
    licence: Annotated[str, Field(min_length=1)]
    traits: Traits = Traits()
    default: Flag = False
    note: str = ""
    file: PinnedFile | None = None
    hub: HubSource | None = None
    wheels: WheelSource | None = None
    training: Training | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _sources_make_sense(self) -> ModelRow:
        if self.format in ("gguf", "tokenizer") and self.file is None:
            raise ValueError(f"a {self.format} model is one file: expected `file` with name, bytes and sha256")
        if self.format == "hf" and (self.hub is None or self.wheels is not None):
            raise ValueError("a Hugging Face folder comes from the hub: expected `hub`, and no `wheels`")
        if self.revision is not None and self.revision not in self.revisions:
            raise ValueError(f"no training step {self.revision!r} was saved")
        return self

    @property
    def revisions(self) -> tuple[str, ...]:
        """Names of the saved training steps, `step0` first; empty where only the last weights were published."""
        return tuple(f"step{step}" for step in self.training.steps) if self.training else ()

    @property
    def subject(self) -> str:
        """The name a claim uses for exactly these weights: the model, and the training step if one was asked for."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights alone in fp32. What a boot needs besides is stated by `circuit_claims.models.bridge`."""
        return 4 * self.parameters


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")
    schema_: Literal[1] = Field(alias="schema")
    model: list[ModelRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> _Document:
        names = [row.name for row in self.model]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"expected every name once, found twice: {', '.join(twice)}")
        return self


def load_registry(*paths: Path) -> Mapping[str, ModelRow]:
    """All rows of these files by name, in their order; of fixtures/models.toml where none is given.

    Raises `RegistryError` that names the row and the field that is wrong, or both files where a name is given twice.
    """
    if len(paths) < 2:
        return _stamped(*paths or (REGISTRY,))
    rows: dict[str, ModelRow] = {}
    places: dict[str, Path] = {}
    for path in paths:
        for name, row in _stamped(path).items():
            add_row(rows, places, name, row, path)
    return MappingProxyType(rows)


def _stamped(path: Path) -> Mapping[str, ModelRow]:
    stat = path.stat() if path.exists() else None
    return _load(path, (stat.st_mtime_ns, stat.st_size) if stat else None)


@cache
def _load(path: Path, _stamp: tuple[int, int] | None) -> Mapping[str, ModelRow]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        rows = _Document.model_validate(document).model
    except OSError as error:
        raise RegistryError(f"the registry of models cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise RegistryError(_explain(path, document, error)) from error
    return MappingProxyType({row.name: row for row in rows})


def _explain(path: Path, document: Mapping[str, Any], error: ValidationError) -> str:
    """One line for each fault: the model it is in, the field, what was expected and what was found."""
    lines = [f"{path} has {error.error_count()} fault(s)"]
    for fault in error.errors(include_url=False):
        where = list(fault["loc"])
        if where[:1] == ["model"] and len(where) > 1:
            row = document["model"][where[1]]
            name = row.get("name", f"number {where[1] + 1}") if isinstance(row, dict) else f"number {where[1] + 1}"
            where = [f"model {name}", *where[2:]]
        place = " / ".join(str(part) for part in where) or "the whole file"
        found = "" if fault["type"] == "missing" or isinstance(fault["input"], dict) else f" (found {fault['input']!r})"
        lines.append(f"  {place}: {fault['msg'].removeprefix('Value error, ')}{found}")
    return "\n".join(lines)


def find_row(name: str, registry: Mapping[str, ModelRow] | None = None) -> ModelRow:
    """The row of `name` or of `name@stepN`; raises `RegistryError` with the closest names for one that is not there.

    >>> find_row("pythia-70m@step512").revision
    'step512'
    """
    rows = load_registry() if registry is None else registry
    plain, _, revision = name.partition("@")
    if plain not in rows:
        close = difflib.get_close_matches(plain, rows, n=3, cutoff=0.5)
        hint = f"the closest are {', '.join(close)}" if close else f"it knows {', '.join(rows)}"
        raise RegistryError(
            f"no model called {name!r}: expected a name of the registry, a GGUF file or a Hugging Face folder\n  {hint}"
            "\n  Type: claims list --subjects"
        )
    row = rows[plain]
    if not revision or revision == "main":
        return row
    if revision not in row.revisions:
        known = f"{row.revisions[0]} to {row.revisions[-1]}" if row.revisions else "none"
        raise RegistryError(f"{plain} has no revision {revision!r}: saved training steps are {known}")
    return dataclasses.replace(row, revision=revision)
