"""A model's weights as named tensors: only those that are asked for are read, and each is verified as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.models.architectures.names import parameter_shapes
from circuit_claims.models.errors import DamagedWeights, UnsafeFile, WeightsMismatch
from circuit_claims.models.files.manifest import (
    MANIFEST,
    Manifest,
    TensorEntry,
    check_quickly,
    describe_folder,
    is_tied,
    sha256_of_tensor,
)
from circuit_claims.models.files.safe_files import (
    inside,
    open_safetensors,
    read_json,
    refuse_pickle,
    sound_unless_changed,
    stamp,
)


@runtime_checkable
class TensorSource(Protocol):
    """Weights under the names transformers gives them, in fp32 on the CPU."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The keys of config.json, with `model_type` and an explicit `tie_word_embeddings`."""
        ...

    @property
    def digest(self) -> str:
        """The sha256 that identifies these weights and settings."""
        ...

    def names(self) -> tuple[str, ...]:
        """All parameter names; a tied unembedding is not among them."""
        ...

    def read(self, name: str) -> Float[Tensor, "*shape"]:
        """One whole tensor; raises `KeyError` for an unknown name, `DamagedWeights` for changed bytes."""
        ...

    def rows(self, name: str, ids: Sequence[int]) -> Float[Tensor, "n width"]:
        """The rows `ids` of a matrix, in that order."""
        ...


Repair = Callable[[str], "tuple[Path, Manifest]"]


class FolderTensors:
    """The weights of a Hugging Face folder, checked against a manifest tensor by tensor.

    `repair`, if given, is called with the reason when a tensor's bytes are not those written down; it returns a sound
    folder with its manifest, and reading goes on there. Without it `DamagedWeights` is raised.
    """

    def __init__(self, folder: Path, manifest: Manifest, repair: Repair | None = None) -> None:
        self._folder, self._manifest, self._repair = folder, manifest, repair
        self._handles: dict[str, Any] = {}
        self._opened: dict[str, tuple[int, ...]] = {}
        settings = read_json(folder / "config.json")
        self.config: Mapping[str, Any] = MappingProxyType({**settings, "tie_word_embeddings": is_tied(settings)})

    @property
    def digest(self) -> str:
        """The sha256 that identifies these weights and settings."""
        return self._manifest.digest

    def names(self) -> tuple[str, ...]:
        """All parameter names in the order of the model; a tied unembedding is not among them."""
        return tuple(parameter_shapes(self.config))

    def read(self, name: str) -> Float[Tensor, "*shape"]:
        """One whole tensor in fp32, after its sha256 was checked."""
        return self._verified(name, self._read)

    def rows(self, name: str, ids: Sequence[int]) -> Float[Tensor, "n width"]:
        """The rows `ids` of a matrix in fp32; only the blocks of rows they lie in are read and checked."""
        n_rows = _entry(self._manifest, name).shape[0]
        _check_rows(name, ids, n_rows)
        if not self._manifest.tensors[name].blocks:
            return self.read(name)[list(ids)]
        return self._verified(name, lambda entry: self._read_rows(entry, ids))

    def _verified(self, name: str, read: Callable[[TensorEntry], Tensor]) -> Tensor:
        try:
            return read(_entry(self._manifest, name)).to(torch.float32)
        except DamagedWeights as error:
            if self._repair is None:
                raise
            self._adopt(*self._repair(str(error)))
            return read(_entry(self._manifest, name)).to(torch.float32)

    def _adopt(self, folder: Path, manifest: Manifest) -> None:
        if manifest.digest != self._manifest.digest:
            raise WeightsMismatch(
                f"the weights built again are not the same: expected {self._manifest.digest}, found {manifest.digest}"
            )
        self._folder, self._manifest = folder, manifest
        self._handles.clear()

    def _handle(self, file: str) -> Any:
        if file not in self._handles:
            path = inside(self._folder, file)
            self._opened[file] = stamp(path) if path.exists() else ()
            self._handles[file] = open_safetensors(path)
        return self._handles[file]

    def _read(self, entry: TensorEntry) -> Tensor:
        tensor = self._handle(entry.file).get_tensor(entry.key)
        self._check(entry, tensor, entry.sha256, entry.key)
        return tensor

    def _read_rows(self, entry: TensorEntry, ids: Sequence[int]) -> Tensor:
        stored = self._handle(entry.file).get_slice(entry.key)
        step = entry.block_rows
        blocks: dict[int, Tensor] = {}
        for number in sorted({row // step for row in ids}):
            block = stored[number * step : min((number + 1) * step, entry.shape[0])]
            self._check(entry, block, entry.block(number), f"{entry.key}, rows from {number * step}")
            blocks[number] = block
        return torch.stack([blocks[row // step][row % step] for row in ids]) if ids else torch.empty(0, entry.shape[1])

    def _check(self, entry: TensorEntry, tensor: Tensor, expected: str, what: str) -> None:
        path = inside(self._folder, entry.file)
        opened = self._opened[entry.file]
        found = sound_unless_changed(path, opened, what, expected, lambda: sha256_of_tensor(tensor))
        if found != expected:
            raise DamagedWeights(
                f"{path} has changed since it was stored: {what}"
                f"\n  expected sha256 {expected}\n  found    sha256 {found}"
            )


def _manifest_of(folder: Path) -> Manifest:
    """The manifest the cache put into the folder, or one made now; other tools' files of that name mean nothing."""
    own = folder / MANIFEST
    if own.exists() and "made_by" in read_json(own):
        manifest = Manifest.read(own)
        check_quickly(folder, manifest)
        return manifest
    return describe_folder(folder, folder.name, source={"kind": "folder"})


def _entry(manifest: Manifest, name: str) -> TensorEntry:
    if name not in manifest.tensors:
        some = ", ".join(list(manifest.tensors)[:4])
        raise KeyError(f"no tensor called {name!r} in {manifest.name}: it has {len(manifest.tensors)}, such as {some}")
    return manifest.tensors[name]


def _check_rows(name: str, ids: Sequence[int], n_rows: int) -> None:
    outside = [row for row in ids if not 0 <= row < n_rows]
    if outside:
        raise ValueError(f"rows of {name}: expected numbers from 0 to {n_rows - 1}, found {outside[:4]}")


def open_tensors(path: Path, *, manifest: Manifest | None = None, repair: Repair | None = None) -> TensorSource:
    """The weights of a Hugging Face folder or of one GGUF file, whichever `path` is.

    A folder of the harness's own cache has a manifest to be checked against. Any other folder is read through once and
    its checksums kept in memory, so that its digest is that of its bytes. The folder is never written to.

    Raises `UnsafeFile` for pickles and names that climb out of the folder, `WeightsMismatch` if the tensors are not
    those config.json describes, `DamagedWeights` for files that are cut short or changed.
    """
    path = Path(path)
    if path.is_dir():
        return FolderTensors(path, _manifest_of(path) if manifest is None else manifest, repair)
    if not path.exists():
        raise FileNotFoundError(f"no model at {path}: expected a Hugging Face folder or a GGUF file")
    refuse_pickle(path)
    if path.suffix.lower() == ".safetensors":
        raise UnsafeFile(f"{path} is a file of weights without its config.json: expected the folder, {path.parent}")
    from circuit_claims.models.files.gguf import GGUFTensors

    return GGUFTensors(path)
