"""What is known of one context after its ablations: plain arrays, to be stored, pooled and judged elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from circuit_claims.heads.effects.settings import ABLATIONS, EFFECTS, Ablation, Effect

Head = tuple[int, int]
"""(layer, head), both from 0."""


@dataclass(frozen=True)
class DirectEffects:
    """Direct effects of every head of a model on the correct token's logit, in every case of one context.

    `mean` and `resample` are logits (nats) the correct token loses when the head is ablated; negative where the head
    stood in its way. Row i is head `heads[i]`. `frozen_winner` and `recomputed_winner` are the rows of the winning head
    under either reading of the final norm (mean ablation), to see whether a count hangs on it. `gap` is the largest
    difference, over cases, between the correct token's logit and the sum of all heads' contributions and the rest.
    """

    heads: Int[np.ndarray, "head 2"]
    correct_logit: Float[np.ndarray, " case"]
    mean: Float[np.ndarray, "head case"]
    resample: Float[np.ndarray, "head case"]
    frozen_winner: Int[np.ndarray, " case"]
    recomputed_winner: Int[np.ndarray, " case"]
    gap: float

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields as arrays, as a cell keeps them."""
        return {name: np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> DirectEffects:
        """The inverse of `arrays`."""
        return cls(**{**arrays, "gap": float(np.ravel(arrays["gap"])[0])})

    def drop(self, ablation: Ablation = "mean") -> Float[np.ndarray, "head case"]:
        """Logits lost under the named ablation."""
        return self.mean if ablation == "mean" else self.resample

    def row(self, head: Head) -> int:
        """The row of a head. Raises KeyError for one the model does not have."""
        found = np.flatnonzero((self.heads == np.asarray(head)).all(1))
        if len(found) != 1:
            raise KeyError(f"head {head}: expected one of {len(self.heads)} heads, the last {self.heads[-1].tolist()}")
        return int(found[0])

    def winners(self, ablation: Ablation = "mean") -> Int[np.ndarray, " case"]:
        """The row whose ablation costs the correct token most, in each case (the paper's *winning case* is its)."""
        return self.drop(ablation).argmax(0)

    def rank(self, head: Head, ablation: Ablation = "mean") -> Int[np.ndarray, " case"]:
        """How many heads cost the correct token more than this one, in each case: 0 where it wins."""
        drop = self.drop(ablation)
        return (drop > drop[self.row(head)]).sum(0)


@dataclass(frozen=True)
class HeadEffects:
    """One chosen head in every case of one context.

    `loss` is the model's own (nats); `changes["direct", "mean"]` and so on what ablating the head adds to it, for the
    effects that were asked for. `attended` are the positions it looks at most, the most first, with their shares
    `attention` (positions below `top`: fewer than asked for are padded with -1 and 0). `promoted` are the tokens that
    its own write raises most, the most first, by `promoted_logit` (through the final norm, frozen).
    """

    head: Head
    loss: Float[np.ndarray, " case"]
    changes: Mapping[tuple[Effect, Ablation], Float[np.ndarray, " case"]]
    attended: Int[np.ndarray, "case top"]
    attention: Float[np.ndarray, "case top"]
    promoted: Int[np.ndarray, "case most"]
    promoted_logit: Float[np.ndarray, "case most"]

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields as arrays, as a cell keeps them; changes are named "direct mean" and so on."""
        plain = {name: value for name, value in vars(self).items() if name not in ("head", "changes")}
        return plain | {f"{effect} {ablation}": change for (effect, ablation), change in self.changes.items()}

    @classmethod
    def from_arrays(cls, head: Head, arrays: Mapping[str, np.ndarray]) -> HeadEffects:
        """The inverse of `arrays`."""
        names: list[tuple[Effect, Ablation]] = [(effect, ablation) for effect in EFFECTS for ablation in ABLATIONS]
        changes = {name: arrays[" ".join(name)] for name in names if " ".join(name) in arrays}
        plain = {name: arrays[name] for name in cls.__dataclass_fields__ if name not in ("head", "changes")}
        return cls(head=head, changes=changes, **plain)

    def reduces_loss(self, effect: Effect = "direct", ablation: Ablation = "mean") -> np.ndarray:
        """The paper's *loss-reducing cases*: where ablating the head raises the loss."""
        return self.changes[effect, ablation] > 0
