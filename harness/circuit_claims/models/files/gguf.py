"""Reading one GGUF file: settings and tensors under Hugging Face's names and in its conventions, one at a time.

Three conventions differ between the formats. The llama family stores the rows of its query and key matrices in the
order of interleaved rotary positions; Gemma's norm weights have the +1 already in them; GPT-2's matrices are stored
(out, in) where Hugging Face keeps (in, out).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.models.architectures.names import parameter_shapes
from circuit_claims.models.errors import DamagedWeights, WeightsMismatch
from circuit_claims.models.files.manifest import check_parameters
from circuit_claims.models.files.safe_files import refuse_pickle, sha256_of

MAGIC = b"GGUF"
ARCHITECTURES = {"gpt2": "gpt2", "llama": "llama", "qwen2": "qwen2", "gemma3": "gemma3_text"}
OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"
# Two roundings of one matrix differ by a few percent of its norm, two different matrices by more than its norm.
SAME_MATRIX = 0.2
SAMPLED_ROWS = 256

# What each architecture's config.json says that its GGUF file leaves to the reader.
HABITS: Mapping[str, Mapping[str, Any]] = {
    "gpt2": {"activation_function": "gelu_new"},
    "llama": {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    "qwen2": {"hidden_act": "silu"},
    "gemma3_text": {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False, "query_pre_attn_scalar": 256},
}
# Hugging Face's setting, and the key of the GGUF file (after the architecture's name) that holds it.
SETTINGS = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
}
GPT2_NAMES = {
    "num_hidden_layers": "n_layer",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}


@cache
def _plain_reader() -> Any:
    """`gguf.GGUFReader` on a plain array of the mapped file.

    It slices the file four times for each token of the vocabulary, and a slice of a `numpy.memmap` costs three times
    what an array's does: 23 s against 7 s for the 262,144 tokens of Gemma 3.
    """
    import gguf

    class PlainReader(gguf.GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, np.asarray(value) if name == "data" else value)

    return PlainReader


def read_gguf(path: Path) -> Any:
    """A `gguf.GGUFReader`; raises `DamagedWeights` for a file that is not GGUF or is cut short."""
    refuse_pickle(path)
    with path.open("rb") as handle:
        magic = handle.read(4)
    if magic != MAGIC:
        raise DamagedWeights(
            f"{path} is not a GGUF file: expected it to begin with {MAGIC!r}, found {magic!r}"
            "\n  Type the path of a GGUF file or of a Hugging Face folder instead; names: claims list --subjects"
        )
    try:
        return _plain_reader()(str(path))
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, TypeError) as error:
        raise DamagedWeights(
            f"{path} is not a whole GGUF file\n  found {path.stat().st_size:,} bytes; the reader says: {error}"
            "\n  It was cut short or changed on disk: fetch or copy it again."
        ) from error


class GGUFTensors:
    """The weights of one GGUF file, dequantised to fp32 one tensor at a time; the file is memory-mapped.

    Raises `WeightsMismatch` if the tensors are not exactly those the settings describe, `DamagedWeights` for a file
    that is cut short. The digest is the sha256 of the file. `reader` is the file's, where it is already parsed.
    """

    def __init__(self, path: Path, reader: Any = None) -> None:
        self.path = Path(path)
        reader = read_gguf(self.path) if reader is None else reader
        self._stored = {tensor.name: tensor for tensor in reader.tensors}
        self._architecture = _architecture(self.path, reader)
        settings = read_settings(reader, self._architecture, self._stored)
        self.fine_tied = _is_one_matrix(self._stored)
        settings["tie_word_embeddings"] = OUTPUT not in self._stored or self.fine_tied
        self.config: Mapping[str, Any] = MappingProxyType(settings)
        self._names = self._map_names()

    @property
    def digest(self) -> str:
        """The sha256 of the file."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return sha256_of(self.path)

    def names(self) -> tuple[str, ...]:
        """All parameter names in the order of the model; a tied unembedding is not among them."""
        return tuple(self._names)

    def read(self, name: str) -> Float[Tensor, "*shape"]:
        """One whole tensor in fp32 and in Hugging Face's convention."""
        stored = self._find(name)
        return torch.from_numpy(np.array(self._to_hugging_face(name, _dequantise(stored, slice(None)))))

    def rows(self, name: str, ids: Sequence[int]) -> Float[Tensor, "n width"]:
        """The rows `ids` of a matrix in fp32. Only embeddings keep their rows whatever the convention."""
        stored = self._find(name)
        n_rows = int(stored.shape[-1])
        outside = [row for row in ids if not 0 <= row < n_rows]
        if outside:
            raise ValueError(f"rows of {name}: expected numbers from 0 to {n_rows - 1}, found {outside[:4]}")
        if "embed" in name or "wte" in name or "lm_head" in name:
            return torch.from_numpy(np.array(_dequantise(stored, list(ids))))
        return self.read(name)[list(ids)]

    def _find(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(f"no tensor called {name!r} in {self.path.name}: it has {', '.join(self.names()[:4])}, ...")
        return self._stored[self._names[name]]

    def _map_names(self) -> dict[str, str]:
        """From Hugging Face's name of every parameter to the file's, after all names and shapes were checked."""
        import gguf

        architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self._architecture)
        gguf_names = gguf.get_tensor_name_map(architecture, self.config["num_hidden_layers"])
        expected = parameter_shapes(self.config)
        names = {name: f"{gguf_names.get_name(name.rpartition('.')[0])}.{name.rpartition('.')[2]}" for name in expected}
        stored = dict(self._stored)
        if self.fine_tied:
            names[next(iter(expected))] = OUTPUT
            stored.pop(EMBEDDING)
        found = {hf: self._shape(hf, stored.pop(name)) for hf, name in names.items() if name in stored}
        check_parameters(self.config, {**found, **{name: tuple(map(int, t.shape)) for name, t in stored.items()}})
        return names

    def _shape(self, name: str, tensor: Any) -> tuple[int, ...]:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        return shape[::-1] if self._is_transposed(name) else shape

    def _is_transposed(self, name: str) -> bool:
        inner = name.startswith("transformer.h.") and name.endswith(".weight")
        return self._architecture == "gpt2" and inner and ".ln_" not in name

    def _to_hugging_face(self, name: str, array: np.ndarray) -> np.ndarray:
        if self._is_transposed(name):
            return array.T
        if self._architecture == "llama" and ".q_proj." in name:
            return unpermute(array, self.config["num_attention_heads"])
        if self._architecture == "llama" and ".k_proj." in name:
            return unpermute(array, self.config["num_key_value_heads"])
        if self._architecture == "gemma3" and name.endswith("norm.weight"):
            return array - 1
        return array


