"""Models made for controls: one head a perfect successor by construction, and weights as they are before training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.heads.ov_circuit import head_inputs
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.models.architectures.names import dimensions_of, names_of, parameter_shapes
from circuit_claims.models.files.tensors import TensorSource

CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
N_HEADS = 4
NARROWEST = 32
ROWS_PER_DRAW = 64


@dataclass(frozen=True)
class TensorTable:
    """A `TensorSource` held in memory: Hugging Face names and config, fp32."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def digest(self) -> str:
        """sha256 of config and tensors."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        found = hashlib.sha256(json.dumps(dict(self.config), sort_keys=True).encode())
        for name in sorted(self.tensors):
            found.update(name.encode() + self.tensors[name].contiguous().numpy().tobytes())
        return found.hexdigest()

    def names(self) -> tuple[str, ...]:
        """Names of all tensors."""
        return tuple(self.tensors)

    def read(self, name: str) -> Tensor:
        """One whole tensor; raises KeyError for a name that is not there."""
        return self.tensors[name]

    def rows(self, name: str, ids: Sequence[int]) -> Tensor:
        """Some rows of one tensor."""
        return self.tensors[name][list(ids)]


@dataclass(frozen=True)
class Untrained:
    """The `TensorSource` of a model before training: same config, names and shapes, weights drawn at its init spread.

    Norm weights and biases stand where training starts them. A tensor is drawn when it is read, in runs of 64 rows
    that each have a seed of their own: the same rows come out whatever else is read, and however.
    """

    like: TensorSource
    seed: int

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the trained model."""
        return self.like.config

    @property
    def digest(self) -> str:
        """sha256 over the trained model's digest and the seed."""
        return hashlib.sha256(f"untrained:{self.like.digest}:{self.seed}".encode()).hexdigest()

    def names(self) -> tuple[str, ...]:
        """The trained model's names."""
        return self.like.names()

    def read(self, name: str) -> Tensor:
        """One whole tensor as training would start it; raises KeyError for a name the architecture does not have."""
        shape = self._shape(name)
        if len(shape) == 1:
            ones = name.endswith(".weight") and names_of(self.config).norm_kind != "rms+1"
            return torch.ones(shape) if ones else torch.zeros(shape)
        found = torch.empty(shape)
        # Each run of rows has a seed of its own, so that drawing them side by side changes no number.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            parts = enumerate(pool.map(lambda run: self._draw(name, run), range(-(-shape[0] // ROWS_PER_DRAW))))
            for run, part in parts:
                found[run * ROWS_PER_DRAW :][: len(part)] = part
        return found

    def rows(self, name: str, ids: Sequence[int]) -> Float[Tensor, "n width"]:
        """Some rows of a matrix as training would start it."""
        places = torch.tensor(ids, dtype=torch.long)
        found = torch.empty(len(places), self._shape(name)[1])
        for run in torch.unique(places // ROWS_PER_DRAW).tolist():
            here = places // ROWS_PER_DRAW == run
            found[here] = self._draw(name, run)[places[here] - run * ROWS_PER_DRAW]
        return found

    def _draw(self, name: str, run: int) -> Tensor:
        n_rows, width = self._shape(name)
        shape = (min(ROWS_PER_DRAW, n_rows - run * ROWS_PER_DRAW), width)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}:{name}:{run}".encode()).digest()[:7], "big")
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(self._spread(name))

    def _spread(self, name: str) -> float:
        """The config's init spread; GPT-2 starts what writes to the residual stream smaller by sqrt(2 layers)."""
        usual = float(self.config.get("initializer_range", 0.02))
        shrunk = self.config["model_type"] == "gpt2" and name.endswith("c_proj.weight")
        return usual / (2 * dimensions_of(self.config).n_layers) ** 0.5 if shrunk else usual

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(self.config)

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape by name, whether or not the checkpoint keeps the architecture's prefix or its newest names."""
        names = names_of(self.config)
        if name in [f"{other}.weight" for other in names.unembed]:
            name = f"{names.unembed[0]}.weight"
        return self._shapes[name if name in self._shapes else f"{names.prefix}{name}"]


def untrained_like(tensors: TensorSource, generator: torch.Generator) -> Untrained:
    """The untrained control of a model; nothing is drawn before it is read. `generator` gives the one seed it needs."""
    return Untrained(tensors, int(torch.randint(2**62, (), generator=generator)))


