"""Sparse autoencoders on what a head reads, many seeds in one training (Gould et al. 2024, section 3).

    code  h = relu(W_enc x + b_enc)          reconstruction  y = W_dec h + b_dec
    loss  mean over tokens of |x - y|^2 + l1 |h|_1

The paper gives D = 512, l1 = 0.3, batch 64, 100 epochs and a 90/10 split. What it does not give is stated in
`AutoencoderSettings`, each with its other values, so that the sensitivity of a figure can be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.heads.autoencoders.step import adam_scalars, autoencoder_pass, over_seeds

# After so many steps without a gradient Adam moves a row by less than 3e-7 in all (1e-3 x 10 x 0.9^100): it sleeps.
ASLEEP = 100
# Rows are only packed anew when that saves a fifth of the work.
WORTH_PACKING = 0.8
# Parameters, moments and copies of one training are kept under this; more seeds are trained in turns.
MOST_BYTES = 1 << 30

VectorScale = Literal["unit mean norm", "root d_model", "as is"]
Basis = Literal["span", "model"]


@dataclass(frozen=True)
class AutoencoderSettings:
    """How an autoencoder is trained. `features` to `held_out` are the paper's, the rest it does not give.

    `scale`: vectors are divided so that their mean length is 1, which makes `l1` mean the same for every model (as
    "root d_model": so that it is the root of d_model; "as is": not at all). `centre`: the mean of the training vectors
    is taken off first. `tied`: the encoder is the decoder's transpose. `unit_decoder`: decoder rows are put back to
    length 1 after each step, so that a code's size counts and the penalty cannot be dodged. `basis`: fewer vectors
    than dimensions leave directions that no vector has; in the model's basis encoder and decoder start with a random
    part there which training hardly touches, in a basis of the vectors' span (turned at random, so that no coordinate
    is special to Adam) they have none. Always: no bias taken off before the encoder, Adam with (0.9, 0.999), encoder
    started as the decoder's transpose, biases at zero.
    """

    features: int = 512
    l1: float = 0.3
    batch: int = 64
    epochs: int = 100
    held_out: float = 0.1
    learning_rate: float = 3e-3
    scale: VectorScale = "unit mean norm"
    centre: bool = True
    tied: bool = False
    unit_decoder: bool = True
    basis: Basis = "span"


@dataclass(frozen=True)
class Draws:
    """All that chance decides in the training of each seed: the split, the first decoder, the order of every epoch.

    Each seed has a generator of its own, so a run does not depend on which others are trained beside it.
    """

    trained: Int[Tensor, "seed n_train"]
    decoder: Float[Tensor, "seed feature d_model"]
    orders: Int[Tensor, "seed epoch n_train"]


@dataclass(frozen=True)
class Autoencoders:
    """Trained autoencoders, one a seed, and how to go from a head's input to their space and back.

    Rows of `encoder` and `decoder` are features. Codes are in scaled units: x = centre[seed] + y / scale[seed].
    `alive`: features that some training token activates; the others start and stay at random.
    """

    seeds: tuple[int, ...]
    settings: AutoencoderSettings
    encoder: Float[Tensor, "seed feature d_model"]
    decoder: Float[Tensor, "seed feature d_model"]
    encoder_bias: Float[Tensor, "seed feature"]
    decoder_bias: Float[Tensor, "seed d_model"]
    centre: Float[Tensor, "seed d_model"]
    scale: Float[Tensor, " seed"]
    trained: Int[Tensor, "seed n_train"] = field(repr=False)
    alive: Bool[Tensor, "seed feature"] = field(repr=False)

    def codes(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "seed n feature"]:
        """How strongly each feature of each run is active on vectors in the model's own units."""
        inside = self.inside(x)
        raw = torch.baddbmm(self.encoder_bias[:, None], inside, self.encoder.transpose(1, 2))
        return raw.relu_()

    def inside(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "seed n d_model"]:
        """Vectors as each run sees them: centred and scaled."""
        return (x[None] - self.centre[:, None]) * self.scale[:, None, None]

    def reconstruct(self, codes: Float[Tensor, "seed n feature"]) -> Float[Tensor, "seed n d_model"]:
        """Vectors in the model's units, from codes."""
        inside = torch.baddbmm(self.decoder_bias[:, None], codes, self.decoder)
        return inside / self.scale[:, None, None] + self.centre[:, None]

    def features(self) -> Float[Tensor, "seed feature d_model"]:
        """What one unit of each code adds to a reconstruction, in the model's units."""
        return self.decoder / self.scale[:, None, None]


