"""What `claims llc` does: name a model, weights and a text; get coefficients, resumable, as JSON if wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from circuit_claims.errors import InputError
from circuit_claims.keeping.atomic import write_text_atomically
from circuit_claims.keeping.cells import CellStore, MemoryStore, Report
from circuit_claims.llc.estimate import LLCEstimate
from circuit_claims.llc.rows import Encode, cut_rows, read_text
from circuit_claims.llc.sgld import SGLDSettings
from circuit_claims.llc.sweep import Sweep, SweepPoint, run_sweep
from circuit_claims.toy.checkpoints import model_from
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from circuit_claims.toy.tokenizer import open_tokenizer

SCHEMA = 1


def run_llc(
    model: str,
    weights: Sequence[str],
    text: str,
    *,
    n_beta: float,
    gamma: float,
    eps: float,
    chains: int = 4,
    draws: int = 200,
    batch: int = 8,
    length: int = 128,
    most_rows: int = 512,
    seed: int = 0,
    biases: bool = True,
    trace_probes: int = 0,
    device: str = "cpu",
    store: CellStore | None = None,
    json_path: Path | None = None,
    models_dir: Path | None = None,
    offline: bool = False,
    progress: Report | None = None,
) -> Mapping[SweepPoint, LLCEstimate]:
    """Coefficients of each of `weights` ("1:6", "layer 0", "embed", "all") of a model on a text.

    `model` is a registry name, a GGUF file, a Hugging Face folder, or a `.safetensors` file of the attention-only
    model, `text` a standard text, a text file, or an `.npy` file of token rows. `batch` rows of `length` tokens make a
    batch, `trace_probes` the Hessian trace of each slice. With a `store`, finished chains are read and never measured
    again. Raises what its parts raise, ValueError for what does not fit, before anything is measured.
    """
    settings = SGLDSettings(n_beta, gamma, eps, chains, draws, seed=seed, batch_size=batch, chains_per_call=1)
    words = read_text(text)
    network, encode = load_model(model, models_dir=models_dir, offline=offline, device=device)
    rows = cut_rows(words, network, encode, text=text, length=length, batch=batch, most=most_rows).to(device)
    plan = Sweep([model], list(weights), [text], lambda _: network, lambda _: rows, settings, biases=biases,
                 trace_probes=trace_probes)  # fmt: skip
    found = run_sweep(plan, store or MemoryStore(), progress=progress)
    if json_path is not None:
        write_text_atomically(json_path, json.dumps(estimates_json(found), indent=1, allow_nan=False) + "\n")
    return found


def estimates_json(estimates: Mapping[SweepPoint, LLCEstimate]) -> dict[str, Any]:
    """The estimates as JSON values: value, interval, gate, diagnostics, settings and the mean of each chain."""
    rows = []
    for point, estimate in estimates.items():
        made = estimate.to_measurement()
        interval = made.interval
        rows.append(
            {
                "model": point.checkpoint,
                "weights": point.weights,
                "text": point.text,
                "value": made.value,
                "interval": None if interval is None else [interval.low, interval.high],
                "level": None if interval is None else interval.level,
                "status": made.status,
                "per_chain": [float(value) if np.isfinite(value) else None for value in estimate.per_chain],
                **made.facts,
                "seconds": estimate.cost.seconds,
            }
        )
    return {"schema": SCHEMA, "estimates": rows}


def estimate_lines(estimates: Mapping[SweepPoint, LLCEstimate]) -> list[str]:
    """A few lines an estimate, for people: value, interval, gate with its reasons, and what to hold it against."""
    texts = []
    for point, estimate in estimates.items():
        span = "no interval"
        if estimate.interval is not None:
            span = f"{estimate.interval.level:.0%} interval [{estimate.interval.low:.3g}, {estimate.interval.high:.3g}]"
        value = f"{estimate.mean:.4g}, {span}" if np.isfinite(estimate.mean) else "no estimate"
        texts.append(f"{point.weights} on {point.text}: {value}, {estimate.status}")
        texts.extend(f"  {reason}" for reason in estimate.reasons)
        texts.extend(f"  {line}" for line in _beside(estimate))
    return texts


def _beside(estimate: LLCEstimate) -> list[str]:
    around, texts = estimate.surroundings, []
    if np.isfinite(estimate.mean):
        ceiling = "" if around.ceiling is None else f" (knowing nothing: {around.ceiling:.3f})"
        texts.append(
            f"mean loss {estimate.mean_loss:.3f}{ceiling}, |w - w*| {estimate.mean_displacement:.3g} of |w*| "
            f"{around.start_norm:.3g}, n beta = 0 control {_known(around.control_llc)}"
        )
    if np.isfinite(estimate.acceptance):
        texts.append(f"Metropolis acceptance {estimate.acceptance:.3g} of the steps checked")
    elif estimate.settings.mala_every:
        texts.append(f"Metropolis acceptance not checked: fewer than {estimate.settings.mala_every} steps")
    if around.hessian_trace is not None:
        error = "" if around.hessian_error is None else f" ± {around.hessian_error:.2g}"
        limit = estimate.small_curvature_limit
        tends = "" if limit is None else f"; n beta / (2 gamma) times it, the limit of small curvature, is {limit:.4g}"
        texts.append(f"Hessian trace {around.hessian_trace:.4g}{error}{tends}")
    return texts


def _known(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "not measured"


def load_model(name: str, *, models_dir: Path | None, offline: bool, device: str) -> tuple[nn.Module, Encode | None]:
    """A model in evaluation mode and what encodes its texts (None where no tokenizer lies beside its weights)."""
    if Path(name).suffix == ".safetensors":
        return load_attention_only(Path(name)).to(device), encoder_beside(Path(name))
    import transformers

    from circuit_claims.models.bridge import quiet_loading
    from circuit_claims.models.resolve import resolve

    local = resolve(name, models_dir=models_dir, offline=offline).verify()
    with quiet_loading():
        from_pretrained: Any = transformers.AutoModelForCausalLM.from_pretrained  # typed as an unbound method
        network = from_pretrained(
            str(local.folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
    return network.eval().to(device), lambda words: local.tokenizer().encode(words)


def encoder_beside(path: Path) -> Encode | None:
    """The tokenizer of an attention-only model's run: in its folder, or beside it where several runs share one."""
    for folder in (path.resolve().parent, path.resolve().parent.parent):
        if (folder / "tokenizer.json").is_file():
            return lambda words: open_tokenizer(folder / "tokenizer.json").encode(words)
    return None


