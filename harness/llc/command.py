"""What `claims llc` does: name a model, weights and a text; get coefficients, resumable, as JSON if wanted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from harness.atomic import write_text_atomically
from harness.attention_only.model import AttentionOnly, AttentionOnlyConfig
from harness.llc.estimate import LLCEstimate
from harness.llc.sgld import SGLDSettings
from harness.llc.sweep import CellStore, Place, Progress, Sweep, run_sweep
from harness.measurement import Measurement

SCHEMA = 1


class MemoryStore:
    """A cell store that lasts as long as the process."""

    def __init__(self) -> None:
        self._cells: dict[str, Measurement] = {}

    def load(self, key: str) -> Measurement | None:
        """The cell under `key`, if any."""
        return self._cells.get(key)

    def save(self, key: str, measurement: Measurement) -> None:
        """Keep a cell."""
        self._cells[key] = measurement


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
    burnin: int = 0,
    batch: int = 8,
    length: int = 128,
    most_rows: int = 512,
    seed: int = 0,
    biases: bool = True,
    device: str = "cpu",
    store: CellStore | None = None,
    json_path: Path | None = None,
    models_dir: Path | None = None,
    offline: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Mapping[Place, LLCEstimate]:
    """Coefficients of each of `weights` ("1:6", "layer 0", "embed", "all") of a model on a text.

    `model` is a registry name, a GGUF file, a Hugging Face folder, or a `.safetensors` file of the attention-only
    model. `text` is the name of a standard text, a text file, or a `.npy` file of token rows (the only kind the
    attention-only model takes). `batch` rows of `length` tokens make a batch. With a `store`, finished chains are read
    and never measured again. Raises what its parts raise, ValueError for a text that does not fit.
    """
    network, tokenizer = load_model(model, models_dir=models_dir, offline=offline, device=device)
    rows = load_rows(text, tokenizer, length, most_rows).to(device)
    lengths = {"num_chains": chains, "num_draws": draws, "num_burnin_steps": burnin}
    some = min(batch, len(rows))
    settings = SGLDSettings(n_beta, gamma, eps, seed=seed, batch_size=some, chains_per_call=1, **lengths)
    plan = Sweep([model], list(weights), [text], lambda _: network, lambda _: rows, settings, biases=biases)
    found = run_sweep(plan, store or MemoryStore(), progress=progress)
    if json_path is not None:
        write_text_atomically(json_path, json.dumps(to_json(found), indent=1, allow_nan=False) + "\n")
    return found


def to_json(found: Mapping[Place, LLCEstimate]) -> dict[str, Any]:
    """The estimates as JSON values: value, interval, gate, diagnostics, settings and the mean of each chain."""
    rows = []
    for place, estimate in found.items():
        made = estimate.to_measurement()
        interval = made.interval
        rows.append(
            {
                "model": place.checkpoint,
                "weights": place.weights,
                "text": place.text,
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


def lines(found: Mapping[Place, LLCEstimate]) -> list[str]:
    """One line an estimate, for people: value, interval, gate, reasons."""
    texts = []
    for place, estimate in found.items():
        span = "no interval"
        if estimate.interval is not None:
            span = f"{estimate.interval.level:.0%} interval [{estimate.interval.low:.3g}, {estimate.interval.high:.3g}]"
        texts.append(f"{place.weights} on {place.text}: {estimate.mean:.4g}, {span}, {estimate.status}")
        texts.extend(f"  {reason}" for reason in estimate.reasons)
        around = estimate.surroundings
        texts.append(
            f"  mean loss {estimate.mean_loss:.3f}, |w - w*| {estimate.mean_displacement:.3g} of |w*| "
            f"{around.start_norm:.3g}, n beta = 0 control {around.control_llc:.4g}"
        )
    return texts


def load_model(name: str, *, models_dir: Path | None, offline: bool, device: str) -> tuple[nn.Module, Any]:
    """A model in evaluation mode and its tokenizer (None for the attention-only model)."""
    if Path(name).suffix == ".safetensors" and Path(name).is_file():
        return load_attention_only(Path(name)).to(device), None
    import transformers

    from harness.models.resolve import resolve

    local = resolve(name, models_dir=models_dir, offline=offline).verify()
    network = transformers.AutoModelForCausalLM.from_pretrained(
        str(local.folder), dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return network.eval().to(device), local.tokenizer()


def load_attention_only(path: Path) -> AttentionOnly:
    """An attention-only model from its weights alone; the sizes are read off the shapes.

    Raises ValueError where names or shapes are not those of the model.
    """
    from safetensors.torch import load_file

    tensors = load_file(path)
    if "embed.W_E" not in tensors or "blocks.0.attn.W_Q" not in tensors:
        raise ValueError(
            f"weights of an attention-only model\n  expected embed.W_E, blocks.0.attn.W_Q, ... in {path}\n"
            f"  found    {', '.join(sorted(tensors)[:4])}\n  A Hugging Face model is named by its folder."
        )
    heads, width, size = tensors["blocks.0.attn.W_Q"].shape
    layers = len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})
    config = AttentionOnlyConfig(n_layers=layers, d_model=width, n_heads=heads, d_head=size)
    config = replace(config, n_ctx=len(tensors["pos_embed.W_pos"]), d_vocab=len(tensors["embed.W_E"]))
    model = AttentionOnly(config)
    wrong = model.load_state_dict(tensors, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise ValueError(f"weights of an attention-only model in {path}: missing {wrong.missing_keys[:4]}, "
                         f"unexpected {wrong.unexpected_keys[:4]}")  # fmt: skip
    return model.eval()


def load_rows(text: str, tokenizer: Any, length: int, most: int) -> Int[Tensor, "rows pos"]:
    """Rows of `length` tokens: from a `.npy` of integers, or a text cut into windows, `most` of them at the most."""
    path = Path(text)
    if path.suffix == ".npy" and path.is_file():
        rows = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))
        if rows.ndim != 2:
            raise ValueError(f"token rows in {path}: expected a table rows x tokens, found shape {tuple(rows.shape)}")
        return rows[:most, :length]
    if tokenizer is None:
        raise ValueError(
            f"text {text!r}: expected a .npy file of token rows, since this model has no tokenizer of its own. "
            "Save one with numpy.save(file, rows)"
        )
    if path.is_file():
        words = path.read_text(encoding="utf-8")
    else:
        from harness.texts import standard_text

        words = standard_text(text)
    tokens = torch.tensor(tokenizer.encode(words))
    count = min(most, len(tokens) // length)
    if count == 0:
        raise ValueError(f"text {text!r}: expected at least {length} tokens, found {len(tokens)}. Try a smaller length")
    return tokens[: count * length].view(count, length)
