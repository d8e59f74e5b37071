"""What claims on multigrams and on heads that work together are judged on: ablations of a live run, stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuit_claims.api import Finding, Measurement, TextUse, percentile_interval
from circuit_claims.papers.refined_llc.curves import tables as ct
from circuit_claims.papers.refined_llc.curves.known import CALIBRATION
from circuit_claims.papers.refined_llc.curves.roles import use_of
from circuit_claims.papers.refined_llc.multigrams import known_effects as known
from circuit_claims.papers.refined_llc.multigrams.measures import (
    ablation_effects,
    counts_of,
    digest_of_rows,
    multigram_samples,
    nested_brackets,
    path_ablation_table,
    text_names,
)
from circuit_claims.papers.refined_llc.multigrams.ratios import (
    TOP,
    closer_logs,
    closer_ratio,
    overlap_growth,
    overlaps,
    path_lead,
)

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.multigrams.labels import Rules
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

EARLY = 0.17  # 8,500 of 50,000 steps: the first of the two checkpoints at which the authors ablate
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
        early, end = self.effects(self.early), self.effects(self.end)
        heads, draws = [self.multigram_heads(layer) for layer in (0, 1)], self.run.context.profile.bootstrap_draws

        def growth(late: np.ndarray, first: np.ndarray = early, draws: int = draws, last: str = "") -> Measurement:
            facts = {"early": self.early, "end": last or self.end}
            return overlap_growth(late, first, heads, draws, self.generator(), facts, top)

        controls = {"untrained model": lambda: growth(self.effects("untrained"), last="untrained")}
        if not all(heads):
            return Finding(growth(end), controls)
        return Finding(
            growth(end),
            controls,
            false={known.TRADED_ROWS: lambda generator: growth(*known.rows_traded(end, early, generator), CALIBRATION)},
            oracles={known.TOGETHER: lambda: growth(known.layers_together(end, heads))},
        )

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
        interval = percentile_interval(np.array(drawn), "bootstrap over rows", redrawn=count)
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
            false={known.NAMES_OF_BOTH: false},
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
        """The ratio as judged, that over initialisation and the plain one, and under other head types."""
        return {
            "as judged: over the model's other paths": self.nested_closers,
            "over the same at initialisation": partial(self.nested_ratio, against_start=True),
            "plain ratio": partial(self.nested_ratio, against_start=False),
            **{name: one.nested_closers for name, one in self.retyped().items()},
        }

    def nested_closers(self) -> Finding:
        """How much more paths between multigram heads matter at nested closers than the model's other paths (RL-31c).

        Closers and words are different tokens at different places, few and rare against many and common, so that any
        path of any trained model may matter more at closers: the model's other paths say how much more.
        """
        first, second = (np.isin(np.arange(self.run.run.config.n_heads), self.multigram_heads(at)) for at in (0, 1))
        source = self.nested()

        def lead(values: Float[np.ndarray, "writer reader"]) -> Measurement:
            return path_lead(values, first, second, source)

        own, start = (closer_logs(self.nested(checkpoint)) for checkpoint in (self.end, "untrained"))
        controls = {"untrained model": lambda: lead(start)}
        if lead(own).status != "complete":
            return Finding(lead(own), controls)
        return Finding(
            lead(own),
            controls,
            false={known.NAMES_OF_BOTH: lambda generator: lead(ct.shuffled_pairs(own, generator))},
            oracles={known.PATHS_LEAD: lambda: lead(known.paths_lifted(own, first, second))},
        )

    def nested_ratio(self, *, against_start: bool) -> Finding:
        """Effect of paths between multigram heads at nested closers over that elsewhere, rows of text being redrawn."""
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
