"""What a run ran on: versions, platform, device, threads and the commit of the code, as plain JSON values."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from circuit_claims.places import CHECKOUT

PACKAGES = (
    "torch", "numpy", "scipy", "transformer-lens", "transformers", "tokenizers", "safetensors", "gguf",
    "scikit-learn", "arviz", "pytest", "circuit-claims",
)  # fmt: skip


def describe(device: str) -> dict[str, Any]:
    """Python, packages, platform, `device`, thread count and git commit; nothing that names a user or a host."""
    return {
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "torch": _version("torch"),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "commit": commit(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def commit(root: Path | None = None) -> str:
    """The git commit of the code, with `+changes` where the tree differs from it, or "not a checkout"."""
    root = root or CHECKOUT
    if not (root / ".git").exists():
        return "not a checkout"
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+changes" if changed else "")


def _git(root: Path, *words: str) -> str:
    found = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return found.stdout.strip()
