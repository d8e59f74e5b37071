"""The vocabulary, read once: final LayerNorm folded into the unembedding, log-sum-exp in chunks that stay in cache.

For a residual r with centred part rc and scale a = 1 / sqrt(mean(rc^2) + eps), the logits are a rc W + b with
W = C diag(gain) W_U (C takes the mean over d away) and b = shift W_U + b_U. Cross-entropy is logsumexp less a part
linear in a rc, so its gradient in the logits is the softmax alone, and exp is taken once, below a known shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from harness.attention_only.model import AttentionOnly

CHUNK = 128
TINY = 1e-30


@dataclass(frozen=True)
class Readout:
    """Folded readout: `weight` is d x vocab with columns of mean zero, `bias` one number a token.

    `augmented` stacks weight, bias and ones, so that one product gives logits less a shift. `dtype` is that of the
    large products (bfloat16 halves and more their time; its error is for the caller to state).
    """

    weight: Float[Tensor, "d vocab"]
    bias: Float[Tensor, " vocab"]
    eps: float
    dtype: torch.dtype
    augmented: Float[Tensor, "d2 vocab"]

    @classmethod
    def of(cls, model: AttentionOnly, dtype: torch.dtype = torch.float32) -> Readout:
        """The readout of a model, detached from it."""
        with torch.no_grad():
            unembed = model.unembed["W_U"]
            weight = model.ln_final.w[:, None] * unembed
            weight = weight - weight.mean(0)
            bias = model.ln_final.b @ unembed + model.unembed["b_U"]
            augmented = torch.cat([weight, bias[None], torch.ones_like(bias)[None]])
        return cls(weight, bias, model.ln_final.eps, dtype, augmented.to(dtype))

    def normalise(self, resid: Float[Tensor, "... d"]) -> tuple[Float[Tensor, "... d"], Float[Tensor, "... 1"]]:
        """Centred residual and its inverse scale."""
        centred = resid - resid.mean(-1, keepdim=True)
        return centred, torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)

    def logits(self, x: Float[Tensor, "n d"], shift: Float[Tensor, " n"], out: Float[Tensor, "n vocab"]) -> Tensor:
        """Logits of normalised residuals less `shift`, into `out`."""
        x = torch.cat([x, torch.ones_like(shift)[:, None], -shift[:, None]], 1)
        if self.dtype == torch.float32:
            return torch.mm(x, self.augmented, out=out[: len(x)])
        return out[: len(x)].copy_(x.to(self.dtype) @ self.augmented)

    def pull(self, mass: Float[Tensor, "n vocab"]) -> Float[Tensor, "n d"]:
        """`mass` read back to the residual: mass W^T."""
        if self.dtype == torch.float32:
            return mass @ self.weight.T
        return (mass.to(self.dtype) @ self.augmented[:-2].T).float()


def exp_above(
    logits: Float[Tensor, "n vocab"], shift: Float[Tensor, " n"], out: Float[Tensor, "n vocab"]
) -> tuple[Float[Tensor, "n vocab"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """exp of logits that are given less `shift`, its sum, and log-sum-exp; into `out`.

    The shift is a guess (the log-sum-exp of w*): where it is so far off that the sum overflows or vanishes, the row
    maximum takes its place in that chunk, and `logits` is changed accordingly.
    """
    mass = torch.exp(logits, out=out[: len(logits)])
    total = mass.sum(1)
    low, high = total.aminmax()
    if not (low > TINY and high < 1 / TINY):
        top = logits.amax(1)
        logits -= top[:, None]
        shift = shift + top
        mass = torch.exp(logits, out=out[: len(logits)])
        total = mass.sum(1)
    return mass, total, shift + total.log()


def buffers(readout: Readout, count: int) -> list[Tensor]:
    """`count` buffers of one chunk of logits each."""
    vocab = readout.bias.shape[0]
    return [torch.empty(CHUNK, vocab, dtype=torch.float32, device=readout.bias.device) for _ in range(count)]


def chunks(length: int) -> Iterator[slice]:
    """Token ranges of one chunk each."""
    return (slice(low, min(low + CHUNK, length)) for low in range(0, length, CHUNK))


class LogSumExp(torch.autograd.Function):
    """Log-sum-exp of the logits of normalised residuals, forward and backward in one pass over the vocabulary.

    Inputs: x (n x d), a guess of the result (n), the readout. The gradient exists for x alone.
    """

    @staticmethod
    def forward(ctx, x: Tensor, guess: Tensor, readout: Readout) -> Tensor:
        """Log-sum-exp, n numbers; the softmax's mean readout is kept for the backward pass."""
        first, second = buffers(readout, 2)
        out, mean = torch.empty_like(guess), torch.empty_like(x)
        for span in chunks(len(x)):
            logits = readout.logits(x[span], guess[span], first)
            mass, total, out[span] = exp_above(logits, guess[span], second)
            if ctx.needs_input_grad[0]:
                mean[span] = readout.pull(mass) / total[:, None]
        ctx.save_for_backward(mean)
        return out

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:
        """upstream times the softmax's mean readout."""
        (mean,) = ctx.saved_tensors
        return upstream[:, None] * mean, None, None
