"""The authors' checkpoints, converted on request: `.pth` files are pickles and are opened by no other way.

`claims convert-checkpoint` reads such a file with torch's restricted unpickler (`weights_only=True`: tensors and plain
containers, no code), takes the model's weights out of it and writes them as safetensors, with the digest of both in the
folder's run card. The authors name files by label, `checkpoint_0000100.pth`; label s is the state after update s + 1.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuit_claims.api import write_text_atomically
from circuit_claims.models.errors import DamagedWeights, RegistryError, UnsafeFile
from circuit_claims.models.files.safe_files import sha256_of
from circuit_claims.papers.refined_llc.runs.registry import published_folder, published_runs
from circuit_claims.toy.checkpoints import CARD, model_from, save_checkpoint
from circuit_claims.toy.model import AttentionOnlyConfig

LARGEST = 1 << 30
LABEL = re.compile(r"(\d+)\.(?:pth|pt)$")
# Where the authors' code puts the weights, and what its models carry beside parameters.
WRAPPERS = ("model_state_dict", "model")
BUFFERS = (".attn.mask", ".attn.IGNORE")


def convert_checkpoints(name: str, files: Sequence[Path], *, cache_dir: Path | None = None) -> tuple[Path, ...]:
    """Convert the files of the published run `name`; the safetensors files written, in the order given.

    Raises `RegistryError` for a name that is no published run, `UnsafeFile` for a file that holds more than tensors,
    `DamagedWeights` for one that cannot be read or has no label in its name, and `RunError` for foreign weights.
    """
    published = published_runs()
    if name not in published:
        known = ", ".join(published)
        raise RegistryError(f"{name!r} is no published run\n  expected one of {known}\n  Type: claims list --subjects")
    folder = published_folder(name, cache_dir)
    return tuple(_convert(name, path, folder) for path in files)


def label_of_file(path: Path) -> int:
    """The authors' label in a file's name.

    >>> label_of_file(Path("checkpoint_0000100.pth"))
    100
    """
    match = LABEL.search(path.name)
    if match is None:
        raise DamagedWeights(
            f"{path}: no label in the name\n  expected a name such as checkpoint_0000100.pth\n  found    {path.name}\n"
            "  The label says after which update the weights were saved: give the file the name its authors gave it."
        )
    return int(match[1])


def read_weights(path: Path) -> dict[str, Tensor]:
    """The model's tensors in a `.pth` file, by name; nothing but tensors in plain containers is ever made of it.

    Raises `UnsafeFile` where the file asks for anything else, `DamagedWeights` where it is no such file.
    """
    if not path.is_file():
        raise DamagedWeights(f"no file {path}\n  expected a checkpoint of the authors' hub repository, ending in .pth")
    if (size := path.stat().st_size) > LARGEST:
        raise DamagedWeights(f"{path} is too large\n  expected at most {LARGEST:,} bytes\n  found    {size:,} bytes")
    try:
        with warnings.catch_warnings():
            # Of a foreign pickle protocol: what cannot be read is refused below, in words of our own.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeFile(
            f"{path} holds more than weights, or is no checkpoint: it was not opened\n  expected tensors in plain "
            f"containers\n  found    {_first_line(error)}\n  Opening it in full would run whatever code it carries."
        ) from None
    except (RuntimeError, ValueError, KeyError, EOFError, OSError, AttributeError, TypeError, IndexError) as error:
        raise DamagedWeights(
            f"{path} cannot be read as a checkpoint\n  expected a whole file written by torch.save\n"
            f"  found    {type(error).__name__}: {_first_line(error)}\n  It was cut short: download it again."
        ) from None
    return _weights_in(content, path)


def _first_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    # torch's advice to open the file with weights_only=False must not be passed on.
    reason = re.search(r"WeightsUnpickler error: (.{1,160}?)(?: Please| Check|$)", words)
    return reason[1] if reason else "a file the restricted reader refuses" if "weights_only" in words else words[:160]


def _weights_in(content: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    named = isinstance(content, Mapping) and content and all(isinstance(key, str) for key in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise DamagedWeights(
            f"{path} holds no model\n  expected named tensors, alone or under {' or '.join(WRAPPERS)}\n"
            f"  found    {type(content).__name__}"
        )
    return {name: tensor for name, tensor in content.items() if not name.endswith(BUFFERS)}


def _convert(name: str, path: Path, folder: Path) -> Path:
    label, weights = label_of_file(path), read_weights(path)
    layers = len({key.split(".")[1] for key in weights if key.startswith("blocks.")})
    model = model_from(weights, AttentionOnlyConfig(n_layers=layers), str(path))
    folder.mkdir(parents=True, exist_ok=True)
    written = save_checkpoint(folder, label + 1, model)
    _note(name, folder, label, path, written, asdict(model.config))
    return written


def _note(name: str, folder: Path, label: int, source: Path, written: Path, config: dict[str, Any]) -> None:
    """Write digests of the file read and the file made into the run card; other checkpoints' stay."""
    card = folder / CARD
    found = json.loads(card.read_text(encoding="utf-8")) if card.exists() else {}
    step = str(label + 1)
    made = {
        "run": name,
        "model": config,
        "tokenizer": "",
        "steps": "updates: the authors' label plus one",
        "digests": {**found.get("digests", {}), step: sha256_of(written)},
        "converted_from": {**found.get("converted_from", {}), step: {"label": label, "sha256": sha256_of(source)}},
    }
    write_text_atomically(card, json.dumps(made, indent=1) + "\n")