def draw_runs(x: Float[Tensor, "n d_model"], seeds: Sequence[int], settings: AutoencoderSettings) -> Draws:
    """Everything random about the training of `seeds` on the rows of `x`."""
    n, d_model = x.shape
    trained, decoders, orders = [], [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        kept = torch.randperm(n, generator=generator)[: n - round(n * settings.held_out)]
        decoder = torch.randn(settings.features, d_model, generator=generator)
        trained.append(kept)
        decoders.append((decoder / decoder.norm(dim=1, keepdim=True)).to(x.dtype))
        orders.append(torch.stack([torch.randperm(len(kept), generator=generator) for _ in range(settings.epochs)]))
    return Draws(torch.stack(trained), torch.stack(decoders), torch.stack(orders))


@dataclass(frozen=True)
class Frame:
    """The coordinates that runs are trained in: `basis` holds orthonormal columns, None for the model's own."""

    origin: Float[Tensor, " d_model"]
    basis: Float[Tensor, "d_model rank"] | None

    @classmethod
    def of(cls, x: Float[Tensor, "n d_model"], settings: AutoencoderSettings) -> Frame:
        """The span of the vectors (less their mean where they are centred), turned at random; see the settings."""
        exact = x.double()  # in single precision rounding of the mean would look like one more direction
        origin = exact.mean(0) if settings.centre else torch.zeros_like(exact[0])
        if settings.basis == "model" or len(x) > x.shape[1]:
            return cls(torch.zeros_like(x[0]), None)
        _, sizes, rows = torch.linalg.svd(exact - origin, full_matrices=False)
        rank = int((sizes > 1e-6 * sizes[0]).sum())
        turn = torch.randn(rank, rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return cls(origin.to(x.dtype), (rows[:rank].T @ torch.linalg.qr(turn).Q).to(x.dtype))

    def inside(self, x: Float[Tensor, "n d_model"]) -> Float[Tensor, "n rank"]:
        """Vectors in these coordinates."""
        return x if self.basis is None else (x - self.origin) @ self.basis

    def back(self, runs: Autoencoders) -> Autoencoders:
        """Runs trained in these coordinates, in those of the model."""
        if self.basis is None:
            return runs
        out = {name: getattr(runs, name) @ self.basis.T for name in ("encoder", "decoder", "decoder_bias")}
        return replace(runs, centre=runs.centre @ self.basis.T + self.origin, **out)


def centre_and_scale(
    x: Float[Tensor, "n d_model"], trained: Int[Tensor, "seed n_train"], settings: AutoencoderSettings
) -> tuple[Float[Tensor, "seed d_model"], Float[Tensor, " seed"]]:
    """Centre and scale of each run, from its training vectors alone."""
    chosen = x[trained]  # (seed, n_train, d_model)
    centre = chosen.mean(1) if settings.centre else x.new_zeros(len(trained), x.shape[1])
    if settings.scale == "as is":
        return centre, x.new_ones(len(trained))
    length = (chosen - centre[:, None]).norm(dim=2).mean(1)
    wanted = 1.0 if settings.scale == "unit mean norm" else x.shape[1] ** 0.5
    return centre, wanted / length


def train_autoencoders(
    x: Float[Tensor, "n d_model"],
    seeds: Sequence[int] = tuple(range(100)),
    settings: AutoencoderSettings | None = None,
) -> Autoencoders:
    """Train one autoencoder for each seed on the rows of `x`, all at once.

    The same as training each alone (`autoencoder_plain.train_one`) to 1e-4 in every parameter. Raises ValueError for
    fewer than 10 vectors or no seed.
    """
    settings = settings or AutoencoderSettings()
    if len(x) < 10 or not seeds:
        raise ValueError(
            f"training autoencoders: expected at least 10 vectors and one seed\n  found {len(x)} and {len(seeds)}"
        )
    frame = Frame.of(x.detach(), settings)
    inside = frame.inside(x.detach())
    each = inside.element_size() * settings.features * inside.shape[1] * 2 * 4
    at_once = max(MOST_BYTES // each, 1)
    parts = [_train(inside, seeds[start : start + at_once], settings) for start in range(0, len(seeds), at_once)]
    names = ("encoder", "decoder", "encoder_bias", "decoder_bias", "centre", "scale", "trained", "alive")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return frame.back(replace(parts[0], seeds=tuple(seeds), **joined))


def _train(x: Tensor, seeds: Sequence[int], settings: AutoencoderSettings) -> Autoencoders:
    draws = draw_runs(x, seeds, settings)
    centre, scale = centre_and_scale(x, draws.trained, settings)
    rows = (x[draws.trained] - centre[:, None]) * scale[:, None, None]  # (seed, n_train, d_model)
    state = _State.start(draws.decoder)
    step = 0
    for epoch in range(settings.epochs):
        for places in draws.orders[:, epoch].split(settings.batch, dim=1):
            step += 1
            batch = gather_rows(rows, places)
            state.step(batch, settings, step)
        state.pack()
    state.write_back()
    raw = torch.baddbmm(state.all_bias[:, None], rows, state.all_weights[:, 0].transpose(1, 2))
    return Autoencoders(
        seeds=tuple(seeds),
        settings=settings,
        encoder=state.all_weights[:, 0],
        decoder=state.all_weights[:, 1],
        encoder_bias=state.all_bias,
        decoder_bias=state.shift[0],
        centre=centre,
        scale=scale,
        trained=draws.trained,
        alive=(raw > 0).any(1),
    )


def gather_rows(rows: Float[Tensor, "seed n d"], places: Int[Tensor, "seed b"]) -> Float[Tensor, "seed b d"]:
    """Each seed's rows at its own places: one gather of whole rows."""
    first = torch.arange(len(rows))[:, None] * rows.shape[1]
    return rows.flatten(0, 1).index_select(0, (places + first).flatten()).unflatten(0, places.shape)


class _State:
    """Parameters and moments of all runs; rows that have fallen asleep are left out of the work."""

    def __init__(self, weights: Tensor, bias: Tensor, width: int) -> None:
        self.all_weights, self.all_bias = weights, bias
        seeds, features = bias.shape
        self.awake = torch.arange(features).repeat(seeds, 1)  # which features the packed rows are
        self.weights = [weights, torch.zeros_like(weights), torch.zeros_like(weights)]
        self.bias = [bias, torch.zeros_like(bias), torch.zeros_like(bias)]
        self.shift = [weights.new_zeros(seeds, width) for _ in range(3)]
        self.idle = torch.zeros(seeds, features, dtype=torch.int32)
        self._rooms: dict[tuple[int, ...], Tensor] = {}

    @classmethod
    def start(cls, decoder: Float[Tensor, "seed feature d_model"]) -> _State:
        weights = torch.stack([decoder, decoder], dim=1)
        return cls(weights, decoder.new_zeros(decoder.shape[:2]), decoder.shape[2])

    def step(self, batch: Float[Tensor, "seed b d_model"], settings: AutoencoderSettings, step: int) -> None:
        """One Adam step of every run on its own batch."""
        import numpy as np

        raw = torch.bmm(self.weights[0][:, 0], batch.transpose(1, 2), out=self._room(batch))  # (seed, feature, b)
        dtype, count = raw.numpy().dtype, batch.shape[1]
        parts = (batch, raw, *self.weights, *self.bias, *self.shift, self.idle)
        over_seeds(
            autoencoder_pass,
            len(batch),
            *(part.numpy() for part in parts),
            np.array([settings.l1 / count, 2 / count, 1], dtype=dtype),
            settings.unit_decoder,
            settings.tied,
            adam_scalars(settings.learning_rate, step, dtype),
        )

    def _room(self, batch: Tensor) -> Tensor:
        # Fresh memory at each step would cost more than the product that fills it.
        shape = (len(batch), self.weights[0].shape[2], batch.shape[1])
        if shape not in self._rooms:
            self._rooms[shape] = batch.new_empty(shape)
        return self._rooms[shape]

    def pack(self) -> None:
        """Keep the rows that may still move, the same number for every run.

        Without a bias before the encoder a feature that no training token activates can never be activated again.
        """
        wanted = int((self.idle < ASLEEP).sum(1).max())
        if wanted > WORTH_PACKING * self.idle.shape[1]:
            return
        self.write_back()
        self._rooms.clear()
        rows = self.idle.argsort(dim=1, stable=True)[:, : max(wanted, 1)]
        self.awake, self.idle = (
            torch.take_along_dim(part, rows, dim=1).contiguous() for part in (self.awake, self.idle)
        )
        self.bias = [torch.take_along_dim(part, rows, dim=1).contiguous() for part in self.bias]
        self.weights = [torch.take_along_dim(part, rows[:, None, :, None], dim=2).contiguous() for part in self.weights]

    def write_back(self) -> None:
        """Put the packed rows where they belong among all features."""
        if self.weights[0] is self.all_weights:
            return
        index = self.awake[:, None, :, None].expand_as(self.weights[0])
        self.all_weights.scatter_(2, index, self.weights[0])
        self.all_bias.scatter_(1, self.awake, self.bias[0])


def mean_max_cosine(runs: Autoencoders, *, alive_only: bool = True) -> Float[Tensor, "seed seed"]:
    """Mean over one run's features of the largest cosine with a feature of the other: rows of one, columns of other.

    The paper's criterion for its settings: the mean over both directions of a pair. `alive_only` leaves out features
    that no training token activates, which agree only by chance. The diagonal is not a number.
    """
    unit = runs.decoder / runs.decoder.norm(dim=2, keepdim=True)
    kept = [row[mask] if alive_only else row for row, mask in zip(unit, runs.alive, strict=True)]
    found = torch.full((len(kept), len(kept)), float("nan"))
    for one, own in enumerate(kept):
        for other in range(one):
            if len(own) and len(kept[other]):
                cosines = own @ kept[other].T
                found[one, other] = cosines.amax(1).mean()
                found[other, one] = cosines.amax(0).mean()
    return found
