"""What claims on multigrams and on heads that work together are judged on: ablations of a live run, stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from harness.attention_only import curves_tables as ct
from harness.attention_only.curves_roles import HELD_OUT, use_of
from harness.findings import Finding
from harness.judging import TextUse
from harness.measure import measure
from harness.measurement import Measurement

if TYPE_CHECKING:
    from harness.attention_only.live import LiveRun
    from harness.attention_only.multigrams import Rules, Sample

PARTS = ("harness.attention_only.composition", "harness.attention_only.model")
LABELLING, NESTING = "harness.attention_only.multigrams", "harness.attention_only.brackets"
TEXTS = ("python-docs", "stdlib-source")
ROWS, LENGTH, PATH_ROWS = 48, 129, 16
EARLY = 0.17  # 8,500 of 50,000 steps: the first of the two checkpoints at which the authors ablate
TOP = 0.02
SHOWN, FIGURE_DRAWS = 3, 200
NESTED = 4


def text_names(run: LiveRun) -> tuple[str, ...]:
    """The text that heads are ablated on: the training mixture where it is here, else what stands in for it."""
    from harness.attention_only.curves_texts import names_here

    here = names_here(run)
    return next(((name,) for name in (HELD_OUT, "pile") if name in here), TEXTS)


def text_rows(run: LiveRun) -> Any:
    """Rows of `text_names`, as many of each where there are two: tokens (row, pos)."""
    import torch

    from harness.attention_only.curves_rows import evenly
    from harness.attention_only.curves_texts import rows_here

    names = text_names(run)
    rows = rows_here(run, names)
    return torch.cat([evenly(rows[name], ROWS // len(names))[:, :LENGTH] for name in names])


def head_names(run: LiveRun) -> tuple[str, ...]:
    """Names of all heads, layer by layer."""
    from harness.attention_only.head_types import all_heads

    return all_heads(run.run.config.n_layers, run.run.config.n_heads)


def text_digest(run: LiveRun) -> str:
    """What tells these rows from those of another Python: a parameter of every measure below."""
    from harness.attention_only.curves import rows_digest

    return rows_digest(text_rows(run))


def _model(run: LiveRun, checkpoint: str) -> Any:
    from harness.attention_only.curves_recorded import model_at

    return model_at(run, checkpoint)


@measure(*PARTS)
def ablation_effects(run: Any, *, checkpoint: str, text: str, resample: bool = False) -> Measurement:
    """Loss added at each token by ablating each head: array `effects` (layer, head, row, pos), in nats."""
    import torch

    from harness.attention_only.composition import head_effects

    rows = text_rows(run)
    order = torch.arange(len(rows)).roll(1) if resample else None
    effects = head_effects(_model(run, checkpoint), rows, order=order).numpy().astype(np.float32)
    texts, put = list(text_names(run)), "another row's" if resample else "the mean"
    facts = {"checkpoint": checkpoint, "texts": texts, "replaced by": put}
    return Measurement("loss added by ablation", None, unit="nats", n=effects[0, 0].size, arrays={"effects": effects},
                       facts=facts)  # fmt: skip


@measure(*PARTS, LABELLING)
def multigram_samples(run: Any, *, checkpoint: str, text: str, rules: dict[str, Any]) -> Measurement:
    """Affected tokens with labels: arrays `counts` (head, rule) of multigrams and `labels` (rule, head, label).

    Facts hold the strongest samples of each head as text, for a person to check, and how far both rules agree.
    """
    import torch

    from harness.attention_only import multigrams as mg

    rows, chosen, heads = text_rows(run), mg.Rules(**rules), head_names(run)
    strings = token_strings(run)
    effects = torch.from_numpy(ablation_effects(run, checkpoint=checkpoint, text=text).arrays["effects"])
    found = mg.label_samples(_model(run, checkpoint), rows, strings, chosen, effects=effects)
    both = ("by_context", "by_source")
    counts = [[mg.count_multigrams(found, rows, heads, rule=rule)[head] for rule in both] for head in heads]
    labels = [[list(mg.count_labels(found, head, rule=rule).values()) for head in heads] for rule in both]
    same, kappa = mg.agreement(found)
    shown = [_shown(sample, rows, strings) for head in heads for sample in _strongest(found, head)]
    facts = {"heads": list(heads), "samples": shown, "checkpoint": checkpoint, "rules": rules,
             "texts": list(text_names(run)), "agreement": None if np.isnan(same) else same,
             "kappa": None if np.isnan(kappa) else kappa}  # fmt: skip
    arrays = {"counts": np.array(counts), "labels": np.array(labels)}
    return Measurement("multigrams of each head", None, unit="multigrams", n=len(found), arrays=arrays, facts=facts)


def _strongest(samples: Sequence[Sample], head: str) -> list[Sample]:
    """The strongest sample of each label first, then the strongest of all, `SHOWN` together."""
    own = sorted((sample for sample in samples if sample.head == head), key=lambda sample: -sample.effect)
    first = list({sample.by_context: sample for sample in reversed(own)}.values())
    return sorted({id(each): each for each in [*first, *own]}.values(), key=lambda each: each not in first)[:SHOWN]


def _shown(sample: Sample, rows: Any, strings: Sequence[str]) -> dict[str, Any]:
    row = rows[sample.row].tolist()
    begin = max(0, min(sample.source, sample.position - 11))
    context = "".join(strings[token] for token in row[max(begin, sample.position - 39) : sample.position + 1])
    return {
        "head": sample.head, "context": context, "target": strings[sample.target], "effect": round(sample.effect, 3),
        "found at": strings[row[sample.source]], "tokens back": sample.position - sample.source,
        "by context": sample.by_context, "by source": sample.by_source,
    }  # fmt: skip


def token_strings(run: LiveRun) -> list[str]:
    """Each token id as text."""
    from harness.attention_only.curves_rows import tokenizer_of

    tokenizer = tokenizer_of(run)
    return [tokenizer.decode([token]) for token in range(run.run.config.d_vocab)]


@measure(*PARTS)
def path_table(run: Any, *, checkpoint: str, text: str) -> Measurement:
    """Path ablation of all 64 pairs of heads and their composition scores: arrays (writer, reader) for K, Q and V."""
    from harness.attention_only.composition import composition, path_effects

    model, rows = _model(run, checkpoint), text_rows(run)
    rows = rows[:: len(rows) // PATH_ROWS]
    changes = path_effects(model, rows).numpy()
    arrays = {"mean": changes.mean((2, 3)), "size": np.abs(changes).mean((2, 3))}
    arrays |= {reader: composition(model, reader).numpy() for reader in ("K", "Q", "V")}
    return Measurement("path ablation", None, unit="nats", n=len(rows), arrays=arrays, facts={"checkpoint": checkpoint})


@measure(*PARTS, NESTING)
def nested_brackets(run: Any, *, checkpoint: str, text: str) -> Measurement:
    """Nested brackets and quotes: path ablation at closers and elsewhere, margins, and what each head adds to them."""
    import torch

    from harness.attention_only import brackets as br
    from harness.attention_only.composition import path_effects

    model, strings = _model(run, checkpoint), token_strings(run)
    vocabulary = {string: index for index, string in reversed(list(enumerate(strings)))}
    words = br.word_tokens(strings)
    source = torch.Generator().manual_seed(run.seed)
    probes = br.nested_probes(br.closing_pairs(vocabulary), words, run.probes.bos, NESTED, source)
    tokens = torch.cat([probes.rows, probes.right[:, None]], 1)
    size = path_effects(model, tokens, through="QKV").abs().numpy()  # (writer, reader, row, pos)
    plain = torch.isin(tokens[:, 1:], torch.tensor(words)).numpy()
    elsewhere = (size * plain).sum(3) / plain.sum(1)
    arrays = {
        "closers": size[..., -1], "elsewhere": elsewhere, "margins": br.margins(model, probes).numpy(),
        "outer": probes.outer.numpy(), "head_margin": br.head_margin_loss(model, probes).mean(2).numpy(),
        "path_margin": br.path_margin_loss(model, probes).mean(2).numpy(),
    }  # fmt: skip
    return Measurement("nested brackets", None, n=len(tokens), arrays=arrays, facts={"checkpoint": checkpoint})


@dataclass(frozen=True)
class Ablations:
    """A live run's ablations at the end of training, early on, and before it.

    `typed` is the same run under other thresholds of head types, where a claim is tried under them.
    """

    run: LiveRun
    typed: LiveRun | None = None

    @cached_property
    def text(self) -> str:
        """The digest of the rows everything here is measured on."""
        return text_digest(self.run)

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

    def samples(self, checkpoint: str, rules: Rules | None = None) -> Measurement:
        """Labelled samples under `rules` (the usual ones unless given)."""
        from harness.attention_only.multigrams import Rules

        return multigram_samples(self.run, checkpoint=checkpoint, text=self.text, rules=asdict(rules or Rules()))

    def counts(self, rules: Rules | None = None, rule: str = "by_context") -> dict[str, int]:
        """Different multigrams of each head at the end of training."""
        found = self.samples(self.end, rules)
        column = ("by_context", "by_source").index(rule)
        return dict(zip(found.facts["heads"], (int(row[column]) for row in found.arrays["counts"]), strict=True))

    def generator(self) -> np.random.Generator:
        """Fresh random numbers, the same for each quantity."""
        return np.random.default_rng(self.run.seed)

    def text_use(self) -> TextUse:
        """How the report names the text that heads are ablated on, and whether it only stands in."""
        return use_of(self.run, "training mixture", text_names(self.run))

    def retyped(self) -> dict[str, Ablations]:
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
            return (float("nan"),) * 3
        effects, generator = self.effects(checkpoint), self.generator()
        count = effects.shape[2]
        picks = [generator.integers(count, size=count) for _ in range(FIGURE_DRAWS)]
        drawn = [overlaps(effects[:, :, rows])[np.ix_(*heads)].mean() for rows in picks]
        interval = ct.interval_of(np.array(drawn), "bootstrap over rows")
        return float(overlaps(effects)[np.ix_(*heads)].mean()), interval.low, interval.high

    def paths_and_composition(self, reader: str = "K", effect: str = "size") -> Finding:
        """Whether path ablation and composition name the same pairs of heads (RL-31b)."""
        arrays = path_table(self.run, checkpoint=self.end, text=self.text).arrays
        x, y = arrays[reader].flatten(), arrays[effect].flatten()
        draws = self.run.context.profile.bootstrap_draws
        return Finding(
            ct.rank_correlation(x, y, draws, self.generator()),
            {"shuffled head labels": lambda: ct.shuffled_correlation(x, y, draws, self.generator())},
        )

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
    interval = ct.interval_of(found, f"{draws:,} bootstrap draws over {count} rows")
    more = {"overlap at the end": overlap(end, own), "overlap early": overlap(early, own)}
    return Measurement(quantity, growth(own), interval=interval, unit="times", n=count, facts={**facts, **more})


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
    interval = ct.interval_of(found, f"{draws:,} bootstrap draws over {len(now[0])} rows{apart}")
    reference = ratio(start) if start else 1.0
    facts = {**source.facts, "closers over elsewhere": ratio(now), "the same at initialisation": reference}
    quantity = "path ablation at nested closers over elsewhere" + (", over that at initialisation" if start else "")
    return source.derive(quantity, ratio(now) / reference, interval=interval, unit="times", facts=facts)
