"""Which numbers of a model are sampled: names such as "1:6" to index ranges of named tensors, and back.

Layouts: the project's attention-only model (one matrix a head), GPT-2 (queries, keys and values side by side in the
columns of one matrix), GPT-NeoX (one matrix, its rows head by head, queries, keys and values within a head), Llama and
Qwen2 (separate matrices, key and value heads shared by a group of query heads).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuit_claims.errors import InputError

WeightSelection = str | Sequence["Piece"]


@dataclass(frozen=True)
class Piece:
    """A box of one tensor: `ranges` has one slice per axis, fewer for whole trailing axes, none for all of it.

    >>> Piece("blocks.1.attn.W_Q", (slice(6, 7),)).name
    'blocks.1.attn.W_Q'
    """

    name: str
    ranges: tuple[slice, ...] = ()

    def of(self, tensor: Tensor) -> Tensor:
        """A view of the box."""
        return tensor[self.ranges] if self.ranges else tensor


@dataclass(frozen=True)
class WeightSlice:
    """The boxes that are sampled, in a fixed order, as one vector of `size` numbers. `label` is what was asked for."""

    label: str
    pieces: tuple[Piece, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> list[int]:
        """Numbers in each box."""
        return [int(torch.Size(shape).numel()) for shape in self.shapes]

    @property
    def size(self) -> int:
        """Numbers in all boxes."""
        return sum(self.sizes)

    @property
    def head(self) -> tuple[int, int] | None:
        """Layer and head that the label names ("1:6"), None for other slices."""
        match = re.fullmatch(r"(\d+):(\d+)", self.label.strip())
        return (int(match[1]), int(match[2])) if match else None

    def gather(self, tensors: Mapping[str, Tensor]) -> Float[Tensor, " d"]:
        """The sampled numbers, copied out of the model's tensors."""
        return torch.cat([piece.of(tensors[piece.name]).detach().reshape(-1) for piece in self.pieces])

    def split(self, w: Float[Tensor, " d"]) -> list[Tensor]:
        """The vector cut into the boxes, each in its own shape."""
        return [part.view(shape) for part, shape in zip(w.split(self.sizes), self.shapes, strict=True)]

    def scatter(self, w: Float[Tensor, " d"], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Fresh tensors with the sampled numbers replaced by `w` (differentiable in `w`); the given ones stay."""
        fresh: dict[str, Tensor] = {}
        for piece, part in zip(self.pieces, self.split(w), strict=True):
            base = tensors[piece.name].detach()
            if part.shape == base.shape:
                fresh[piece.name] = part
                continue
            whole = fresh.setdefault(piece.name, base.clone())
            whole[piece.ranges] = part
        return fresh


def weight_slice(model: nn.Module, weights: WeightSelection, *, biases: bool = True) -> WeightSlice:
    """The slice of `model` that `weights` names: "1:6" (a head), "layer 0", "embed", "pos_embed", "unembed", "all".

    A sequence of `Piece`s names any boxes of any tensors. Without `biases`, a head's b_Q, b_K and b_V stay fixed
    (whether the paper samples them is not known; its 32,864 numbers a head include them). A head never includes the
    output bias, which the heads share; with grouped queries it includes the keys and values its group shares.
    Raises ValueError for a name that the model does not have, with those that it has.
    """
    tensors = dict(model.named_parameters())
    if isinstance(weights, str):
        label, pieces = weights, _named(model, tensors, weights.strip(), biases)
    else:
        label, pieces = "explicit", tuple(weights)
    shapes = tuple(tuple(_box(piece, tensors).shape) for piece in pieces)
    found = WeightSlice(label, pieces, shapes)
    if found.size == 0:
        raise InputError(f"weights {label!r}: expected at least one number to sample, found none")
    _refuse_overlap(pieces, tensors)
    return found


def digest(model: nn.Module) -> str:
    """sha256 over names, shapes and bytes of every parameter and buffer."""
    total = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().cpu().contiguous()
        total.update(f"{name} {tuple(flat.shape)} {flat.dtype}\n".encode())
        total.update(flat.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()


def _box(piece: Piece, tensors: Mapping[str, Tensor]) -> Tensor:
    if piece.name not in tensors:
        close = [name for name in tensors if piece.name.rsplit(".", 1)[-1] in name][:5] or list(tensors)[:5]
        raise InputError(f"weights: the model has no parameter {piece.name!r}. Some that it has: {', '.join(close)}")
    tensor = tensors[piece.name]
    if len(piece.ranges) > tensor.ndim or any(part.step not in (None, 1) for part in piece.ranges):
        raise InputError(
            f"weights {piece.name}: expected at most {tensor.ndim} index ranges of step 1, found {piece.ranges}"
        )
    for part, length in zip(piece.ranges, tensor.shape, strict=False):
        if not 0 <= (part.start or 0) < (length if part.stop is None else part.stop) <= length:
            raise InputError(f"weights {piece.name}: range {part.start}:{part.stop} is not within 0:{length}")
    return piece.of(tensor)


def _refuse_overlap(pieces: Sequence[Piece], tensors: Mapping[str, Tensor]) -> None:
    for name in {piece.name for piece in pieces}:
        same = [piece for piece in pieces if piece.name == name]
        if len(same) > 1:
            count = torch.zeros(tensors[name].shape, dtype=torch.uint8)
            for piece in same:
                piece.of(count).add_(1)
            if count.max() > 1:
                raise InputError(f"weights {name}: the same numbers are named twice")


def _named(model: nn.Module, tensors: Mapping[str, Tensor], text: str, biases: bool) -> tuple[Piece, ...]:
    layout = _layout(model)
    if text == "all":
        return tuple(Piece(name) for name in tensors)
    if layout.kind == "none":
        raise InputError(
            f"weights {text!r}: expected 'all' or a sequence of Piece, since the layers and heads of a "
            f"{type(model).__name__} are not known by name. Its parameters: {', '.join(list(tensors)[:5])}"
        )
    if match := re.fullmatch(r"layer (\d+)", text):
        prefix = layout.layer.format(_within(int(match[1]), layout.n_layers, "layer"))
        return tuple(Piece(name) for name in tensors if name.startswith(prefix))
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        layer = _within(int(match[1]), layout.n_layers, "layer")
        head = _within(int(match[2]), layout.n_heads, "head")
        return _head(layout, tensors, layer, head, biases)
    if text in layout.parts:
        names = [name for name in layout.parts[text] if name in tensors]
        if names:
            return tuple(Piece(name) for name in names)
    raise InputError(
        f"weights {text!r}: expected a head such as '1:6', 'layer 0', 'all', {', '.join(map(repr, layout.parts))} "
        "or a sequence of Piece\n  Type: --weights 0:0"
    )


def _head(layout: _Layout, tensors: Mapping[str, Tensor], layer: int, head: int, biases: bool) -> tuple[Piece, ...]:
    boxes = _HEADS[layout.kind](layout, layout.layer.format(layer), head)
    missing = [box.name for box in boxes if box.name not in tensors and not _is_bias(box.name)]
    if missing:  # a head without its output matrix would be sampled without a word
        raise InputError(
            f"weights '{layer}:{head}': the heads of this kind of model are not known by name (it has no "
            f"{missing[0]}). Give a sequence of Piece, 'layer {layer}' or 'all'"
        )
    wanted = (box for box in boxes if box.name in tensors)
    return tuple(box for box in wanted if biases or tensors[box.name].ndim != layout.bias_ndim)


def _is_bias(name: str) -> bool:
    last = name.rsplit(".", 1)[-1]
    return last == "bias" or last.startswith("b_")


def _within(number: int, count: int, what: str) -> int:
    if number >= count:
        raise InputError(f"{what} {number}: the model has {count} ({what}s 0 to {count - 1})\n  Type: --weights 0:0")
    return number


@dataclass(frozen=True)
class _Layout:
    kind: str
    layer: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_model: int
    parts: Mapping[str, tuple[str, ...]]
    bias_ndim: int = 1


_PREFIXES = {"gpt2": "transformer.h.{}.", "gpt_neox": "gpt_neox.layers.{}."}
_PARTS = {
    "gpt2": {"embed": ("transformer.wte.weight",), "pos_embed": ("transformer.wpe.weight",)},
    "gpt_neox": {"embed": ("gpt_neox.embed_in.weight",), "unembed": ("lm_head.weight", "embed_out.weight")},
}
_SEPARATE_PARTS = {"embed": ("model.embed_tokens.weight",), "unembed": ("lm_head.weight",)}
_OWN_PARTS = {"embed": ("embed.W_E",), "pos_embed": ("pos_embed.W_pos",), "unembed": ("unembed.W_U", "unembed.b_U")}


def _layout(model: nn.Module) -> _Layout:
    config: Any = getattr(model, "config", None)
    if hasattr(config, "d_vocab"):  # the project's own model
        sizes = (config.n_layers, config.n_heads, config.n_heads, config.d_head, config.d_model)
        return _Layout("own", "blocks.{}.", *sizes, parts=_OWN_PARTS, bias_ndim=2)
    kind = getattr(config, "model_type", None)
    if kind is None:
        return _Layout("none", "", 0, 0, 0, 0, 0, parts={})
    heads, width = config.num_attention_heads, config.hidden_size
    size = getattr(config, "head_dim", None) or width // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    known = kind if kind in _PREFIXES else "separate"
    return _Layout(
        known,
        _PREFIXES.get(kind, "model.layers.{}."),
        config.num_hidden_layers,
        heads,
        shared,
        size,
        width,
        parts=_PARTS.get(kind, _SEPARATE_PARTS),
    )


def _span(index: int, size: int, offset: int = 0) -> slice:
    return slice(offset + index * size, offset + (index + 1) * size)


def _own(layout: _Layout, prefix: str, head: int) -> list[Piece]:
    names = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
    return [Piece(f"{prefix}attn.{name}", (slice(head, head + 1),)) for name in names]


def _gpt2(layout: _Layout, prefix: str, head: int) -> list[Piece]:
    spans = [_span(head, layout.d_head, offset=part * layout.d_model) for part in range(3)]
    weights = [Piece(f"{prefix}attn.c_attn.weight", (slice(None), span)) for span in spans]
    biases = [Piece(f"{prefix}attn.c_attn.bias", (span,)) for span in spans]
    return [*weights, Piece(f"{prefix}attn.c_proj.weight", (_span(head, layout.d_head),)), *biases]


def _gpt_neox(layout: _Layout, prefix: str, head: int) -> list[Piece]:
    rows = (_span(head, 3 * layout.d_head),)
    return [
        Piece(f"{prefix}attention.query_key_value.weight", rows),
        Piece(f"{prefix}attention.dense.weight", (slice(None), _span(head, layout.d_head))),
        Piece(f"{prefix}attention.query_key_value.bias", rows),
    ]


def _separate(layout: _Layout, prefix: str, head: int) -> list[Piece]:
    group = head * layout.n_kv_heads // layout.n_heads
    rows = [("q_proj", head), ("k_proj", group), ("v_proj", group)]
    kinds = ("weight", "bias")
    boxes = [
        Piece(f"{prefix}self_attn.{name}.{kind}", (_span(index, layout.d_head),))
        for kind in kinds
        for name, index in rows
    ]
    output = Piece(f"{prefix}self_attn.o_proj.weight", (slice(None), _span(head, layout.d_head)))
    return [*boxes[:3], output, *boxes[3:]]


_HEADS = {"own": _own, "gpt2": _gpt2, "gpt_neox": _gpt_neox, "separate": _separate, "none": lambda *_: []}
