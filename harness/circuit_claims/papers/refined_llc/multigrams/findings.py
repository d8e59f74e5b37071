"""What claims on multigrams and on heads that work together are judged on: ablations of a live run, stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from circuit_claims.api import Finding, Measurement, percentile_interval
from circuit_claims.papers.refined_llc.curves import tables as ct
from circuit_claims.papers.refined_llc.curves.known import CALIBRATION
from circuit_claims.papers.refined_llc.curves.roles import use_of
from circuit_claims.papers.refined_llc.multigrams.measures import (
    ablation_effects,
    counts_of,
    digest_of_rows,
    multigram_samples,
    nested_brackets,
    path_ablation_table,
    text_names,
)
from circuit_claims.running.judge import TextUse

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.multigrams.labels import Rules
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

EARLY = 0.17  # 8,500 of 50,000 steps: the first of the two checkpoints at which the authors ablate
TOP = 0.02
FIGURE_DRAWS, PLANTED_ROWS = 200, 16


@dataclass(frozen=True)
class PathAblations:
    """A live run's ablations at the end of training, early on, and before it.

    `typed` is the same run under other thresholds of head types, where a claim is tried under them.
    """

    run: LiveRun
    typed: LiveRun | None = None

    @cached_property
    def text(self) -> str:
        """The digest of the rows everything here is measured on."""
        return digest_of_rows(self.run)

    @property
    def end(self) -> str:
        """The last checkpoint."""
        return str(self.run.steps[-1])

    @property
    def early(self) -> str:
        """The checkpoint nearest to 17 % of training."""
        trained = [step for step in self.run.steps if step > 0]
        return str(min(trained, key=lambda step: abs(step - EARLY * trained[-1])))

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The type of each head at the end."""
        return (self.typed or self.run).head_types()

    def multigram_heads(self, layer: int) -> list[int]:
        """Numbers of a layer's multigram heads."""
        return [int(head[2:]) for head, kind in self.types.items() if head[0] == str(layer) and kind == "multigram"]

    def effects(self, checkpoint: str, *, resample: bool = False) -> Float[np.ndarray, "layer head row pos"]:
        """Loss added by ablating each head."""
        return ablation_effects(self.run, checkpoint=checkpoint, text=self.text, resample=resample).arrays["effects"]

    def samples(self, checkpoint: str) -> Measurement:
        """Affected tokens with labels."""
        return multigram_samples(self.run, checkpoint=checkpoint, text=self.text)

    def counts(self, rules: Rules | None = None, rule: str = "by_context") -> dict[str, int]:
        """Different multigrams of each head at the end of training, under `rules` (the usual ones unless given)."""
        from circuit_claims.papers.refined_llc.multigrams.labels import Rules

        return counts_of(self.samples(self.end), rules or Rules(), rule)

    def generator(self) -> np.random.Generator:
        """Fresh random numbers, the same for each quantity."""
        return np.random.default_rng(self.run.seed)

    def text_use(self) -> TextUse:
        """How the report names the text that heads are ablated on, and whether it only stands in."""
        return use_of(self.run, "training mixture", text_names(self.run))

    def retyped(self) -> dict[str, PathAblations]:
        """The same under other thresholds of head types that were thought of, by a name for a table."""
        return {name: replace(self, typed=run) for name, run in self.run.other_types().items()}

    def overlap(self, top: float = TOP) -> Finding:
        """How much more the tokens affected by multigram heads of both layers coincide at the end (RL-31)."""
        early = self.effects(self.early)

        def growth(checkpoint: str) -> Measurement:
            return overlap_growth(
                self.effects(checkpoint), early, [self.multigram_heads(layer) for layer in (0, 1)],
                self.run.context.profile.shuffles, self.generator(), {"early": self.early, "end": checkpoint}, top,
            )  # fmt: skip

        return Finding(growth(self.end), {"untrained model": lambda: growth("untrained")})

    def overlap_settings(self) -> dict[str, Callable[[], Finding]]:
        """The growth with fewer and more tokens counted as most affected, and under other head types."""
        shares = {f"the {top:.0%} most affected tokens": partial(self.overlap, top) for top in (TOP / 2, 2.5 * TOP)}
        others = {name: one.overlap for name, one in self.retyped().items()}
        return {f"as judged: the {TOP:.0%} most affected tokens": self.overlap, **shares, **others}

    def mean_overlap(self, checkpoint: str) -> tuple[float, float, float]:
        """The mean overlap over pairs of multigram heads at a checkpoint, with its 90 % interval; NaN without pairs."""
        heads = [self.multigram_heads(layer) for layer in (0, 1)]
        if not all(heads):
            return float("nan"), float("nan"), float("nan")
        effects, generator = self.effects(checkpoint), self.generator()
        count = effects.shape[2]
        picks = [generator.integers(count, size=count) for _ in range(FIGURE_DRAWS)]
        drawn = [overlaps(effects[:, :, rows])[np.ix_(*heads)].mean() for rows in picks]
        interval = percentile_interval(np.array(drawn), "bootstrap over rows")
        return float(overlaps(effects)[np.ix_(*heads)].mean()), interval.low, interval.high

    def paths_and_composition(self, reader: str = "K", effect: str = "size") -> Finding:
        """Whether path ablation and composition name the same pairs of heads (RL-31b)."""
        arrays = path_ablation_table(self.run, checkpoint=self.end, text=self.text).arrays
        x, y = arrays[reader], arrays[effect]
        draws = self.run.context.profile.bootstrap_draws

        def planted() -> Measurement:
            return ct.pair_correlation(*planted_paths(), draws, self.generator())

        def false(generator: np.random.Generator) -> Measurement:
            return ct.pair_correlation(x, ct.shuffled_pairs(y, generator), CALIBRATION, generator)

        return Finding(
            ct.pair_correlation(x, y, draws, self.generator()),
            {
                "planted heads": planted,
                "planted heads, effects of other pairs": lambda: ct.pair_correlation(
                    planted_paths()[0], np.roll(planted_paths()[1], (3, 2), (0, 1)), draws, self.generator()
                ),
            },
            false={"names dealt out to the heads of both layers at random": false},
            oracles={"the path's effects in the order of the composition": lambda: ct.pair_correlation(
                x, np.sort(y.ravel())[x.ravel().argsort().argsort()].reshape(y.shape), draws, self.generator())},
        )  # fmt: skip

    def readers(self) -> dict[str, Callable[[], Finding]]:
        """The same with the signed effect, and with composition through queries and values."""
        return {
            "as judged: K-composition, size of the loss change": self.paths_and_composition,
            "K-composition, mean loss added": lambda: self.paths_and_composition(effect="mean"),
            "Q-composition, size of the loss change": lambda: self.paths_and_composition("Q"),
            "V-composition, size of the loss change": lambda: self.paths_and_composition("V"),
        }

    def nested(self, checkpoint: str = "") -> Measurement:
        """The stored table of nested-bracket probes."""
        return nested_brackets(self.run, checkpoint=checkpoint or self.end, text=self.text)

    def nested_settings(self) -> dict[str, Callable[[], Finding]]:
        """The ratio as judged, the plain one without a reference, and under other head types."""
        others = {name: one.nested_closers for name, one in self.retyped().items()}
        plain = partial(self.nested_closers, against_start=False)
        return {"as judged: over the same at initialisation": self.nested_closers, "plain ratio": plain, **others}

    def nested_closers(self, *, against_start: bool = True) -> Finding:
        """How much more paths between multigram heads matter at nested closers than at words (RL-31c).

        As a multiple of the same at initialisation. What says nothing of coordination gives 1 that way: closers and
        words are different tokens at different places, few and rare against many and common, so that the plain ratio
        has no neutral value of its own, in weights that learned nothing either. The paper gives neither a value nor a
        reference; the plain ratio stands beside (`nested_settings`).
        """
        first, second = (self.multigram_heads(layer) for layer in (0, 1))

        def sides(checkpoint: str) -> tuple[np.ndarray, np.ndarray]:
            arrays = self.nested(checkpoint).arrays
            return tuple(arrays[side][np.ix_(first, second)].mean((0, 1)) for side in ("closers", "elsewhere"))

        def ratio(checkpoint: str) -> Measurement:
            start = sides("untrained") if against_start else None
            draws, source = self.run.context.profile.bootstrap_draws, self.nested(checkpoint)
            if not (first and second):
                facts = {**source.facts, "why": "a layer has no multigram heads"}
                return source.derive("path ablation at nested closers", None, status="partial", facts=facts)
            return closer_ratio(sides(checkpoint), start, draws, self.generator(), source)

        return Finding(ratio(self.end), {"untrained model": lambda: ratio("untrained")})


