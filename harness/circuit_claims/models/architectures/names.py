"""What five architectures call their tensors in Hugging Face checkpoints, how those are laid out, and their sizes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from circuit_claims.errors import ClaimsError

NormKind = Literal["layer", "rms", "rms+1"]
QkvLayout = Literal["split", "by matrix", "by head"]


class UnsupportedArchitecture(ClaimsError, ValueError):
    """A model whose weights this harness cannot read as circuits."""


@dataclass(frozen=True)
class Names:
    """Tensor names of one architecture, without ".weight", and how its matrices lie in memory.

    `qkv` has three names (`split`) or one fused one: `by matrix` is Q, K, V one after another (GPT-2), `by head` is
    Q, K, V of head 0, then of head 1, ... (GPT-NeoX). `mlp` is (in, out), or (gate, up, down) for gated ones.
    `transposed`: matrices are stored (in, out), GPT-2's Conv1D, instead of (out, in).
    """

    prefix: str
    block: str
    embed: str
    unembed: tuple[str, ...]
    final_norm: str
    head_norm: str
    mlp_norm: str
    qkv: tuple[str, ...]
    attention_out: str
    mlp: tuple[str, ...]
    norm_kind: NormKind
    qkv_layout: QkvLayout = "split"
    transposed: bool = False
    positions: str | None = None
    head_post_norm: str | None = None
    mlp_post_norm: str | None = None
    query_norm: str | None = None
    key_norm: str | None = None

    @property
    def norm_has_shift(self) -> bool:
        """Whether the norms have a bias: LayerNorm has, RMSNorm has not."""
        return self.norm_kind == "layer"

    @property
    def block_norms(self) -> tuple[str, ...]:
        """Every norm of a block that works on the residual width."""
        return tuple(filter(None, (self.head_norm, self.head_post_norm, self.mlp_norm, self.mlp_post_norm)))


def _llama_like(**changes: Any) -> Names:
    usual: dict[str, Any] = {
        "prefix": "model.",
        "block": "layers.{}.",
        "embed": "embed_tokens",
        "unembed": ("lm_head",),
        "final_norm": "norm",
        "head_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention_out": "self_attn.o_proj",
        "mlp": ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
        "norm_kind": "rms",
    }
    return Names(**{**usual, **changes})


NAMES: Mapping[str, Names] = {
    "gpt2": Names(
        prefix="transformer.",
        block="h.{}.",
        embed="wte",
        positions="wpe",
        unembed=("lm_head",),
        final_norm="ln_f",
        head_norm="ln_1",
        mlp_norm="ln_2",
        qkv=("attn.c_attn",),
        qkv_layout="by matrix",
        attention_out="attn.c_proj",
        mlp=("mlp.c_fc", "mlp.c_proj"),
        norm_kind="layer",
        transposed=True,
    ),
    "gpt_neox": Names(
        prefix="gpt_neox.",
        block="layers.{}.",
        embed="embed_in",
        unembed=("embed_out", "lm_head"),
        final_norm="final_layer_norm",
        head_norm="input_layernorm",
        mlp_norm="post_attention_layernorm",
        qkv=("attention.query_key_value",),
        qkv_layout="by head",
        attention_out="attention.dense",
        mlp=("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        norm_kind="layer",
    ),
    "llama": _llama_like(),
    "qwen2": _llama_like(),
    # The same name means another thing here: Gemma's post_attention_layernorm acts on what attention writes.
    "gemma3_text": _llama_like(
        norm_kind="rms+1",
        mlp_norm="pre_feedforward_layernorm",
        head_post_norm="post_attention_layernorm",
        mlp_post_norm="post_feedforward_layernorm",
        query_norm="self_attn.q_norm",
        key_norm="self_attn.k_norm",
    ),
}
ARCHITECTURES = tuple(NAMES)


@dataclass(frozen=True)
class Dimensions:
    """Sizes and switches of one model, read from its config.json."""

    architecture: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int
    eps: float
    activation: str
    tied: bool
    parallel: bool
    embed_scale: float
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    n_ctx: int

    @property
    def heads_per_kv(self) -> int:
        """How many query heads one key-value head serves."""
        return self.n_heads // self.n_kv_heads


def setting(config: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """The first of `keys` that the config gives a value (GPT-2 names its sizes in its own way), else `default`."""
    return next((config[key] for key in keys if config.get(key) is not None), default)


def names_of(config: Mapping[str, Any]) -> Names:
    """Tensor names of the config's `model_type`; raises `UnsupportedArchitecture` for one that is not known."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in NAMES:
        raise UnsupportedArchitecture(
            f"architecture of the model: expected one of {', '.join(ARCHITECTURES)}"
            f"\n  found {kind!r} in its config.json"
        )
    return NAMES[kind]


def _required(config: Mapping[str, Any], *keys: str) -> int:
    value = setting(config, *keys)
    if value is None:
        raise UnsupportedArchitecture(
            f"config.json of a {config.get('model_type')} model: expected a value for {' or '.join(keys)}, found none"
        )
    return int(value)


