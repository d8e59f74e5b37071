"""What was written down about a model's files when they were stored: a sha256 of every file and of every tensor.

Safetensors has no checksums of its own: a flipped bit loads. The manifest has one per file, one per tensor, and for
large matrices one per block of rows, so that a few rows of an embedding are verified without reading all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from circuit_claims.models.architectures.names import NAMES, names_of, parameter_shapes
from circuit_claims.models.errors import DamagedWeights, WeightsMismatch
from circuit_claims.models.files.safe_files import (
    Advance,
    open_safetensors,
    read_json,
    sha256_of,
    sha256_unless_unchanged,
    weight_files,
)

SCHEMA = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
SMALL_FILES = ("config.json", TOKENIZER, "tokenizer_config.json")
BLOCK_BYTES, BLOCKED_FROM = 1 << 16, 1 << 23
# Constants that old checkpoints carry among their parameters: causal masks and rotary frequencies.
BUFFERS = re.compile(r"(\.attn\.(masked_)?bias|\.attention\.(masked_)?bias|rotary_emb\.inv_freq)$")
UNSTABLE_SETTINGS = frozenset({"transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures"})


@dataclass(frozen=True)
class FileEntry:
    """Size and sha256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies (file, and its name in there), what it looks like, and its checksums.

    `blocks` are the sha256 of each `block_rows` rows, 64 hexadecimal digits each, one after another; empty for small
    tensors.
    """

    file: str
    key: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    block_rows: int = 0
    blocks: str = ""

    def block(self, number: int) -> str:
        """The sha256 of block `number`."""
        return self.blocks[64 * number : 64 * number + 64]


@dataclass(frozen=True)
class Manifest:
    """All that is known about one stored model. `digest` identifies weights and config, wherever they came from."""

    name: str
    digest: str
    files: Mapping[str, FileEntry]
    tensors: Mapping[str, TensorEntry]
    source: Mapping[str, Any]
    made_by: Mapping[str, str]

    def to_json(self) -> str:
        """The manifest as the text of manifest.json."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """The manifest at `path`; raises `DamagedWeights` if it is not one."""
        return cls.from_content(read_json(path), path)

    @classmethod
    def from_content(cls, content: Mapping[str, Any], path: Path) -> Manifest:
        """The manifest in a JSON object that was read from `path`."""
        try:
            if content["schema"] != SCHEMA:
                raise ValueError(f"expected schema {SCHEMA}, found {content['schema']!r}")
            files = {name: FileEntry(**entry) for name, entry in content["files"].items()}
            tensors = {
                name: TensorEntry(**{**entry, "shape": tuple(entry["shape"])})
                for name, entry in content["tensors"].items()
            }
            return cls(content["name"], content["digest"], files, tensors, content["source"], content["made_by"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedWeights(f"{path} is not a manifest of this harness: {error}") from error


def bytes_of(tensor: Any) -> Any:
    """A tensor's bytes in memory order, as a flat uint8 array that hashlib reads without a copy."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def sha256_of_tensor(tensor: Any) -> str:
    """The sha256 of a CPU tensor's bytes as stored."""
    return hashlib.sha256(bytes_of(tensor)).hexdigest()


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether the unembedding is the embedding, by the config or by its architecture's habit."""
    return bool(config.get("tie_word_embeddings", config.get("model_type") in ("gpt2", "gemma3_text")))


def describe_folder(
    folder: Path,
    name: str,
    *,
    source: Mapping[str, Any],
    made_by: Mapping[str, str] | None = None,
    advance: Advance | None = None,
) -> Manifest:
    """Read every file of a Hugging Face folder and write down its checksums.

    `advance` is told the bytes read, which are `bytes_to_describe(folder)` in all.
    Raises `WeightsMismatch` if the tensors are not exactly those the config describes, and what opening a file raises.
    """
    config = read_json(folder / "config.json")
    names_of(config)
    weights = weight_files(folder)
    found: dict[str, TensorEntry] = {}
    for path in weights:
        found |= dict(_describe_tensors(path, path.relative_to(folder).as_posix(), advance))
    tensors = match_parameters(config, found)
    small = [folder / file for file in SMALL_FILES if (folder / file).exists()]
    files = {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256_of(path, advance))
        for path in [*small, *weights]
    }
    return Manifest(name, weights_digest(config, tensors), files, tensors, dict(source), dict(made_by or {}))


def bytes_to_describe(folder: Path) -> int:
    """How many bytes `describe_folder` reads: weights once by tensor and once by file."""
    small = sum((folder / file).stat().st_size for file in SMALL_FILES if (folder / file).exists())
    return small + 2 * sum(path.stat().st_size for path in weight_files(folder) if path.exists())


