"""Linear probes of the index mod m, all moduli and seeds in one training (Gould et al. 2024, section 3).

The paper gives learning rate 0.001, batch 32, 100 epochs, a 90/10 split and the moduli 2 to 25. Probes of one seed see
the same split and the same batches whatever their modulus, so that one product serves all of them: row m's classes
stand beside those of the other moduli. Not given, and chosen here: Adam, cross-entropy, a bias, weights started at
zero (the loss is convex, so nothing has to be broken), vectors centred and scaled to a mean length of the root of
d_model (as "unit mean norm": of 1; "as is": neither).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuit_claims.heads.autoencoders.step import adam_pass, adam_scalars, over_seeds, softmax_slopes
from circuit_claims.heads.autoencoders.training import VectorScale, gather_rows

MODULI = tuple(range(2, 26))
# Seeds trained side by side: parameters and moments of so few stay in a processor's cache.
AT_ONCE = 10


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is trained. `learning_rate` to `held_out` are the paper's, `scale` it does not give."""

    learning_rate: float = 1e-3
    batch: int = 32
    epochs: int = 100
    held_out: float = 0.1
    scale: VectorScale = "root d_model"


@dataclass(frozen=True)
class Probes:
    """Trained probes. Classes of all moduli stand one after another: those of `moduli[i]` at `columns(moduli[i])`.

    `weights` read vectors less `centre`, times `scale`. `trained` are the rows each seed learned from.
    """

    seeds: tuple[int, ...]
    moduli: tuple[int, ...]
    settings: ProbeSettings
    weights: Float[Tensor, "seed class d_model"]
    bias: Float[Tensor, "seed class"]
    centre: Float[Tensor, "seed d_model"]
    scale: Float[Tensor, " seed"]
    trained: Int[Tensor, "seed n_train"] = field(repr=False)

    def columns(self, modulus: int) -> slice:
        """Where the classes of a modulus stand. Raises `ValueError` for one that was not trained."""
        if modulus not in self.moduli:
            raise ValueError(f"modulus of a probe: expected one of {', '.join(map(str, self.moduli))}, found {modulus}")
        start = sum(self.moduli[: self.moduli.index(modulus)])
        return slice(start, start + modulus)

    def logits(self, x: Float[Tensor, "n d_model"], modulus: int) -> Float[Tensor, "seed n residue"]:
        """Logits of the residues for each seed's probe."""
        here = self.columns(modulus)
        inside = (x[None] - self.centre[:, None]) * self.scale[:, None, None]
        return torch.baddbmm(self.bias[:, None, here], inside, self.weights[:, here].transpose(1, 2))

    def predictions(self, x: Float[Tensor, "n d_model"], modulus: int) -> Int[np.ndarray, "seed n"]:
        """The residue each seed's probe gives each vector."""
        return self.logits(x, modulus).argmax(2).numpy()

    def held_out(self, n: int) -> Bool[np.ndarray, "seed n"]:
        """Which of the `n` rows of the data each seed did not learn from."""
        left = np.ones((len(self.seeds), n), dtype=bool)
        np.put_along_axis(left, self.trained.numpy(), False, axis=1)
        return left


def train_probes(
    x: Float[Tensor, "n d_model"],
    index: Int[Tensor, " n"] | Int[Tensor, "seed n"],
    seeds: Sequence[int] = tuple(range(10)),
    moduli: Sequence[int] = MODULI,
    settings: ProbeSettings | None = None,
) -> Probes:
    """Train one probe for each modulus and seed on the rows of `x`, labelled `index` mod the modulus, all at once.

    The same as training each alone (`tests/heads/plain_probes.py`) to 1e-4. `index` may differ from seed to seed,
    as in the control with shuffled indices (`shuffled_index`). Raises `ValueError` for fewer than 10 vectors, a
    modulus below 2 or negative indices.
    """
    settings = settings or ProbeSettings()
    index = index.expand(len(seeds), -1) if index.ndim == 1 else index
    _check(x, index, seeds, moduli)
    trained, orders = draw_orders(len(x), seeds, settings)
    centre, scale = centre_and_scale_probes(x, trained, settings)
    rows = (x[trained] - centre[:, None]) * scale[:, None, None]  # (seed, n_train, d_model)
    known = torch.stack([torch.take_along_dim(index, trained, 1) % modulus for modulus in moduli], dim=2)
    known = known.to(torch.int64).contiguous()  # (seed, n_train, modulus)
    groups = zip(rows.split(AT_ONCE), known.split(AT_ONCE), orders.split(AT_ONCE), strict=True)
    weights, bias = zip(*(_train(*group, moduli, settings) for group in groups), strict=True)
    return Probes(tuple(seeds), tuple(moduli), settings, torch.cat(weights), torch.cat(bias), centre, scale, trained)