def wrong_order(orders: Sequence[Sequence[Any]], generator: torch.Generator) -> list[list[Any]]:
    """Each list in an order of its own drawing: what a head must not be credited for."""
    return [[order[place] for place in torch.randperm(len(order), generator=generator).tolist()] for order in orders]


def small_config(architecture: str, n_tokens: int, d_vocab: int, *, n_layers: int = 2) -> dict[str, Any]:
    """config.json of a small model with 4 heads in which `n_tokens` embeddings can be told apart linearly."""
    # A quarter more dimensions than tokens keeps the linear systems of `plant` well conditioned; heads have widths
    # in steps of 8 so that a quarter of one (GPT-NeoX's rotary share) is even, and never so narrow that two tokens'
    # codes lie closer than the shift of a final LayerNorm can bridge.
    d_head = max(8 * -(-5 * n_tokens // (4 * N_HEADS * 8)), NARROWEST)
    d_model = N_HEADS * d_head
    config: dict[str, Any] = {
        "architectures": [CLASSES[architecture]],
        "model_type": architecture,
        "vocab_size": d_vocab,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    if architecture == "gpt2":
        return config | {"n_embd": d_model, "n_head": N_HEADS, "n_layer": n_layers, "n_positions": 64}
    config |= {
        "hidden_size": d_model,
        "num_attention_heads": N_HEADS,
        "num_hidden_layers": n_layers,
        "intermediate_size": 2 * d_model,
        "max_position_embeddings": 64,
    }
    if architecture != "gpt_neox":
        config |= {"num_key_value_heads": N_HEADS // 2, "head_dim": d_head}
    return config | ({"query_pre_attn_scalar": d_head} if architecture == "gemma3_text" else {})


def random_tensors(config: Mapping[str, Any], generator: torch.Generator) -> TensorTable:
    """Random weights for a config: matrices that keep a vector's length, norms and biases a little off their start."""
    tensors: dict[str, Tensor] = {}
    for name, shape in parameter_shapes(config).items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            tensors[name] = noise / shape[-1] ** 0.5
        else:
            start = 1.0 if name.endswith(".weight") and names_of(config).norm_kind != "rms+1" else 0.0
            tensors[name] = start + 0.1 * noise
    return TensorTable(config, tensors)


def plant(
    table: TensorTable,
    orders: Sequence[Sequence[int]],
    *,
    head: tuple[int, int],
    generator: torch.Generator,
    cyclic: Sequence[bool] = (),
    path: str = "mlp0",
) -> TensorTable:
    """The same model with one head that maps each token of `orders` to the next one, through the whole circuit.

    Every token has a random code of unit length. W_V is solved so that the head's value for a token's input (through
    embedding, MLP_0 and norms) is the code of its successor, and W_O so that the unembedding reads a value as its
    products with all codes: the successor's is 1, the others' are smaller. `cyclic[i]`: the last token of list i is
    followed by its first. A value head that is shared is planted for all query heads it serves, W_O for `head` only.
    Raises ValueError where the residual stream is too narrow to tell the tokens apart.
    """
    layer_index, head_index = head
    weights = CircuitWeights.open(table)
    tokens = torch.tensor(sorted({token for order in orders for token in order}), dtype=torch.long)
    if len(tokens) >= weights.d_model:
        raise ValueError(
            f"planting a successor head: expected more dimensions than tokens\n  found d_model {weights.d_model} and "
            f"{len(tokens)} tokens\n  Make the model with small_config(architecture, {len(tokens)}, ...)"
        )
    layer = weights.layer(layer_index)
    codes = torch.randn(len(tokens), weights.dims.d_head, generator=generator, dtype=torch.float64)
    codes = codes / codes.norm(dim=1, keepdim=True)  # (token, d_head)
    values = _successor_codes(tokens.tolist(), orders, cyclic, codes)
    if layer.value.bias is not None:
        kv_head = head_index // weights.dims.heads_per_kv
        values = values - layer.value.bias.unflatten(0, (layer.n_kv_heads, -1))[kv_head].double()
    resid = next(islice(head_inputs(weights, tokens, path), layer_index, None))  # (token, d_model)
    W_V = torch.linalg.lstsq(layer.norm(resid).double(), values).solution.T  # (d_head, d_model)
    W_O = torch.linalg.lstsq(_readout(weights, layer_index, tokens).T, codes).solution  # (d_model, d_head)
    return _with_head(table, weights, head, W_V.float(), W_O.float())


def _successor_codes(
    tokens: list[int], orders: Sequence[Sequence[int]], cyclic: Sequence[bool], codes: Float[Tensor, "token d_head"]
) -> Float[Tensor, "token d_head"]:
    """Sum of the codes of a token's successors over all lists (zero at the end of a list), at unit length."""
    place = {token: index for index, token in enumerate(tokens)}
    pairs = {
        (order[index], order[(index + 1) % len(order)])
        for number, order in enumerate(orders)
        for index in range(len(order) if number < len(cyclic) and cyclic[number] else len(order) - 1)
    }
    values = torch.zeros_like(codes)
    for token, successor in sorted(pairs):
        values[place[token]] += codes[place[successor]]
    return values / values.norm(dim=1, keepdim=True).clamp_min(1.0)


def _readout(weights: CircuitWeights, layer: int, tokens: Tensor) -> Float[Tensor, "d_model token"]:
    """What a write is multiplied by to give logits, but for its norms' denominators: all candidates share those."""
    gain = weights.final_norm.weight
    readout = weights.unembed(tokens) if gain is None else weights.unembed(tokens) * gain[:, None]
    if weights.final_norm.kind == "layer":
        readout = readout - readout.mean(0)
    after = weights.layer(layer).post_norm.weight
    return (readout if after is None else readout * after[:, None]).double()


def _with_head(
    table: TensorTable,
    weights: CircuitWeights,
    head: tuple[int, int],
    W_V: Float[Tensor, "d_head d_model"],
    W_O: Float[Tensor, "d_model d_head"],
) -> TensorTable:
    """The table with one head's matrices replaced where the architecture keeps them."""
    names, dims, here = weights.names, weights.dims, weights.block_prefix(head[0])
    changed = dict(table.tensors)

    def writable(name: str) -> Tensor:
        changed[name] = table.tensors[name].clone()
        return changed[name].T if names.transposed else changed[name]

    value = writable(f"{here}{names.qkv[-1]}.weight")
    if names.qkv_layout == "split":
        value.unflatten(0, (dims.n_kv_heads, -1))[head[1] // dims.heads_per_kv] = W_V
    elif names.qkv_layout == "by matrix":
        value.unflatten(0, (3, dims.n_heads, -1))[2, head[1]] = W_V
    else:
        value.unflatten(0, (dims.n_heads, 3, -1))[head[1], 2] = W_V
    writable(f"{here}{names.attention_out}.weight").unflatten(1, (dims.n_heads, -1))[:, head[1]] = W_O
    return replace(table, tensors=changed)


def planted_model(
    orders: Sequence[Sequence[int]],
    *,
    generator: torch.Generator,
    architecture: str = "llama",
    head: tuple[int, int] = (1, 2),
    cyclic: Sequence[bool] = (),
    d_vocab: int = 0,
) -> TensorTable:
    """A small random two-layer model in which `head` (layer, head) is a perfect successor on lists of token ids."""
    tokens = {token for order in orders for token in order}
    config = small_config(architecture, len(tokens), max(d_vocab, max(tokens) + 1))
    return plant(random_tensors(config, generator), orders, head=head, generator=generator, cyclic=cyclic)


def planted_folder(
    folder: Path,
    orders: Sequence[Sequence[str]],
    *,
    generator: torch.Generator,
    architecture: str = "llama",
    head: tuple[int, int] = (1, 2),
    cyclic: Sequence[bool] = (),
) -> Path:
    """`planted_model` on lists of strings, saved as a Hugging Face folder with a tokenizer that has each as one token.

    The lists are those of one task in one surface form each, as " Monday", " Tuesday", ...
    """
    from safetensors.torch import save_file

    tokenizer = word_tokenizer([text for order in orders for text in order])
    ids = [[tokenizer.token_to_id(word_symbol(text)) for text in order] for order in orders]
    table = planted_model(
        ids,
        generator=generator,
        architecture=architecture,
        head=head,
        cyclic=cyclic,
        d_vocab=tokenizer.get_vocab_size(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in table.tensors.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(table.config), indent=1), encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def word_symbol(text: str) -> str:
    """How a byte-level tokenizer writes a string down."""
    from tokenizers import pre_tokenizers

    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in splitter.pre_tokenize_str(text))


def word_tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level tokenizer with each of `texts` as one token; id 0 is the end of text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = dict.fromkeys(["<|endoftext|>", *alphabet, *map(word_symbol, texts)])
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    return tokenizer
