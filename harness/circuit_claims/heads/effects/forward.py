"""A model whose forward passes keep what ablations need, and which can go on from any layer with a head replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuit_claims.models.architectures.layers import Norm
from circuit_claims.models.architectures.names import (
    Dimensions,
    Names,
    UnsupportedArchitecture,
    dimensions_of,
    names_of,
)

if TYPE_CHECKING:
    from circuit_claims.models.resolve import LocalModel

ATTENTION = "circuit-claims"


@dataclass
class Tape:
    """What one pass is asked to keep and to replace, and what it kept; each thread writes on its own.

    A tape with `patterns_of` ends its pass at the first attention it comes to, once these heads' patterns are kept.
    """

    patterns_of: Sequence[int] = ()
    replace: Mapping[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    keep: bool = True
    z: dict[int, Tensor] = field(default_factory=dict)
    written: dict[int, Tensor] = field(default_factory=dict)
    patterns: Tensor | None = None
    resid: dict[int, Tensor] = field(default_factory=dict)
    calls: dict[int, tuple[tuple, dict[str, Any]]] = field(default_factory=dict)
    final: Tensor | None = None


_TAPE: ContextVar[Tape | None] = ContextVar("ablation tape", default=None)


def _written(tensor: Tensor | None) -> Tensor:
    """What a pass must have left on its tape."""
    if tensor is None:
        raise RuntimeError("a forward pass ended without writing on its tape: the model's layers were not hooked")
    return tensor


class _Enough(Exception):
    """Ends a pass that has come as far as it is needed."""


@contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Passes of this thread write on `tape` inside the block."""
    token = _TAPE.set(tape)
    try:
        yield tape
    finally:
        _TAPE.reset(token)


@dataclass(frozen=True)
class Pass:
    """What a forward pass of one context left behind.

    `z[layer]` is each head's output before W_O, `written[layer]` what the layer's W_O gave (its bias included, before
    Gemma's norm after attention), `resid[layer]` the residual before the layer, `final` the residual before the final
    norm.
    """

    tokens: Int[Tensor, " pos"]
    z: tuple[Float[Tensor, "pos head d_head"], ...]
    written: tuple[Float[Tensor, "pos d_model"], ...]
    resid: tuple[Float[Tensor, "pos d_model"], ...]
    final: Float[Tensor, "pos d_model"]
    calls: tuple[tuple[tuple, dict[str, Any]], ...] = field(repr=False)

    @property
    def correct(self) -> Int[Tensor, " case"]:
        """The correct token of each case."""
        return self.tokens[1:]

    @property
    def bytes(self) -> int:
        """What keeping the pass takes."""
        return sum(kept.nbytes for kept in (*self.z, *self.written, *self.resid, self.final))


@dataclass(frozen=True)
class DecoderBlock:
    """One layer as ablations see it: W_O, (d_model, head d_head), its bias, and Gemma's norm after attention."""

    W_O: Float[Tensor, "d_model head_x_d_head"]
    b_O: Float[Tensor, " d_model"] | None
    post_norm: Norm