def _train(
    rows: Float[Tensor, "seed n_train d_model"],
    known: Int[Tensor, "seed n_train modulus"],
    orders: Int[Tensor, "seed epoch n_train"],
    moduli: Sequence[int],
    settings: ProbeSettings,
) -> tuple[Float[Tensor, "seed class d_model"], Float[Tensor, "seed class"]]:
    """Weights and bias of a few seeds' probes, step by step."""
    ends = np.cumsum([0, *moduli])
    seeds, classes, width = len(rows), int(ends[-1]), rows.shape[2]
    # The last of each is its gradient, written in place: fresh memory at each step costs more than the product.
    weights, bias = ([rows.new_zeros(seeds, classes, *last) for _ in range(4)] for last in ((width,), ()))
    step = 0
    for epoch in range(settings.epochs):
        for places in orders[:, epoch].split(settings.batch, dim=1):
            step += 1
            batch, labels = gather_rows(rows, places), gather_rows(known, places)
            slopes = torch.bmm(batch, weights[0].transpose(1, 2))  # (seed, b, class)
            softmax_slopes(slopes, bias[0], labels, ends)
            torch.bmm(slopes.transpose(1, 2), batch, out=weights[3])
            torch.sum(slopes, 1, out=bias[3])
            scalars = adam_scalars(settings.learning_rate, step, slopes.numpy().dtype)
            for parts in (weights, bias):
                over_seeds(adam_pass, seeds, *(part.flatten(1).numpy() for part in parts), scalars)
    return weights[0], bias[0]


def _check(x: Tensor, index: Tensor, seeds: Sequence[int], moduli: Sequence[int]) -> None:
    if len(x) < 10 or not seeds or index.shape != (len(seeds), len(x)):
        raise ValueError(
            "training probes: expected at least 10 vectors, a seed, and one index a vector"
            f"\n  found {len(x)} vectors, {len(seeds)} seeds, indices of shape {tuple(index.shape)}"
        )
    if min(moduli, default=0) < 2 or int(index.min()) < 0:
        raise ValueError(
            f"training probes: expected moduli of 2 or more and indices of 0 or more\n  found {min(moduli, default=0)} "
            f"and {int(index.min())}"
        )


def draw_orders(
    n: int, seeds: Sequence[int], settings: ProbeSettings
) -> tuple[Int[Tensor, "seed n_train"], Int[Tensor, "seed epoch n_train"]]:
    """The split and the order of every epoch of each seed, from a generator of its own."""
    trained, orders = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        kept = torch.randperm(n, generator=generator)[: n - round(n * settings.held_out)]
        trained.append(kept)
        orders.append(torch.stack([torch.randperm(len(kept), generator=generator) for _ in range(settings.epochs)]))
    return torch.stack(trained), torch.stack(orders)


def centre_and_scale_probes(
    x: Float[Tensor, "n d_model"], trained: Int[Tensor, "seed n_train"], settings: ProbeSettings
) -> tuple[Float[Tensor, "seed d_model"], Float[Tensor, " seed"]]:
    """Centre and scale of each seed's vectors, from those it learns from."""
    if settings.scale == "as is":
        return x.new_zeros(len(trained), x.shape[1]), x.new_ones(len(trained))
    chosen = x[trained]
    centre = chosen.mean(1)
    length = (chosen - centre[:, None]).norm(dim=2).mean(1)
    return centre, (1.0 if settings.scale == "unit mean norm" else x.shape[1] ** 0.5) / length


def shuffled_index(
    index: Int[Tensor, " n"], seeds: Sequence[int], groups: Int[Tensor, " n"] | None = None
) -> Int[Tensor, "seed n"]:
    """The control: for each seed the indices handed out anew, among rows of the same group where groups are given.

    Rows of one index (the surface forms of a number) move together: a probe could learn from one form what it is
    asked of the other.
    """
    groups = torch.zeros_like(index) if groups is None else groups
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        new = index.clone()
        for group in [groups == name for name in groups.unique()]:
            values = index[group].unique()
            moved = values[torch.randperm(len(values), generator=generator)]
            new[group] = moved[torch.searchsorted(values, index[group])]
        found.append(new)
    return torch.stack(found)


def probe_rows(probes: Probes, modulus: int = 10) -> Float[Tensor, "residue d_model"]:
    """P_0 ... P_{m-1}: each residue's row, of length 1, the mean over seeds; what all residues share is taken off.

    A softmax does not change when every row moves by the same vector, so only differences between rows are learned.
    """
    rows = probes.weights[:, probes.columns(modulus)]
    rows = rows - rows.mean(1, keepdim=True)
    unit = rows / rows.norm(dim=2, keepdim=True).clamp_min(1e-12)
    mean = unit.mean(0)
    return mean / mean.norm(dim=1, keepdim=True).clamp_min(1e-12)