def _biases(config: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Whether the projections to Q, K, V, the one out of attention and the MLP's have biases."""
    kind = config["model_type"]
    if kind == "gpt2":
        return True, True, True
    if kind == "gpt_neox":
        attention = bool(config.get("attention_bias", True))
        return attention, attention, True
    if kind == "qwen2":
        return True, False, False
    attention = bool(config.get("attention_bias", False))
    return attention, attention, bool(config.get("mlp_bias", False))


def dimensions_of(config: Mapping[str, Any]) -> Dimensions:
    """Sizes of a model from its config; raises `UnsupportedArchitecture` where one is missing."""
    names = names_of(config)
    kind = config["model_type"]
    d_model = _required(config, "hidden_size", "n_embd")
    n_heads = _required(config, "num_attention_heads", "n_head")
    qkv_bias, out_bias, mlp_bias = _biases(config)
    usual_activation = {"gpt2": "gelu_new", "gpt_neox": "gelu", "gemma3_text": "gelu_pytorch_tanh"}.get(kind, "silu")
    usual_eps = 1e-5 if names.norm_kind == "layer" else 1e-6
    return Dimensions(
        architecture=kind,
        n_layers=_required(config, "num_hidden_layers", "n_layer"),
        n_heads=n_heads,
        n_kv_heads=int(setting(config, "num_key_value_heads", default=n_heads)),
        d_model=d_model,
        d_head=int(setting(config, "head_dim", default=d_model // n_heads)),
        d_mlp=int(setting(config, "intermediate_size", "n_inner", default=4 * d_model)),
        d_vocab=_required(config, "vocab_size"),
        eps=float(setting(config, "layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", default=usual_eps)),
        activation=setting(config, "hidden_activation", "hidden_act", "activation_function", default=usual_activation),
        tied=bool(config.get("tie_word_embeddings", kind in ("gpt2", "gemma3_text"))),
        parallel=kind == "gpt_neox" and bool(config.get("use_parallel_residual", True)),
        # transformers rounds this factor to the dtype of the weights; everything here is fp32, and so is the factor.
        embed_scale=d_model**0.5 if kind == "gemma3_text" else 1.0,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        n_ctx=int(setting(config, "n_positions", "max_position_embeddings", default=0)),
    )


def found_prefix(names: Names, present: Collection[str]) -> str:
    """The prefix under which a checkpoint keeps its tensors: some, as GPT-2's on the hub, leave it out."""
    for prefix in (names.prefix, ""):
        if f"{prefix}{names.embed}.weight" in present:
            return prefix
    raise UnsupportedArchitecture(
        f"embedding of the model: expected a tensor named {names.prefix}{names.embed}.weight"
        f"\n  found {len(present)} tensors, the first {sorted(present)[:3]}"
    )


def found_unembedding(names: Names, dims: Dimensions, prefix: str, present: Collection[str]) -> str:
    """The name of the matrix that reads logits out: the embedding itself where the two are tied."""
    if dims.tied:
        return f"{prefix}{names.embed}.weight"
    for name in names.unembed:
        if f"{name}.weight" in present:
            return f"{name}.weight"
    raise UnsupportedArchitecture(
        f"unembedding of an untied {dims.architecture} model: expected a tensor named "
        f"{' or '.join(f'{name}.weight' for name in names.unembed)}, found neither"
    )


def _matrix(name: str, rows: int, columns: int, bias: bool, transposed: bool) -> dict[str, tuple[int, ...]]:
    shape = (columns, rows) if transposed else (rows, columns)
    return {f"{name}.weight": shape, **({f"{name}.bias": (rows,)} if bias else {})}


def _block_shapes(names: Names, dims: Dimensions) -> dict[str, tuple[int, ...]]:
    """Shapes of one block's tensors, by their names inside the block."""
    shapes: dict[str, tuple[int, ...]] = {}
    for norm in names.block_norms:
        shapes[f"{norm}.weight"] = (dims.d_model,)
        if names.norm_has_shift:
            shapes[f"{norm}.bias"] = (dims.d_model,)
    for norm in filter(None, (names.query_norm, names.key_norm)):
        shapes[f"{norm}.weight"] = (dims.d_head,)
    query, key = dims.n_heads * dims.d_head, dims.n_kv_heads * dims.d_head
    widths = (query, key, key) if names.qkv_layout == "split" else (query + 2 * key,)
    for name, width in zip(names.qkv, widths, strict=True):
        shapes |= _matrix(name, width, dims.d_model, dims.qkv_bias, names.transposed)
    shapes |= _matrix(names.attention_out, dims.d_model, query, dims.out_bias, names.transposed)
    *inwards, out = names.mlp
    for name in inwards:
        shapes |= _matrix(name, dims.d_mlp, dims.d_model, dims.mlp_bias, names.transposed)
    return shapes | _matrix(out, dims.d_model, dims.d_mlp, dims.mlp_bias, names.transposed)


def parameter_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every parameter a model of this config has, by Hugging Face name: its shape as stored.

    >>> config = {"model_type": "gpt2", "n_embd": 8, "n_head": 2, "n_layer": 1, "vocab_size": 5, "n_positions": 4}
    >>> parameter_shapes(config)["transformer.h.0.attn.c_attn.weight"]
    (8, 24)
    """
    names, dims = names_of(config), dimensions_of(config)
    shapes: dict[str, tuple[int, ...]] = {f"{names.prefix}{names.embed}.weight": (dims.d_vocab, dims.d_model)}
    if names.positions:
        shapes[f"{names.prefix}{names.positions}.weight"] = (dims.n_ctx, dims.d_model)
    block = _block_shapes(names, dims)
    for layer in range(dims.n_layers):
        shapes |= {f"{names.prefix}{names.block.format(layer)}{name}": shape for name, shape in block.items()}
    shapes[f"{names.prefix}{names.final_norm}.weight"] = (dims.d_model,)
    if names.norm_has_shift:
        shapes[f"{names.prefix}{names.final_norm}.bias"] = (dims.d_model,)
    if not dims.tied:
        shapes[f"{names.unembed[0]}.weight"] = (dims.d_vocab, dims.d_model)
    return shapes
