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
            return torch.mm(x, self.augmented, out=out)
        return out.copy_(x.to(self.dtype) @ self.augmented)

    def pull(self, mass: Float[Tensor, "n vocab"]) -> Float[Tensor, "n d"]:
        """`mass` read back to the residual: mass W^T."""
        if self.dtype == torch.float32:
            return mass @ self.weight.T
        return (mass.to(self.dtype) @ self.augmented[:-2].T).float()


def mass_above(
    logits: Float[Tensor, "n vocab"], readers: Float[Tensor, "k vocab"], shift: Float[Tensor, " n"], out: Tensor
) -> tuple[Float[Tensor, "n vocab"], Float[Tensor, "n k"], Float[Tensor, " n"]]:
    """exp of logits that are given less `shift`, what `readers` see of it (the last of them all ones), and the shift.

    The shift is a guess (the log-sum-exp of w*): where it is so far off that the sum overflows or vanishes, the row
    maximum is added to it for the whole chunk, and `logits` is changed accordingly.
    """
    mass = torch.exp(logits, out=out)
    read = mass @ readers.T
    low, high = read[:, -1].aminmax()
    if not (low > TINY and high < 1 / TINY):
        top = logits.amax(1)
        logits -= top[:, None]
        mass = torch.exp(logits, out=out)
        read, shift = mass @ readers.T, shift + top
    return mass, read, shift


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
        ones = torch.ones_like(readout.bias)[None]
        out, mean = torch.empty_like(guess), torch.empty_like(x)
        for span in chunks(len(x)):
            count = len(x[span])
            logits = readout.logits(x[span], guess[span], first[:count])
            mass, read, shift = mass_above(logits, ones, guess[span], second[:count])
            out[span] = shift + read[:, -1].log()
            if ctx.needs_input_grad[0]:
                mean[span] = readout.pull(mass) / read[:, -1:]
        ctx.save_for_backward(mean)
        return out

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:
        """upstream times the softmax's mean readout."""
        (mean,) = ctx.saved_tensors
        return upstream[:, None] * mean, None, None
