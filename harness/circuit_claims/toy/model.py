"""An attention-only transformer: Shortformer positions, LayerNorm, untied unembedding with bias.

The model of Hoogland et al. 2024 (arXiv 2402.02364) and Wang et al. 2025 (arXiv 2410.02984). Positions are added to
the inputs of queries and keys only, never to values or to the residual stream. Parameters carry the names and shapes
that `transformer-lens` 2.x gives them, in its order, so that one seed draws the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from circuit_claims.toy.attention import attend, project

if TYPE_CHECKING:
    from circuit_claims.llc.losses import Loss
    from circuit_claims.llc.slices import WeightSlice
    from circuit_claims.toy.potentials.head import HeadPotential


@dataclass(frozen=True)
class AttentionOnlyConfig:
    """Sizes of the model; the defaults are the paper's two-layer model of 3,355,016 parameters."""

    n_layers: int = 2
    d_model: int = 256
    n_heads: int = 8
    d_head: int = 32
    n_ctx: int = 1024
    d_vocab: int = 5000
    ln_eps: float = 1e-5
    init_std: float = 0.05


class LayerNorm(nn.Module):
    """LayerNorm with gain `w` and shift `b` over the last axis."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        self.eps = config.ln_eps
        self.w = nn.Parameter(torch.ones(config.d_model))
        self.b = nn.Parameter(torch.zeros(config.d_model))

    def forward(self, resid: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        """Centred and scaled to variance one, then gained and shifted."""
        return F.layer_norm(resid, self.w.shape, self.w, self.b, self.eps)


class Attention(nn.Module):
    """Causal attention with one matrix a head; `b_O` is shared by the heads."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        h, d, k = config.n_heads, config.d_model, config.d_head
        self.W_Q = nn.Parameter(torch.empty(h, d, k))
        self.W_O = nn.Parameter(torch.empty(h, k, d))
        self.b_Q = nn.Parameter(torch.zeros(h, k))
        self.b_O = nn.Parameter(torch.zeros(d))
        self.W_K = nn.Parameter(torch.empty(h, d, k))
        self.W_V = nn.Parameter(torch.empty(h, d, k))
        self.b_K = nn.Parameter(torch.zeros(h, k))
        self.b_V = nn.Parameter(torch.zeros(h, k))

    def mix(
        self, normed: Float[Tensor, "batch pos d"], positions: Float[Tensor, "pos d"]
    ) -> Float[Tensor, "batch head pos k"]:
        """What each head has gathered at each position, before W_O."""
        located = normed + positions
        return attend(
            project(located, self.W_Q, self.b_Q),
            project(located, self.W_K, self.b_K),
            project(normed, self.W_V, self.b_V),
        )

    def forward(
        self, normed: Float[Tensor, "batch pos d"], positions: Float[Tensor, "pos d"]
    ) -> Float[Tensor, "batch pos d"]:
        """The layer's write to the residual stream."""
        mixed = self.mix(normed, positions).transpose(1, 2).flatten(2)  # (batch, pos, head * k)
        return mixed @ self.W_O.flatten(0, 1) + self.b_O


class Block(nn.Module):
    """One layer: LayerNorm, attention, and the residual connection."""

    def __init__(self, config: AttentionOnlyConfig) -> None:
        super().__init__()
        self.ln1 = LayerNorm(config)
        self.attn = Attention(config)

    def forward(
        self, resid: Float[Tensor, "batch pos d"], positions: Float[Tensor, "pos d"]
    ) -> Float[Tensor, "batch pos d"]:
        """The residual stream after this layer."""
        return resid + self.attn(self.ln1(resid), positions)


class AttentionOnly(nn.Module):
    """Tokens to logits. Weights are undefined until `initialise` or `load_state_dict`.

    >>> model = AttentionOnly(AttentionOnlyConfig(n_layers=1, d_vocab=11, n_ctx=4)).initialise(seed=1)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: AttentionOnlyConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AttentionOnlyConfig()
        self.embed = nn.ParameterDict({"W_E": torch.empty(config.d_vocab, config.d_model)})
        self.pos_embed = nn.ParameterDict({"W_pos": torch.empty(config.n_ctx, config.d_model)})
        layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.blocks: Sequence[Block] = cast("Sequence[Block]", layers)  # so that each is known to be a Block
        self.ln_final = LayerNorm(config)
        self.unembed = nn.ParameterDict(
            {"W_U": torch.empty(config.d_model, config.d_vocab), "b_U": torch.zeros(config.d_vocab)}
        )

    def initialise(self, seed: int) -> AttentionOnly:
        """Draw every matrix from N(0, init_std^2), in the order of the parameters, by a generator of its own."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if ".W_" in name:
                    parameter.normal_(std=self.config.init_std, generator=generator)
        return self

    def positions(self, length: int) -> Float[Tensor, "pos d"]:
        """Positional rows for `length` tokens. Raises ValueError where the context is shorter."""
        if length > self.config.n_ctx:
            raise ValueError(f"sequence length: expected at most {self.config.n_ctx} tokens, found {length}")
        return self.pos_embed["W_pos"][:length]

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocab"]:
        """Logits in nats of the next token at each position."""
        positions = self.positions(tokens.shape[1])
        resid = self.embed["W_E"][tokens]
        for block in self.blocks:
            resid = block(resid, positions)
        return self.ln_final(resid) @ self.unembed["W_U"] + self.unembed["b_U"]

    def fast_potential(self, data: Any, where: WeightSlice, loss: Loss, **how: Any) -> HeadPotential | None:
        """The exact cached loss over one head's weights, None for any other slice or loss of one's own.

        What `circuit_claims.llc.refined.HasFastPotential` asks for; `how` is what `potential_of` takes.
        """
        from circuit_claims.toy.potentials.head import potential_of

        return potential_of(self, data, where, loss, **how)
