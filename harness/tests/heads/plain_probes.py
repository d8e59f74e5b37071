"""One probe trained alone with autograd and torch's own Adam: what the batched training is held against."""

from __future__ import annotations

import torch
from circuit_claims.heads.probes import Probes, ProbeSettings, centre_and_scale_probes, draw_orders
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def train_one_probe(
    x: Float[Tensor, "n d_model"],
    index: Int[Tensor, " n"],
    seed: int,
    modulus: int,
    settings: ProbeSettings | None = None,
) -> Probes:
    """The probe of one seed and one modulus, step by step as written in `circuit_claims.heads.probes`."""
    settings = settings or ProbeSettings()
    trained, orders = draw_orders(len(x), [seed], settings)
    centre, scale = centre_and_scale_probes(x, trained, settings)
    rows, labels = (x[trained[0]] - centre) * scale, index[trained[0]] % modulus
    weights = x.new_zeros(modulus, x.shape[1]).requires_grad_()
    bias = x.new_zeros(modulus).requires_grad_()
    optimiser = torch.optim.Adam([weights, bias], lr=settings.learning_rate)
    for order in orders[0]:
        for places in order.split(settings.batch):
            loss = F.cross_entropy(rows[places] @ weights.T + bias, labels[places])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    found = weights.detach()[None], bias.detach()[None]
    return Probes((seed,), (modulus,), settings, *found, centre, scale, trained)