def _describe_tensors(path: Path, file: str, advance: Advance | None) -> Iterator[tuple[str, TensorEntry]]:
    handle = open_safetensors(path)
    for key in handle.keys():  # noqa: SIM118 - a safetensors handle is no mapping
        tensor = handle.get_tensor(key)
        shape, size = tuple(tensor.shape), tensor.numel() * tensor.element_size()
        dtype = str(tensor.dtype).removeprefix("torch.")
        rows, blocks = 0, ""
        if len(shape) == 2 and size >= BLOCKED_FROM:
            rows = max(1, BLOCK_BYTES // (size // shape[0]))
            blocks = "".join(sha256_of_tensor(tensor[at : at + rows]) for at in range(0, shape[0], rows))
        if advance:
            advance(size)
        yield key, TensorEntry(file, key, dtype, shape, sha256_of_tensor(tensor), rows, blocks)


def weights_digest(config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]) -> str:
    """The identity of a model: one sha256 over its settings and its tensors' names, types, shapes and bytes."""
    settings = {key: value for key, value in config.items() if key not in UNSTABLE_SETTINGS}
    rows = [[name, entry.dtype, list(entry.shape), entry.sha256] for name, entry in sorted(tensors.items())]
    return hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode()).hexdigest()


def match_parameters(config: Mapping[str, Any], stored: Mapping[str, TensorEntry]) -> dict[str, TensorEntry]:
    """The tensors under the names of transformers, if they are exactly the parameters the config describes.

    Masks and rotary frequencies that old files carry along are left out, and so is an unembedding stored beside the
    embedding it is tied to, if it has the same bytes. Raises `WeightsMismatch` for everything else that differs.
    """
    expected = parameter_shapes(config)
    canonical = _canonical_names(config, expected)
    named = {canonical(key): entry for key, entry in stored.items() if not BUFFERS.search(key)}
    embedding = next(iter(expected))
    heads = [f"{name}.weight" for name in names_of(config).unembed]
    for head in heads:
        if is_tied(config) and head in named and named[head].sha256 == getattr(named.get(embedding), "sha256", None):
            del named[head]
    check_parameters(config, {name: entry.shape for name, entry in named.items()})
    return {name: named[name] for name in expected}


def _canonical_names(config: Mapping[str, Any], expected: Mapping[str, Any]) -> Callable[[str], str]:
    names = NAMES[config["model_type"]]
    aliases = {f"{name}.weight": f"{names.unembed[0]}.weight" for name in names.unembed}

    def canonical(key: str) -> str:
        if key not in expected and f"{names.prefix}{key}" in expected:
            return f"{names.prefix}{key}"
        return aliases.get(key, key)

    return canonical


def check_parameters(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `WeightsMismatch` unless `shapes` are exactly the parameters `config` describes."""
    expected = parameter_shapes(config)
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    wrong = [name for name in expected if name in shapes and tuple(shapes[name]) != expected[name]]
    if not (missing or unexpected or wrong):
        return
    lines = ["the weights are not those config.json describes"]
    lines += _some("missing", missing)
    lines += _some("unexpected", unexpected)
    lines += _some("shapes", [f"{name}: expected {expected[name]}, found {tuple(shapes[name])}" for name in wrong])
    block = re.compile(re.escape(NAMES[config["model_type"]].block).replace(r"\{\}", r"(\d+)"))
    layers = {int(hit[1]) for name in shapes if (hit := block.search(name))}
    wanted = {int(hit[1]) for name in expected if (hit := block.search(name))}
    if layers != wanted:
        lines.append(f"  config.json has {len(wanted)} layers, the file {len(layers)}")
    raise WeightsMismatch("\n".join(lines))


def _some(title: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - 4} more" if len(items) > 4 else ""
    return [f"  {title} ({len(items)}): {'; '.join(items[:4])}{more}"]


def check_quickly(folder: Path, manifest: Manifest) -> None:
    """Raise `DamagedWeights` unless all files have their sizes, the small ones their bytes, the large ones headers.

    Flipped bits inside tensors are found when a tensor is read, or by `check_fully`.
    """
    for name, entry in manifest.files.items():
        path = folder / name
        size = path.stat().st_size if path.exists() else None
        if size != entry.bytes:
            found = "no such file" if size is None else f"{size:,} bytes"
            raise DamagedWeights(f"{path}: expected {entry.bytes:,} bytes, found {found}")
        if name in SMALL_FILES:
            _check_file(path, entry)
        elif name.endswith(".safetensors"):
            open_safetensors(path)
    tensors = manifest.tensors
    if tensors and weights_digest(read_json(folder / "config.json"), tensors) != manifest.digest:
        raise DamagedWeights(f"{folder / MANIFEST} contradicts itself: its checksums do not give its digest")


def check_fully(folder: Path, manifest: Manifest, advance: Advance | None = None, *, again: bool = True) -> None:
    """Raise `DamagedWeights` unless every file has the bytes that were written down.

    Without `again`, files that were read in this process and have not been touched since are not read a second time.
    """
    for name, entry in manifest.files.items():
        _check_file(folder / name, entry, advance, again=again)


def _check_file(path: Path, entry: FileEntry, advance: Advance | None = None, *, again: bool = False) -> None:
    if not path.exists():
        raise DamagedWeights(f"a file of the model is gone: expected {path}")
    found = (sha256_of if again else sha256_unless_unchanged)(path, advance)
    if found != entry.sha256:
        size = path.stat().st_size
        raise DamagedWeights(
            f"{path} is not what was stored\n  expected sha256 {entry.sha256}, {entry.bytes:,} bytes"
            f"\n  found    sha256 {found}, {size:,} bytes"
        )