@dataclass(frozen=True)
class AblationModel:
    """A whole model in fp32 with hooks that write on the tape of the thread that runs it.

    `grams` is what `direct` finds of the weights alone, kept from one context to the next.
    """

    network: Any
    names: Names
    dims: Dimensions
    layers: tuple[nn.Module, ...]
    blocks: tuple[DecoderBlock, ...]
    final_norm: Norm
    W_U: Float[Tensor, "d_vocab d_model"]
    grams: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.W_U.device

    @cached_property
    def heads(self) -> Int[Tensor, "n 2"]:
        """(layer, head) of every head, layer by layer: the order of all results."""
        return torch.cartesian_prod(torch.arange(self.dims.n_layers), torch.arange(self.dims.n_heads))

    def write(self, layer: int, head: int, z: Float[Tensor, "*batch d_head"]) -> Float[Tensor, "*batch d_model"]:
        """What one head's output becomes behind its part of W_O (before Gemma's norm after attention)."""
        width = self.dims.d_head
        return z @ self.blocks[layer].W_O[:, head * width : (head + 1) * width].T

    @torch.inference_mode()
    def run(self, contexts: Int[Tensor, "context pos"]) -> list[Pass]:
        """One forward pass of contexts of equal length, without the readout; one `Pass` each.

        Raises ValueError for ids outside the vocabulary, for contexts of one token, and for ones that are too long.
        """
        self._check(contexts)
        with recording(Tape()) as tape:
            self.network.base_model(contexts.to(self.device), use_cache=False)
        return [self._pass(contexts[row].to(self.device), tape, row) for row in range(len(contexts))]

    @torch.inference_mode()
    def patterns(self, start: Pass, layer: int, heads: Sequence[int]) -> Float[Tensor, "asked pos pos"]:
        """Attention of these heads of a layer, from the residual that `start` kept; nothing behind it runs."""
        args, kwargs = start.calls[layer]
        with recording(Tape(patterns_of=tuple(heads), keep=False)) as tape, suppress(_Enough):
            self.layers[layer](start.resid[layer][None], *args, **kwargs)
        return _written(tape.patterns)[0]

    @torch.inference_mode()
    def run_from(
        self, start: Pass, layer: int, replace: Callable[[Tensor], Tensor], variants: int
    ) -> Float[Tensor, "variant pos d_model"]:
        """The final residual (before the final norm) when `replace` changes the outputs of `layer`'s heads.

        Only this layer and those above it run, on the residual that `start` kept; `replace` gets z,
        (variant, pos, head, d_head), and gives the same shape.
        """
        hidden = start.resid[layer].expand(variants, -1, -1)
        with recording(Tape(replace={layer: replace}, keep=False)):
            for index in range(layer, len(self.layers)):
                args, kwargs = start.calls[index]
                out = self.layers[index](hidden, *args, **kwargs)
                hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    def _check(self, contexts: Int[Tensor, "context pos"]) -> None:
        low, high, length = int(contexts.min()), int(contexts.max()), contexts.shape[-1]
        if low < 0 or high >= self.dims.d_vocab:
            raise ValueError(
                f"token ids: expected 0 to {self.dims.d_vocab - 1}, found {low} to {high}"
                "\n  Were they looked up with another model's tokenizer?"
            )
        if not 2 <= length <= (self.dims.n_ctx or length):
            raise ValueError(f"contexts: expected 2 to {self.dims.n_ctx} tokens, found {length}")

    def _pass(self, tokens: Tensor, tape: Tape, row: int) -> Pass:
        def every(kept: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
            return tuple(kept[layer][row] for layer in range(self.dims.n_layers))

        final = _written(tape.final)
        batch = len(final)
        calls = tuple(_of_row(tape.calls[layer], row, batch) for layer in range(self.dims.n_layers))
        return Pass(tokens, every(tape.z), every(tape.written), every(tape.resid), final[row], calls)


def open_model(local: LocalModel, device: str = "cpu") -> AblationModel:
    """The model of these verified files, ready for ablations. Raises what `models.bridge.boot` raises."""
    from circuit_claims.models.bridge import load_plain

    _know_attention()
    network = load_plain(local, device, ATTENTION)
    return hooked_network(network, network.config.to_dict())


def hooked_network(network: Any, config: Mapping[str, Any]) -> AblationModel:
    """Set the hooks on a transformers model. Raises `UnsupportedArchitecture` for one whose logits are not linear."""
    names, dims = names_of(config), dimensions_of(config)
    if config.get("final_logit_softcapping"):
        raise UnsupportedArchitecture("logits of the model: expected a linear readout, found soft-capped logits")
    body = network.base_model
    layers = tuple(body.get_submodule(names.block.format(index).rstrip(".")) for index in range(dims.n_layers))
    out = [layer.get_submodule(names.attention_out) for layer in layers]
    blocks = tuple(_block(layer, proj, names, dims) for layer, proj in zip(layers, out, strict=True))
    for index, (layer, proj) in enumerate(zip(layers, out, strict=True)):
        layer.register_forward_pre_hook(_keeps_call(index), with_kwargs=True)
        proj.register_forward_pre_hook(_keeps_z(index, dims))
        proj.register_forward_hook(_keeps_written(index))
    last = body.get_submodule(names.final_norm)
    last.register_forward_pre_hook(_keep_final)
    W_U = network.get_output_embeddings().weight.detach()
    return AblationModel(network, names, dims, layers, blocks, _norm(last, names, dims), W_U)


def _of_row(value: Any, row: int, batch: int) -> Any:
    """The part of a layer's arguments that belongs to one context: masks have a row for each, positions may not."""
    if isinstance(value, Tensor):
        return value[row : row + 1] if batch > 1 and value.ndim > 1 and len(value) == batch else value
    if isinstance(value, tuple):
        return tuple(_of_row(item, row, batch) for item in value)
    if isinstance(value, dict):
        return {name: _of_row(item, row, batch) for name, item in value.items()}
    return value


def _block(layer: nn.Module, out: Any, names: Names, dims: Dimensions) -> DecoderBlock:
    weight = out.weight.detach().T if names.transposed else out.weight.detach()
    bias = getattr(out, "bias", None)
    post = layer.get_submodule(names.head_post_norm) if names.head_post_norm else None
    return DecoderBlock(weight, None if bias is None else bias.detach(), _norm(post, names, dims))


def _norm(module: Any, names: Names, dims: Dimensions) -> Norm:
    if module is None:
        return Norm()
    weight = module.weight.detach()
    if names.norm_kind == "layer":
        return Norm("layer", weight, module.bias.detach(), dims.eps)
    return Norm("rms", weight + 1.0 if names.norm_kind == "rms+1" else weight, None, dims.eps)


def _keeps_call(index: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        tape = _TAPE.get()
        if tape is not None and tape.keep:
            tape.resid[index], tape.calls[index] = args[0], (args[1:], kwargs)

    return hook


def _keeps_z(index: int, dims: Dimensions) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple) -> Any:
        tape = _TAPE.get()
        if tape is None:
            return None
        z = args[0].unflatten(-1, (dims.n_heads, dims.d_head))
        if tape.keep:
            tape.z[index] = z
        if index in tape.replace:
            return (tape.replace[index](z).flatten(-2), *args[1:])
        return None

    return hook


def _keeps_written(index: int) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
        tape = _TAPE.get()
        if tape is not None and tape.keep:
            tape.written[index] = output

    return hook


def _keep_final(module: nn.Module, args: tuple) -> None:
    tape = _TAPE.get()
    if tape is not None:
        tape.final = args[0]


def _know_attention() -> None:
    """Tell transformers of our attention function: its own fused one, and beside it the patterns asked for."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
        tape = _TAPE.get()
        if tape is not None and tape.patterns_of:
            tape.patterns = _patterns(query, key, attention_mask, tape.patterns_of, kwargs.get("scaling"))
            raise _Enough
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def _patterns(
    query: Float[Tensor, "batch head pos d"],
    key: Float[Tensor, "batch kv_head pos d"],
    mask: Tensor | None,
    heads: Sequence[int],
    scaling: float | None,
) -> Float[Tensor, "batch asked pos pos"]:
    """Attention of the named heads, from turned queries and keys; rows add up to one."""
    group = query.shape[1] // key.shape[1]
    scores = query[:, list(heads)] @ key[:, [head // group for head in heads]].transpose(-1, -2)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if mask is None:
        pos = scores.shape[-1]
        mask = torch.ones(pos, pos, dtype=torch.bool, device=scores.device).tril()
    if mask.shape[-3:-2] == (query.shape[1],):
        mask = mask[:, list(heads)]
    scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)
