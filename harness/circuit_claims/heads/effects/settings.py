"""The choices that ablations depend on and the paper leaves open; all of them parameters, none of them the result's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Means = Literal["over positions", "by position"]
Donors = Literal["same position", "any position"]
FinalNorm = Literal["recomputed", "frozen"]
Effect = Literal["direct", "indirect", "total"]
Ablation = Literal["mean", "resample"]
EFFECTS: tuple[Effect, ...] = get_args(Effect)
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)


@dataclass(frozen=True)
class Ablations:
    """How heads are ablated. The paper says "the mean over the batch" and "another random example" and no more.

    `means`: one mean over all reference contexts and positions, or one for each position.
    `in_sample`: whether a context that is itself in the reference counts towards its own mean, as in the paper; if
    not, it is left out, and never donates to itself either way.
    `donors`: where in a donor context the replacement is taken from, `repeats` donors a case (of at most
    `most_donors` reference contexts kept at hand).
    `final_norm`: what "only the head's own write changes" means for the norm before the unembedding. "recomputed": the
    norm sees the changed residual, as a hook on the model would have it. "frozen": its scale (and that of Gemma's norm
    after attention) stays as it was, so that heads' contributions add up to the logit.
    """

    means: Means = "over positions"
    in_sample: bool = False
    donors: Donors = "same position"
    repeats: int = 4
    most_donors: int = 16
    final_norm: FinalNorm = "recomputed"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("means", Means), ("donors", Donors), ("final_norm", FinalNorm)):
            if getattr(self, name) not in get_args(kind):
                known = " or ".join(map(repr, get_args(kind)))
                raise ValueError(f"{name} of ablations: expected {known}, found {getattr(self, name)!r}")
        for name in ("repeats", "most_donors"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of ablations: expected 1 or more, found {getattr(self, name)}")

    def parameters(self) -> dict[str, Any]:
        """The choices as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class HeadSettings:
    """What is asked about a chosen head: which losses, how many attended positions and promoted tokens a case.

    Indirect and total effects run the layers above the head once an ablation and repeat; direct ones run nothing.
    """

    effects: tuple[Effect, ...] = EFFECTS
    ablations: tuple[Ablation, ...] = ABLATIONS
    attended: int = 5
    promoted: int = 10

    def __post_init__(self) -> None:
        for name, known in (("effects", EFFECTS), ("ablations", ABLATIONS)):
            chosen = getattr(self, name)
            if not set(chosen) <= set(known) or len(set(chosen)) < len(chosen):
                raise ValueError(f"{name} of a chosen head: expected some of {', '.join(known)}, found {chosen}")
        if self.attended < 0 or self.promoted < 0:
            raise ValueError(f"positions and tokens a case: expected 0 or more, found {self.attended}, {self.promoted}")

    def parameters(self) -> dict[str, Any]:
        """What is asked, as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
