"""Losses of language models: the next token, and the divergence from another model's predictions.

Both are log-sum-exp of the logits less a part that is linear in them, which is what makes the cached path cheap.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from circuit_claims.errors import InputError

Forward = Callable[..., Any]
Loss = Callable[[Forward, Any], Tensor]


def logits_of(output: Any) -> Float[Tensor, "batch pos vocab"]:
    """Logits of a model's output: a tensor, or an object that has them."""
    return output if isinstance(output, Tensor) else output.logits


@dataclass(frozen=True)
class NextToken:
    """Mean cross-entropy of the next token, one number a sequence, in nats."""

    name: str = "next token"

    def __call__(self, forward: Forward, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, " batch"]:
        """The model sees all tokens but the last, and answers for all but the first."""
        logits = logits_of(forward(tokens[:, :-1]))
        losses = F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
        return losses.view(len(tokens), -1).mean(1)

    def linear_part(
        self, tokens: Int[Tensor, "batch pos"], directions: Float[Tensor, "d vocab"], bias: Float[Tensor, " vocab"]
    ) -> tuple[Float[Tensor, "batch pos d"], Float[Tensor, "batch pos"]]:
        """The target's logit as `e . x + t` for a normalised residual x read by `directions` and `bias`."""
        targets = tokens[:, 1:]
        return directions.T[targets], bias[targets]


@dataclass(frozen=True)
class DivergenceFrom:
    """Mean over positions of KL(reference || model): the paper's third variant of the loss, in nats.

    `reference` is a model with the same vocabulary, such as the one-layer attention-only model.
    """

    reference: nn.Module
    name: str = "divergence from a reference model"

    @torch.no_grad()
    def _log_probabilities(self, tokens: Tensor) -> Float[Tensor, "batch pos vocab"]:
        return logits_of(self.reference(tokens[:, :-1])).float().log_softmax(-1)

    def __call__(self, forward: Forward, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, " batch"]:
        """One number a sequence."""
        log_p = self._log_probabilities(tokens)
        log_q = logits_of(forward(tokens[:, :-1])).float().log_softmax(-1)
        return (log_p.exp() * (log_p - log_q)).sum(-1).mean(1)

    def linear_part(
        self, tokens: Int[Tensor, "batch pos"], directions: Float[Tensor, "d vocab"], bias: Float[Tensor, " vocab"]
    ) -> tuple[Float[Tensor, "batch pos d"], Float[Tensor, "batch pos"]]:
        """The reference's mean logit and its entropy, so that KL = log-sum-exp - e . x - t."""
        log_p = self._log_probabilities(tokens)
        p = log_p.exp()
        return p @ directions.T, p @ bias - (p * log_p).sum(-1)


def named_loss(loss: str | Loss) -> Loss:
    """The loss that a name stands for; a function is itself. Raises ValueError for a name that is not known."""
    if callable(loss):
        return loss
    if loss in ("next token", "next_token", "cross-entropy"):
        return NextToken()
    raise InputError(f"loss {loss!r}: expected 'next token', DivergenceFrom(model) or a function of (forward, batch)")


def loss_of_knowing_nothing(loss: Loss, model: nn.Module, data: Any) -> float | None:
    """ln V for the built-in losses (for the divergence, an upper bound), None for others."""
    if not isinstance(loss, (NextToken, DivergenceFrom)):
        return None
    with torch.no_grad():
        return math.log(logits_of(model(data[:1, :2])).shape[-1])
