"""Small GGUF files of the architectures that are read from GGUF, written from small Hugging Face folders.

The writer does the steps of llama.cpp's converter in their forward direction (rows permuted, Gemma's +1, GPT-2's
transpose), so a reader that forgets one to undo gives other numbers than the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

GGUF_ARCHITECTURES = {"gpt2": "gpt2", "llama": "llama", "qwen2": "qwen2", "gemma3_text": "gemma3"}
# With these words the small models' vocabularies can be written as GGUF tokenizers: each is one merge of two symbols.
PAIRS = ("ab", "cd", "12", " a", " b")
Q4_0, F32 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.F32


def save_small_gguf(
    folder: Path, path: Path, *, quantised: bool = False, block_count: int | None = None, coarse_embedding: bool = False
) -> Path:
    """Write the model of `folder` (saved with `vocab_words=PAIRS`) as one GGUF file and return its path.

    `quantised` stores matrices as Q4_0 where their rows are multiples of 32 wide. `block_count` overrides the number of
    layers the file claims to have. `coarse_embedding` writes a tied embedding twice, as Qwen's publisher does: coarse
    (Q4_0) as `token_embd`, fine as `output`.
    """
    config = json.loads((folder / "config.json").read_text())
    architecture = GGUF_ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, architecture)
    _write_settings(writer, config, block_count)
    _write_tokenizer(writer, folder, architecture)
    for name, array in _tensors(folder, config, architecture).items():
        matrix = array.ndim == 2 and array.shape[1] % 32 == 0
        if name == "token_embd.weight" and coarse_embedding:
            writer.add_tensor("output.weight", array)
            _add(writer, name, array, Q4_0)
        else:
            _add(writer, name, array, Q4_0 if quantised and matrix else F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, name: str, array: np.ndarray, kind: gguf.GGMLQuantizationType) -> None:
    if kind == F32:
        writer.add_tensor(name, array)
    else:
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)


def _write_settings(writer: gguf.GGUFWriter, config: dict[str, Any], block_count: int | None) -> None:
    writer.add_name("small")
    if config["model_type"] == "gpt2":
        sizes = [config[key] for key in ("n_layer", "n_positions", "n_embd", "n_inner", "n_head")]
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    else:
        keys = ("num_hidden_layers", "max_position_embeddings", "hidden_size", "intermediate_size")
        sizes = [config[key] for key in (*keys, "num_attention_heads")]
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_rope_freq_base(10_000.0)
    n_layers, n_ctx, width, mlp, heads = sizes
    writer.add_block_count(n_layers if block_count is None else block_count)
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    if config["model_type"] == "gemma3_text":
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        writer.add_sliding_window(config["sliding_window"])


def _write_tokenizer(writer: gguf.GGUFWriter, folder: Path, architecture: str) -> None:
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    control, normal, byte = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.BYTE
    if architecture == "gemma3":
        special = ["<pad>", "<eos>", "<bos>", "<unk>"]
        pieces = [f"<0x{number:02X}>" for number in range(256)]
        tokens = [*special, *pieces, "a", "b", "▁", "▁a", "ab"][: len(tokens)]
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
        writer.add_token_types([control] * 4 + [byte] * 256 + [normal] * (len(tokens) - 260))
        writer.add_bos_token_id(2)
        writer.add_add_bos_token(True)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_types([control] + [normal] * (len(tokens) - 1))
        writer.add_token_merges([f"{word[0]} {word[1]}" for word in tokens[257:]])
        writer.add_bos_token_id(0)
        writer.add_add_bos_token(False)
    writer.add_token_list(tokens)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)


def _tensors(folder: Path, config: dict[str, Any], architecture: str) -> dict[str, np.ndarray]:
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    key = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(key, layers)
    tensors = {}
    for name, array in load_file(folder / "model.safetensors").items():
        stem, _, kind = name.rpartition(".")
        tensors[f"{names.get_name(stem)}.{kind}"] = np.ascontiguousarray(_as_stored(name, array, config))
    return tensors


def _as_stored(name: str, array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    kind = config["model_type"]
    if kind == "gpt2" and array.ndim == 2 and ".h." in name:
        return array.T
    if kind == "llama" and ("q_proj" in name or "k_proj" in name):
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        width = array.shape[0] // heads
        # Row r of a head's first half and row r of its second half come to lie side by side.
        order = [half * (width // 2) + row for row in range(width // 2) for half in (0, 1)]
        return array[[head * width + row for head in range(heads) for row in order]]
    if kind == "gemma3_text" and name.endswith("norm.weight"):
        return array + 1
    return array
