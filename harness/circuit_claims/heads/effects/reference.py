"""What ablated heads are replaced by: means over reference contexts, and their outputs in some of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.effects.forward import Pass
from circuit_claims.heads.effects.settings import Ablation, Ablations


def digest_of(tokens: Int[Tensor, " pos"]) -> str:
    """The sha256 of a context's token ids."""
    return hashlib.sha256(tokens.cpu().numpy().astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Reference:
    """Head outputs of the reference contexts: their sums (float64) over all, and the first few contexts' own.

    `sums[layer]` is (pos, head, d_head), `bank[layer]` (donor, pos, head, d_head); `digests` names all contexts in
    order, the donors first.
    """

    ablations: Ablations
    digests: tuple[str, ...]
    sums: tuple[Float[Tensor, "pos head d_head"], ...]
    bank: tuple[Float[Tensor, "donor pos head d_head"], ...]

    def replacement(self, run: Pass, layer: int, ablation: Ablation) -> Float[Tensor, "repeat pos_or_1 head d_head"]:
        """What the heads of `layer` put out when ablated in this context; one repeat for the mean.

        Raises ValueError where the reference has too few other contexts, or shorter ones.
        """
        length = len(run.tokens)
        if length > len(self.sums[layer]):
            raise ValueError(f"reference contexts: expected at least {length} tokens, found {len(self.sums[layer])}")
        if ablation == "mean":
            return self._mean(run, layer)[None]
        donors, positions = self._draws(digest_of(run.tokens), length)
        return self.bank[layer][donors[:, None], positions]

    def _mean(self, run: Pass, layer: int) -> Float[Tensor, "pos_or_1 head d_head"]:
        count, total, z = len(self.digests), self.sums[layer][: len(run.tokens)], run.z[layer]
        if self.ablations.means == "over positions":
            total = total.mean(0, keepdim=True)
            z = z.mean(0, keepdim=True, dtype=torch.float64)
        own = self.digests.count(digest_of(run.tokens))
        if own and not self.ablations.in_sample:
            count, total = count - own, total - own * z.double()
        if count < 1:
            raise ValueError(
                "out-of-sample mean: expected reference contexts besides the one that is ablated, found none"
                "\n  Give more reference contexts, or take in-sample means: Ablations(in_sample=True)"
            )
        return (total / count).float()

    def _draws(self, own: str, length: int) -> tuple[Int[Tensor, " repeat"], Int[Tensor, "repeat pos"]]:
        """Donor contexts, one a repeat and never the context itself, and the position each case is given from.

        They hang on the seed and on the context alone, not on what else is measured or when.
        """
        generator = np.random.default_rng([self.ablations.seed, int(own[:12], 16)])
        others = [place for place, name in enumerate(self.digests[: len(self.bank[0])]) if name != own]
        if len(others) < self.ablations.repeats:
            raise ValueError(
                f"resample ablation: expected at least {self.ablations.repeats} other contexts to take outputs from"
                f"\n  found {len(others)}; give more reference contexts, or ask for fewer repeats"
            )
        donors = generator.permutation(others)[: self.ablations.repeats]
        shape = (len(donors), length)
        positions = np.broadcast_to(np.arange(length), shape)
        if self.ablations.donors == "any position":
            positions = generator.integers(0, self.bank[0].shape[1], shape)
        device = self.bank[0].device
        return torch.from_numpy(donors).to(device), torch.from_numpy(np.array(positions)).to(device)


def reference_of(runs: Iterable[Pass], ablations: Ablations) -> Reference:
    """Gather the reference from passes of contexts of equal length, one at a time; raises ValueError for none.

    Takes 8 bytes a value for the sums and 4 for each of `ablations.most_donors` contexts.
    """
    digests: list[str] = []
    sums: list[Tensor] = []
    bank: list[list[Tensor]] = []
    for run in runs:
        if not digests:
            sums, bank = [torch.zeros_like(z, dtype=torch.float64) for z in run.z], [[] for _ in run.z]
        for layer, z in enumerate(run.z):
            sums[layer] += z
            if len(digests) < ablations.most_donors:
                bank[layer].append(z)
        digests.append(digest_of(run.tokens))
    if not digests:
        raise ValueError("reference of an ablation: expected at least one context, found none")
    return Reference(ablations, tuple(digests), tuple(sums), tuple(torch.stack(kept) for kept in bank))
