"""The vocabulary, read once: final LayerNorm folded into the unembedding, log-sum-exp in chunks that stay in cache.

For a residual r with centred part rc and scale a = 1 / sqrt(mean(rc^2) + eps), the logits are a rc W + b with
W = C diag(gain) W_U (C takes the mean over d away) and b = shift W_U + b_U. Cross-entropy is logsumexp less a part
linear in a rc, so its gradient in the logits is the softmax alone. exp is taken once and without a maximum, which is
exact as long as its sum is a number between 1e-30 and 1e30; where it is not, the row maximum is taken off first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from circuit_claims.toy.model import AttentionOnly

CHUNK = 128
TINY = 1e-30


@dataclass(frozen=True)
class FoldedReadout:
    """Folded readout: `weight` is d x vocab with columns of mean zero, `bias` one number a token.

    `coarse` is the weight in the dtype of the large products, None for fp32 (bfloat16 halves and more their time; its
    error is for the caller to state).
    """

    weight: Float[Tensor, "d vocab"]
    bias: Float[Tensor, " vocab"]
    eps: float
    coarse: Tensor | None = None

    @classmethod
    def of(cls, model: AttentionOnly, dtype: torch.dtype = torch.float32) -> FoldedReadout:
        """The readout of a model, detached from it."""
        with torch.no_grad():
            unembed = model.unembed["W_U"]
            weight = model.ln_final.w[:, None] * unembed
            weight = weight - weight.mean(0)
            bias = model.ln_final.b @ unembed + model.unembed["b_U"]
        return cls(weight, bias, model.ln_final.eps, None if dtype == torch.float32 else weight.to(dtype))

    def normalise(self, resid: Float[Tensor, "... d"]) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... 1"]]:
        """Centred residual and its inverse scale."""
        centred = resid - resid.mean(-1, keepdim=True)
        return centred, torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)

    def read(self, x: Float[Tensor, "n d"], out: Float[Tensor, "n vocab"]) -> Float[Tensor, "n vocab"]:
        """x W into `out`: the logits without their bias."""
        if self.coarse is None:
            return torch.mm(x, self.weight, out=out)
        return out.copy_(x.to(self.coarse.dtype) @ self.coarse)

    def pull(self, mass: Float[Tensor, "n vocab"]) -> Float[Tensor, "n d"]:
        """`mass` read back to the residual: mass W^T."""
        if self.coarse is None:
            return mass @ self.weight.T
        return (mass.to(self.coarse.dtype) @ self.coarse.T).float()


def mass_of(
    logits: Callable[[], Float[Tensor, "n vocab"]],
) -> tuple[Float[Tensor, "n vocab"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """exp of the logits that `logits()` writes, in their own memory, its sum over the vocabulary, and log-sum-exp.

    Where a sum overflows or vanishes, the logits are written anew and the mass is that above their row maxima.
    """
    mass = logits().exp_()
    total = mass.sum(1)
    low, high = total.aminmax()
    if low > TINY and high < 1 / TINY:
        return mass, total, total.log()
    mass = logits()
    top = mass.amax(1, keepdim=True)
    mass.sub_(top).exp_()
    total = mass.sum(1)
    return mass, total, total.log() + top[:, 0]


def buffers(readout: FoldedReadout, count: int) -> list[Tensor]:
    """`count` buffers of one chunk of logits each."""
    vocab = readout.bias.shape[0]
    return [torch.empty(CHUNK, vocab, dtype=torch.float32, device=readout.bias.device) for _ in range(count)]


def chunks(length: int) -> Iterator[slice]:
    """Token ranges of one chunk each."""
    return (slice(low, min(low + CHUNK, length)) for low in range(0, length, CHUNK))


class LogSumExp(torch.autograd.Function):
    """Log-sum-exp of the logits of normalised residuals, forward and backward in one pass over the vocabulary.

    Inputs: x (n x d) and the readout. The gradient exists for x alone.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, readout: FoldedReadout) -> Tensor:
        """Log-sum-exp, n numbers; the softmax's mean readout is kept for the backward pass."""
        (buffer,) = buffers(readout, 1)
        out, mean = x.new_empty(len(x)), torch.empty_like(x)
        for span in chunks(len(x)):
            part = x[span]

            def logits(part: Tensor = part) -> Tensor:
                return readout.read(part, buffer[: len(part)]).add_(readout.bias)

            mass, total, out[span] = mass_of(logits)
            if ctx.needs_input_grad[0]:
                mean[span] = readout.pull(mass) / total[:, None]
        ctx.save_for_backward(mean)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """upstream times the softmax's mean readout."""
        (mean,) = ctx.saved_tensors
        return upstream[:, None] * mean, None