def unpermute(array: np.ndarray, n_heads: int) -> np.ndarray:
    """Rows of a query or key matrix from interleaved rotary order (x0 y0 x1 y1 ...) to halves (x0 x1 ... y0 y1 ...).

    >>> unpermute(np.array([0, 2, 1, 3]), 1).tolist()
    [0, 1, 2, 3]
    """
    half = array.shape[0] // n_heads // 2
    return array.reshape(n_heads, half, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _dequantise(tensor: Any, rows: slice | list[int]) -> np.ndarray:
    import gguf

    return gguf.dequantize(tensor.data[rows], tensor.tensor_type).astype(np.float32, copy=False)


def _architecture(path: Path, reader: Any) -> str:
    field = reader.fields.get("general.architecture")
    found = field.contents() if field else None
    if found not in ARCHITECTURES:
        raise WeightsMismatch(
            f"{path} holds a model this harness does not read from GGUF\n  expected one of {', '.join(ARCHITECTURES)}"
            f"\n  found {found!r}; a Hugging Face folder of it may be read"
        )
    return found


def read_settings(reader: Any, architecture: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a GGUF file as keys of a Hugging Face config.json (all but `tie_word_embeddings`)."""
    kind = ARCHITECTURES[architecture]
    config: dict[str, Any] = {"model_type": kind, **HABITS[kind]}
    for setting, key in SETTINGS.items():
        field = reader.fields.get(f"{architecture}.{key}")
        if field is not None:
            config[setting] = field.contents()
    if architecture == "gpt2":
        config |= {new: config[old] for old, new in GPT2_NAMES.items() if old in config}
    else:
        config.setdefault("num_key_value_heads", config.get("num_attention_heads"))
    if EMBEDDING not in stored:
        raise WeightsMismatch(
            f"a GGUF file of {architecture} has no tensor {EMBEDDING}: it holds {len(stored)} tensors"
        )
    config["vocab_size"] = int(stored[EMBEDDING].shape[-1])
    return config


def _is_one_matrix(stored: Mapping[str, Any]) -> bool:
    """Whether `output` and `token_embd` are two roundings of one matrix: then they are tied, and `output` is the finer.

    The file does not say. A sample of rows does: two roundings of one matrix are close, two matrices are not.
    """
    if OUTPUT not in stored or EMBEDDING not in stored or stored[OUTPUT].shape[-1] != stored[EMBEDDING].shape[-1]:
        return False
    n_rows = int(stored[EMBEDDING].shape[-1])
    sample = sorted({int(row) for row in np.linspace(0, n_rows - 1, SAMPLED_ROWS)})
    fine, coarse = (_dequantise(stored[name], sample) for name in (OUTPUT, EMBEDDING))
    return bool(np.linalg.norm(fine - coarse) < SAME_MATRIX * np.linalg.norm(fine))