def planted_paths() -> tuple[Float[np.ndarray, "writer reader"], Float[np.ndarray, "writer reader"]]:
    """K-composition and path ablation of all pairs of a model whose induction heads read its previous-token heads.

    Rows are a random order of tokens said twice, where that path is all there is to know of the second half.
    """
    import torch

    from circuit_claims.heads.composition import composition, path_effects
    from circuit_claims.heads.head_types_planted import PAPER_LIKE, planted_types_model

    roles = {head: role for head, role in PAPER_LIKE.items() if role in ("previous-token", "induction")}
    model, source = planted_types_model(roles), torch.Generator().manual_seed(0)
    once = torch.stack([torch.randperm(24, generator=source) for _ in range(PLANTED_ROWS)])
    effects = path_effects(model, torch.cat([once, once], 1)).abs().mean((2, 3))
    return composition(model).numpy(), effects.numpy()


def overlap_growth(
    end: Float[np.ndarray, "layer head row pos"],
    early: Float[np.ndarray, "layer head row pos"],
    heads: Sequence[Sequence[int]],
    draws: int,
    generator: np.random.Generator,
    facts: Mapping[str, Any],
    top: float = TOP,
) -> Measurement:
    """Mean Jaccard overlap of the most affected tokens of multigram heads of both layers, at the end over early on.

    The most affected are the share `top` of positions; rows are drawn anew with replacement.
    """
    quantity = "growth of the overlap of affected tokens between layers"
    if not all(heads):
        return Measurement(quantity, None, status="partial", facts={**facts, "why": "a layer has no multigram heads"})

    def overlap(effects: np.ndarray, rows: np.ndarray) -> float:
        return float(overlaps(effects[:, :, rows], top)[np.ix_(*heads)].mean())

    def growth(rows: np.ndarray) -> float:
        return overlap(end, rows) / max(overlap(early, rows), 1e-12)

    count = end.shape[2]
    own = np.arange(count)
    found = np.array([growth(generator.integers(count, size=count)) for _ in range(draws)])
    interval = percentile_interval(found, f"{draws:,} bootstrap draws over {count} rows")
    more = {"overlap at the end": overlap(end, own), "overlap early": overlap(early, own)}
    return Measurement(quantity, growth(own), interval=interval, unit="times", n=count, redrawn={"rows of text": count},
                       facts={**facts, **more})  # fmt: skip


