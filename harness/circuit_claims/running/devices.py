"""Which device a run measures on, and the settings that make two runs on it agree."""

from __future__ import annotations

import os

from circuit_claims.errors import InputError

NAMES = "auto, cpu, cuda, cuda:N or mps"


def patient_threads() -> None:
    """Let waiting threads sleep instead of spin; to be called before torch is imported.

    Spinning costs several times the time on a machine with other work, and next to nothing is lost on an idle one.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_device(option: str, *, worker: str | None = None, tf32: bool = False) -> str:
    """The torch device for `--device option`, with deterministic algorithms on and tf32 off unless `tf32`.

    Under xdist (`worker` is "gw0", "gw1", ...) each worker takes the visible accelerator of its own number.
    Raises `ValueError` for a device that is not here, naming those that are.
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
    return resolve_device(option, count, mps, worker)


def resolve_device(option: str, cuda_count: int, mps: bool, worker: str | None = None) -> str:
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
    raise InputError(f"--device {option}\n  expected {NAMES}\n  found here {', '.join(here)}\n  Type: --device cpu")
