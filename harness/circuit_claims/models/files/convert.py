"""From a GGUF file to a Hugging Face folder with checksums, in a process of its own.

The work needs up to twice the model's fp32 size and is done once. A process of its own gives the memory back, keeps it
out of the peak that a measurement reports, and dies with the one that started it (its standard input then closes).

Two readers must agree: the weights are transformers' reading of the file, and each tensor must equal the harness's own
(`GGUFTensors`), or nothing is stored.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuit_claims.models import errors
from circuit_claims.models.errors import DoesNotFit, ModelError, WeightsMismatch
from circuit_claims.models.progress import DownloadProgress
from circuit_claims.places import PACKAGE

CONVERTER = "1"
BYTES_PER_PARAMETER, WORKING_ROOM = 8, 1_500_000_000
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "manifest.json")


def convert(source: Path, folder: Path, *, name: str, facts: Mapping[str, Any], progress: DownloadProgress) -> None:
    """Write config.json, model.safetensors (fp32), tokenizer.json and manifest.json of a GGUF file into `folder`.

    `facts` is written into the manifest as the source. Raises `WeightsMismatch`, `DamagedWeights` or `DoesNotFit` as
    the converting process found it, and `ModelError` with its last words if it died.
    """
    job = json.dumps({"source": str(source), "folder": str(folder), "name": name, "facts": dict(facts)})
    # The converter imports this very package, wherever it was imported from.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile("w+") as last_words:
        process = subprocess.Popen(
            [sys.executable, "-m", "circuit_claims.models.files.convert", job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=last_words,
            text=True,
            env=environment,
        )
        failure = _follow(process, f"converting {name}", progress)
        last_words.seek(0)
        tail = "\n".join(last_words.read().strip().splitlines()[-5:])
    if failure is None and process.returncode == 0:
        return
    if failure is not None:
        raise getattr(errors, failure["error"], ModelError)(failure["message"])
    raise ModelError(
        f"the conversion of {name} stopped (exit status {process.returncode}): expected a finished folder\n{tail}"
        "\n  A negative status is a signal; -9 is often too little memory."
    )


def _follow(process: subprocess.Popen[str], what: str, progress: DownloadProgress) -> dict[str, str] | None:
    """Pass on the phases the converter reports; what it reported as an error, or `None`."""
    heard: dict[str, Any] = {}

    def listen() -> None:
        for line in process.stdout or ():
            heard.update(json.loads(line))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        while process.poll() is None:
            progress(f"{what}: {heard.get('phase', 'starting')}")
            time.sleep(0.1)
        listener.join(timeout=5)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    return heard if "error" in heard else None


def _say(**words: str) -> None:
    print(json.dumps(words), flush=True)


def _work(source: Path, folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """What the process of its own does."""
    import torch

    from circuit_claims.models.files.gguf import GGUFTensors, read_gguf

    torch.set_grad_enabled(False)
    _say(phase="reading the file")
    reader = read_gguf(source)
    _parse_once(reader)
    ours = GGUFTensors(source, reader)
    _check_memory(name, sum(int(tensor.n_elements) for tensor in ours._stored.values()))
    _say(phase="the tokenizer")
    _write_tokenizer(source, folder)
    _say(phase="the weights")
    config, weights = _read_with_transformers(source, ours)
    _say(phase="comparing two readings")
    _compare(ours, weights)
    _say(phase="writing")
    _write(folder, config, weights)
    _say(phase="checksums")
    _write_manifest(folder, name, {**facts, "sha256": ours.digest})


def _parse_once(reader: Any) -> None:
    """Let transformers share the parse of the file: its token lists take seconds each time."""
    import gguf

    gguf.__dict__["GGUFReader"] = lambda path: reader  # transformers looks it up there


def _check_memory(name: str, n_elements: int) -> None:
    import psutil

    need, have = BYTES_PER_PARAMETER * n_elements + WORKING_ROOM, psutil.virtual_memory().available
    if have < need:
        raise DoesNotFit(
            f"converting {name} needs {need / 1e9:.1f} GB of memory: found {have / 1e9:.1f} GB free"
            "\n  Close other programs, or convert on a larger machine and copy the cache folder."
        )


def _write_tokenizer(source: Path, folder: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(
        source.parent, gguf_file=source.name, trust_remote_code=False, local_files_only=True
    )
    tokenizer.save_pretrained(folder)
    if not (folder / "tokenizer.json").exists():
        raise WeightsMismatch(f"{source} holds no tokenizer that can be stored as tokenizer.json")


def _read_with_transformers(source: Path, ours: Any) -> tuple[Any, dict[str, Any]]:
    """The config and the fp32 weights as transformers reads them, a tied embedding in its finer rounding."""
    import torch
    import transformers

    # Typed as an unbound method; what it returns hangs on `output_loading_info`.
    from_pretrained: Any = transformers.AutoModelForCausalLM.from_pretrained
    model, info = from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        output_loading_info=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    wrong = {kind: sorted(map(str, keys))[:4] for kind, keys in info.items() if keys}
    if wrong:
        raise WeightsMismatch(f"transformers could not place every tensor of {source}: {wrong}")
    weights = dict(model.state_dict())
    if ours.fine_tied:
        # The file keeps one matrix in two roundings; transformers takes them for two matrices.
        weights[next(iter(ours.names()))] = model.get_output_embeddings().weight.detach()
    model.config.architectures = [type(model).__name__]
    model.config.tie_word_embeddings = ours.config["tie_word_embeddings"]
    if hasattr(model.config, "quantization_config"):
        # With it transformers takes the model for a quantised one and refuses to save it.
        del model.config.quantization_config
    return model.config, {name: weights[name] for name in ours.names()}


def _compare(ours: Any, weights: Mapping[str, Any]) -> None:
    import torch

    for name in ours.names():
        if not torch.equal(ours.read(name), weights[name]):
            raise WeightsMismatch(
                f"two readings of {ours.path} differ in {name}: expected the same numbers from transformers and gguf"
                "\n  The installed transformers reads this architecture differently: see constraints.txt."
            )


def _write(folder: Path, config: Any, weights: Mapping[str, Any]) -> None:
    from safetensors.torch import save_file

    config.save_pretrained(folder)
    save_file(
        {name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def _write_manifest(folder: Path, name: str, source: Mapping[str, Any]) -> None:
    from importlib.metadata import version

    from circuit_claims.models.files.manifest import describe_folder

    made_by = {"converter": CONVERTER, **{package: version(package) for package in ("transformers", "gguf", "torch")}}
    manifest = describe_folder(folder, name, source=source, made_by=made_by)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    for file in folder.iterdir():
        if file.name not in FILES:
            file.unlink()
        else:
            file.chmod(0o644)


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


def run_job() -> int:
    """Do the job given as JSON in the first argument; errors go to standard output as JSON."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    job = json.loads(sys.argv[1])
    try:
        _work(Path(job["source"]), Path(job["folder"]), job["name"], job["facts"])
    except ModelError as error:
        _say(error=type(error).__name__, message=str(error))
        return 1
    except Exception as error:  # whatever transformers raises about a file it cannot read
        said = " ".join(str(error).split())[:500]
        _say(error="ModelError", message=f"{job['source']} could not be converted\n  {type(error).__name__}: {said}")
        raise
    return 0


if __name__ == "__main__":
    # The thread that waits for the parent sits in a read that never returns: leave without waiting for it.
    status = run_job()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
