"""Ways to damage a safetensors file, as disks, networks and people do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def flip_bit(path: Path, tensor: str) -> None:
    """Flip one bit in the middle of a tensor's bytes, leaving size and time of the file as they were."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    start, end = json.loads(data[8 : 8 + length])[tensor]["data_offsets"]
    data[8 + length + (start + end) // 2] ^= 1
    stat = path.stat()
    with path.open("r+b") as handle:
        handle.write(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def truncate(path: Path, lost: int = 7) -> None:
    """Cut the last bytes off a file."""
    os.truncate(path, path.stat().st_size - lost)


def rewrite(folder: Path, change) -> None:
    """Save the folder's tensors again after `change(tensors)` has edited the dictionary."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def edit_json(path: Path, **changes) -> None:
    """Change some keys of a JSON object on disk."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def pickled(path: Path) -> None:
    """Write weights as a pickle (torch's zip format) under whatever name `path` has."""
    torch.save({"weight": torch.zeros(2)}, path)
