"""One pass over a chunk of logits where several would read the same memory again: scale, exp, sum and inner product.

With numba present (it comes with tslearn) the pass is compiled; otherwise, on other devices and where exp would
overflow, the same is said in torch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.toy.potentials.readout import TINY, mass_of


def weigh(
    inputs: Float[Tensor, "n k"],
    kernel: Float[Tensor, "k vocab"],
    numerators: Float[Tensor, "n vocab"],
    scale: Float[Tensor, " n"],
    buffer: Float[Tensor, "n vocab"],
) -> tuple[Float[Tensor, "n vocab"], Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The mass exp(logits) in `buffer`, its sum, log-sum-exp, and its inner product with `numerators`.

    Logits are inputs kernel + scale numerators. Where the sum leaves 1e-30 to 1e30 the mass is that above the row
    maxima (ratios of sum, inner product and mass stay what they are).
    """
    run = compiled() if buffer.device.type == "cpu" else None
    if run is not None:
        torch.mm(inputs, kernel, out=buffer)
        total, inner = torch.empty_like(scale), torch.empty_like(scale)
        run(*(part.numpy() for part in (buffer, numerators, scale.contiguous(), total, inner)))
        low, high = total.aminmax()
        if low > TINY and high < 1 / TINY:
            return buffer, total, total.log(), inner
    mass, total, lse = mass_of(lambda: torch.mm(inputs, kernel, out=buffer).addcmul_(numerators, scale[:, None]))
    return mass, total, lse, (mass * numerators).sum(1)


@functools.cache
def compiled() -> Callable[..., None] | None:
    """The compiled pass, None where numba is missing."""
    try:
        import numba
    except ImportError:
        return None
    return numba.njit(fastmath=True, nogil=True)(_weigh_rows)


def _weigh_rows(mass, numerators, scale, total, inner):  # pragma: no cover (compiled)
    """exp by range reduction and the polynomial of Cephes' expf: 3e-7 relative, clipped to [-87, 88]."""
    f = np.float32
    rows, vocab = mass.shape
    power = np.empty(vocab, np.int32)
    for i in range(rows):
        row, known, a = mass[i], numerators[i], scale[i]
        for j in range(vocab):
            x = min(max(row[j] + a * known[j], f(-87.0)), f(88.0))
            n = np.floor(x * f(1.44269504) + f(0.5))
            r = x - n * f(0.693359375) + n * f(2.12194440e-4)
            p = f(1.9875691500e-4)
            p = p * r + f(1.3981999507e-3)
            p = p * r + f(8.3334519073e-3)
            p = p * r + f(4.1665795894e-2)
            p = p * r + f(1.6666665459e-1)
            p = p * r + f(5.0000001201e-1)
            row[j] = p * r * r + r + f(1.0)
            power[j] = (np.int32(n) + 127) << 23
        factor = power.view(np.float32)
        whole, product = f(0.0), f(0.0)
        for j in range(vocab):
            value = row[j] * factor[j]
            row[j] = value
            whole += value
            product += value * known[j]
        total[i], inner[i] = whole, product