def load_attention_only(path: Path) -> AttentionOnly:
    """An attention-only model from its weights alone; the sizes are read off the shapes.

    Raises ValueError where names or shapes are not those of the model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    expected = "weights of an attention-only model\n  expected "
    if not path.is_file():
        raise InputError(
            f"{expected}a file {path}\n  found    none of that name\n"
            "  A Hugging Face model is named by its folder; names of the registry: claims list --subjects"
        )
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{expected}a whole safetensors file in {path}\n  found    {error}\n"
            "  The file is damaged or of another kind. Copy it again, or name another."
        ) from None
    ranks = {"embed.W_E": 2, "pos_embed.W_pos": 2, "blocks.0.attn.W_Q": 3}
    if any(name not in tensors or tensors[name].ndim != rank for name, rank in ranks.items()):
        raise InputError(
            f"{expected}embed.W_E, pos_embed.W_pos, blocks.0.attn.W_Q, ... in {path}\n"
            f"  found    {', '.join(sorted(tensors)[:4])}\n  A Hugging Face model is named by its folder."
        )
    heads, width, size = tensors["blocks.0.attn.W_Q"].shape
    layers = len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})
    config = AttentionOnlyConfig(n_layers=layers, d_model=width, n_heads=heads, d_head=size)
    config = replace(config, n_ctx=len(tensors["pos_embed.W_pos"]), d_vocab=len(tensors["embed.W_E"]))
    return model_from(tensors, config, str(path))