def overlaps(effects: Float[np.ndarray, "layer head row pos"], top: float = TOP) -> Float[np.ndarray, "head head"]:
    """Jaccard overlap of the share `top` of positions that a layer-0 and a layer-1 head affect most, every pair.

    >>> overlaps(np.arange(8.0).reshape(2, 1, 1, 4), top=0.5).tolist()
    [[1.0]]
    """
    flat = effects.reshape(*effects.shape[:2], -1)
    count = max(1, round(top * flat.shape[2]))
    masks = np.zeros(flat.shape, dtype=np.float32)
    np.put_along_axis(masks, np.argpartition(-flat, count - 1, axis=2)[:, :, :count], 1.0, axis=2)
    both = masks[0] @ masks[1].T
    return both / (2 * count - both)


def closer_ratio(
    now: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]],
    start: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]] | None,
    draws: int,
    generator: np.random.Generator,
    source: Measurement,
) -> Measurement:
    """Effect at closers over effect elsewhere, `now` over at the `start`; rows of both drawn anew with replacement.

    Without a `start`, the plain ratio.
    """

    def ratio(sides: tuple[np.ndarray, np.ndarray], rows: Any = slice(None)) -> float:
        return float(sides[0][rows].mean() / max(sides[1][rows].mean(), 1e-12))

    def anew(sides: tuple[np.ndarray, np.ndarray] | None) -> float:
        return ratio(sides, generator.integers(len(sides[0]), size=len(sides[0]))) if sides else 1.0

    found = np.array([anew(now) / anew(start) for _ in range(draws)])
    apart = ", those of the start drawn apart" if start else ""
    interval = percentile_interval(found, f"{draws:,} bootstrap draws over {len(now[0])} rows{apart}")
    reference = ratio(start) if start else 1.0
    facts = {**source.facts, "closers over elsewhere": ratio(now), "the same at initialisation": reference}
    quantity = "path ablation at nested closers over elsewhere" + (", over that at initialisation" if start else "")
    redrawn = {"rows of text": len(now[0])}
    return source.derive(
        quantity, ratio(now) / reference, interval=interval, unit="times", facts=facts, redrawn=redrawn
    )
