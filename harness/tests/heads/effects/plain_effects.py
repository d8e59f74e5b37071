"""Ablation by brute force: one head at a time, whole forward passes, hooks and nothing clever.

What the fast ways are held against, in tests and in the benchmark. Everything is read out over the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from circuit_claims.heads.effects.forward import AblationModel
from circuit_claims.heads.effects.settings import Effect
from jaxtyping import Float, Int
from torch import Tensor, nn


def plain_logits(
    model: AblationModel,
    tokens: Int[Tensor, " pos"],
    layer: int,
    head: int,
    output: Float[Tensor, "pos_or_1 d_head"],
    effect: Effect,
) -> Float[Tensor, "pos d_vocab"]:
    """Logits when the head's output is replaced by `output`, and the direct, indirect or total effect of that is felt.

    Three passes: as the model is; with the head replaced; and, unless the total effect is wanted, one whose final
    residual is that of the first plus the change of the layer's attention write (direct), or that of the second less
    this change (indirect). No norm is frozen.
    """
    before = _seen(model, tokens, layer, _Nothing())
    after = _seen(model, tokens, layer, _Replaced(model, layer, head, output))
    if effect == "total":
        return after["logits"]
    # Below its own layer nothing changes, so that the layer's write changes by what this head alone writes.
    change = after["write"] - before["write"]
    final = before["final"] + change if effect == "direct" else after["final"] - change
    return _seen(model, tokens, layer, _Final(model, final))["logits"]


class _Nothing:
    def hooks(self) -> list[Any]:
        return []


class _Replaced:
    def __init__(self, model: AblationModel, layer: int, head: int, output: Tensor) -> None:
        self.model, self.layer, self.head, self.output = model, layer, head, output

    def hooks(self) -> list[Any]:
        width, head = self.model.dims.d_head, self.head

        def replace(module: nn.Module, args: tuple) -> tuple:
            z = args[0].clone()
            z[..., head * width : (head + 1) * width] = self.output
            return (z,)

        proj = self.model.layers[self.layer].get_submodule(self.model.names.attention_out)
        return [proj.register_forward_pre_hook(replace)]


class _Final:
    def __init__(self, model: AblationModel, final: Tensor) -> None:
        self.model, self.final = model, final

    def hooks(self) -> list[Any]:
        norm = self.model.network.base_model.get_submodule(self.model.names.final_norm)
        return [norm.register_forward_pre_hook(lambda module, args: (self.final,))]


@torch.inference_mode()
def _seen(model: AblationModel, tokens: Tensor, layer: int, change: Any) -> dict[str, Tensor]:
    """One whole pass: logits, the final residual, and what the layer's attention adds to the residual."""
    body, names, seen = model.network.base_model, model.names, {}

    def keeps(name: str) -> Callable[..., None]:
        return lambda module, args, output: seen.update({name: output})

    writer = model.layers[layer].get_submodule(names.head_post_norm or names.attention_out)
    last = body.get_submodule(names.final_norm)
    handles = change.hooks()
    handles.append(writer.register_forward_hook(keeps("write")))
    handles.append(last.register_forward_pre_hook(lambda module, args: seen.update({"final": args[0]})))
    try:
        seen["logits"] = model.network(tokens[None].to(model.device), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return seen
