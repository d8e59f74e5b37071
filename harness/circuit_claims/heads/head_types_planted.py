"""Attention-only weights in which each head's role is known by construction: positive controls and tests.

The residual stream is cut into four blocks of `VOCAB` numbers: the token itself, the token before it, what is to be
said next, and the position. A planted head reads some blocks and writes one; every other head is small noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

VOCAB = 32
OPENERS, CLOSERS, BOS = (24, 25, 26), (27, 28, 29), 31
STRINGS = (*(f" w{index}" for index in range(24)), "(", "[", " {", ")", "]", "}", ".", "<bos>")
CONFIG = AttentionOnlyConfig(d_model=4 * VOCAB, n_heads=8, d_head=VOCAB, n_ctx=132, d_vocab=VOCAB)
TOKEN, PREVIOUS, SAY, PLACE = (slice(block * VOCAB, (block + 1) * VOCAB) for block in range(4))
SHARP = 12.0
WIDTH, SHARPER = 128, 24.0  # of `planted_induction`: its codes are random, not exact
ROLES = ("previous-token", "current-token", "induction", "bracket", "skip n-gram")
PAPER_LIKE = {"0:1": "previous-token", "0:4": "previous-token", "0:5": "current-token", "0:3": "bracket",
              "0:2": "skip n-gram", "1:6": "induction", "1:7": "induction"}  # fmt: skip


def planted_types_model(roles: Mapping[str, str], *, noise: float = 0.01, seed: int = 0) -> AttentionOnly:
    """A two-layer model whose heads ("1:6") have the given roles, one of `ROLES`; the others are noise.

    An induction head needs a previous-token head in the layer before. Raises ValueError for an unknown role.

    >>> planted_types_model({"0:1": "previous-token", "1:6": "induction"}).config.n_layers
    2
    """
    unknown = sorted(set(roles.values()) - set(ROLES))
    if unknown:
        raise ValueError(f"role of a planted head: expected one of {', '.join(ROLES)}, found {', '.join(unknown)}")
    model = AttentionOnly(CONFIG).initialise(seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name, parameter in model.named_parameters():
            if ".W_" in name:
                parameter.mul_(noise / CONFIG.init_std)
        model.embed["W_E"].zero_()[:, TOKEN] = torch.eye(VOCAB)
        model.pos_embed["W_pos"].zero_()[:, PLACE] = waves(torch.arange(CONFIG.n_ctx))
        model.unembed["W_U"].zero_()[SAY] = 0.6 * torch.eye(VOCAB)
        for head, role in roles.items():
            layer, index = map(int, head.split(":"))
            _plant(model.blocks[layer].attn, index, role)
    return model


def waves(position: Float[Tensor, " pos"]) -> Float[Tensor, "pos code"]:
    """Positions as cosines and sines: codes of two positions have product VOCAB / 2 if equal, and little if not."""
    angles = position[:, None] * math.pi * (torch.arange(VOCAB // 2) + 0.5) / (VOCAB // 2)
    return torch.cat([angles.cos(), angles.sin()], -1)


def _shift() -> Float[Tensor, "code code"]:
    """The matrix that turns the code of a position into that of the next one."""
    return _turn(math.pi * (torch.arange(VOCAB // 2) + 0.5) / (VOCAB // 2))


def _plant(attn: Any, head: int, role: str) -> None:
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        getattr(attn, name)[head].zero_()
    query, key, value, output = (getattr(attn, name)[head] for name in ("W_Q", "W_K", "W_V", "W_O"))
    one, root = torch.eye(VOCAB), math.sqrt(VOCAB)
    value[TOKEN], output[:, SAY] = one / root, 2.0 * one
    if role in ("previous-token", "current-token"):
        query[PLACE] = one * (2 * SHARP / VOCAB * root)
        key[PLACE] = _shift() if role == "previous-token" else one
        output.zero_()[:, PREVIOUS if role == "previous-token" else SAY] = one
    elif role == "induction":
        query[TOKEN], key[PREVIOUS] = one, one
    elif role == "bracket":
        attn.b_Q[head, 0] = SHARP
        key[TOKEN.start + torch.tensor(OPENERS), 0] = 0.5
        value.zero_()[torch.tensor(OPENERS) + TOKEN.start, torch.tensor(CLOSERS)] = 1 / root
    else:
        query[TOKEN], key[TOKEN] = one.roll(1, 1), 0.8 * one  # a token looks for the one with the next id
        value[TOKEN] = one.roll(5, 1) / root


def planted_induction(
    d_vocab: int, n_ctx: int = 256, *, previous: int = 1, induction: int = 6, seed: int = 0
) -> AttentionOnly:
    """A two-layer model of any vocabulary whose head 1:`induction` continues what was said before: a positive control.

    Head 0:`previous` passes each token on to the next position; the other heads are small noise. Tokens and positions
    have random codes of `WIDTH` numbers, which for 100,000 tokens and 1,000 positions are still told apart.

    >>> from circuit_claims.heads.head_types import prefix_matching_scores
    >>> from circuit_claims.heads.network import network_of
    >>> network = network_of(planted_induction(d_vocab=5000))
    >>> tokens = network.repeated_tokens(2, 50, torch.Generator().manual_seed(0))
    >>> scores = prefix_matching_scores(network.patterns(tokens), period=50).mean(0)
    >>> bool(scores[1, 6] > 0.9), bool(scores[0].max() < 0.1)
    (True, True)
    """
    config = AttentionOnlyConfig(d_model=4 * WIDTH, n_heads=8, d_head=WIDTH, n_ctx=n_ctx, d_vocab=d_vocab)
    model = AttentionOnly(config).initialise(seed).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(d_vocab, WIDTH, generator=generator)
    codes /= codes.norm(dim=-1, keepdim=True)
    angles = math.pi * torch.rand(WIDTH // 2, generator=generator)
    turned = torch.arange(n_ctx)[:, None] * angles
    token, before, say, place = (slice(block * WIDTH, (block + 1) * WIDTH) for block in range(4))
    for name, parameter in model.named_parameters():
        if ".W_" in name:
            parameter.mul_(0.002 / config.init_std)
    model.embed["W_E"].zero_()[:, token] = codes
    model.pos_embed["W_pos"].zero_()[:, place] = torch.cat([turned.cos(), turned.sin()], -1)
    model.unembed["W_U"].zero_()[say] = 4.0 * codes.T
    one, root, (below, above) = torch.eye(WIDTH), math.sqrt(WIDTH), model.blocks
    first, second = _cleared(below.attn, previous), _cleared(above.attn, induction)
    first.W_V[previous, token] = second.W_V[induction, token] = one / root
    first.W_Q[previous, place] = one * (2 * SHARPER / WIDTH * root)
    first.W_K[previous, place] = _turn(angles)
    first.W_O[previous][:, before] = one
    second.W_Q[induction, token], second.W_K[induction, before] = 2.0 * one, one
    second.W_O[induction][:, say] = 2.0 * one
    return model


def _cleared(attn: Any, head: int) -> Any:
    """The attention with nothing left of one head."""
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        getattr(attn, name)[head].zero_()
    return attn


def _turn(angles: Float[Tensor, " pair"]) -> Float[Tensor, "code code"]:
    """The matrix that turns the code of a position into that of the next one."""
    cosine, sine = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([cosine, sine], 1), torch.cat([-sine, cosine], 1)], 0)
