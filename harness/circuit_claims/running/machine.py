"""The machine of a run: its device, the settings that make two runs on it agree, and what the run ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from circuit_claims.errors import InputError
from circuit_claims.places import CHECKOUT

DEVICES = "auto, cpu, cuda, cuda:N or mps"
PACKAGES = (
    "torch", "numpy", "scipy", "transformer-lens", "transformers", "tokenizers", "safetensors", "gguf",
    "scikit-learn", "arviz", "pytest", "circuit-claims",
)  # fmt: skip


def patient_threads() -> None:
    """Let waiting threads sleep instead of spin; to be called before torch is imported.

    Spinning costs several times the time on a machine with other work, and next to nothing is lost on an idle one.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_device(option: str, *, worker: str | None = None, tf32: bool = False, typed: str = "--device") -> str:
    """The torch device for `--device option`, with deterministic algorithms on and tf32 off unless `tf32`.

    Under xdist (`worker` is "gw0", "gw1", ...) each worker takes the visible accelerator of its own number.
    Raises `ValueError` for a device that is not here, naming those that are; `typed` is how the option is spelled.
    """
    # cuBLAS needs this before the first call, or deterministic mode refuses matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    patient_threads()
    import torch

    # The same switch as use_deterministic_algorithms(True, warn_only=True), without its import of torch's compiler.
    torch.set_deterministic_debug_mode("warn")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    return resolve_device(option, count, mps, worker, typed)


def resolve_device(option: str, cuda_count: int, mps: bool, worker: str | None = None, typed: str = "--device") -> str:
    """Pure part of `choose_device`: names in, name out.

    >>> resolve_device("auto", 2, False, "gw3")
    'cuda:1'
    >>> resolve_device("auto", 0, False)
    'cpu'
    """
    here = ["cpu", *(f"cuda:{i}" for i in range(cuda_count)), *(["mps"] if mps else [])]
    if option in ("auto", "cuda") and cuda_count:
        number = int(worker.removeprefix("gw")) % cuda_count if worker and worker.startswith("gw") else 0
        return f"cuda:{number}"
    if option == "auto":
        return "mps" if mps else "cpu"
    if option in here:
        return option
    raise InputError(f"{typed} {option}\n  expected {DEVICES}\n  found here {', '.join(here)}\n  Type: {typed} cpu")


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
