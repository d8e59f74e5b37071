"""One sparse autoencoder trained alone, by autograd and torch's own Adam: what the batched training is held against."""

from __future__ import annotations

import torch
from circuit_claims.heads.autoencoders.training import (
    Autoencoders,
    AutoencoderSettings,
    Frame,
    centre_and_scale,
    draw_runs,
)
from jaxtyping import Float
from torch import Tensor


def train_one(x: Float[Tensor, "n d_model"], seed: int, settings: AutoencoderSettings | None = None) -> Autoencoders:
    """The autoencoder of one seed, step by step as written in `circuit_claims.heads.autoencoders.training`."""
    settings = settings or AutoencoderSettings()
    frame = Frame.of(x, settings)
    inside = frame.inside(x)
    draws = draw_runs(inside, [seed], settings)
    centre, scale = centre_and_scale(inside, draws.trained, settings)
    rows = (inside[draws.trained[0]] - centre) * scale  # (n_train, d)
    decoder = draws.decoder[0].clone().requires_grad_()
    encoder = decoder if settings.tied else draws.decoder[0].clone().requires_grad_()
    bias = x.new_zeros(settings.features).requires_grad_()
    shift = x.new_zeros(inside.shape[1]).requires_grad_()
    parameters = [decoder, bias, shift] if settings.tied else [encoder, decoder, bias, shift]
    optimiser = torch.optim.Adam(parameters, lr=settings.learning_rate)
    for order in draws.orders[0]:
        for places in order.split(settings.batch):
            batch = rows[places]
            codes = (batch @ encoder.T + bias).relu()
            wrong = codes @ decoder + shift - batch
            loss = wrong.square().sum(1).mean() + settings.l1 * codes.sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if settings.unit_decoder:
                with torch.no_grad():
                    decoder /= decoder.norm(dim=1, keepdim=True)
    encoder, decoder, bias, shift = (part.detach()[None] for part in (encoder, decoder, bias, shift))
    alive = ((rows[None] @ encoder.transpose(1, 2) + bias[:, None]) > 0).any(1)
    found = Autoencoders((seed,), settings, encoder, decoder, bias, shift, centre, scale, draws.trained, alive)
    return frame.back(found)
