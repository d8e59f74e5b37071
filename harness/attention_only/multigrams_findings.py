"""What claims on multigrams and on heads that work together are judged on: ablations of a live run, stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from harness.attention_only import curves_tables as ct
from harness.findings import Finding
from harness.measure import measure
from harness.measurement import Measurement

if TYPE_CHECKING:
    from harness.attention_only.live import LiveRun
    from harness.attention_only.multigrams import Rules, Sample

PARTS = ("harness.attention_only.composition", "harness.attention_only.curves_rows", "harness.attention_only.model")
LABELLING, NESTING = "harness.attention_only.multigrams", "harness.attention_only.brackets"
TEXTS = ("python-docs", "stdlib-source")
ROWS_EACH, LENGTH, PATH_ROWS = 24, 129, 16
EARLY = 0.17  # 8,500 of 50,000 steps: the first of the two checkpoints at which the authors ablate
TOP = 0.02
SHOWN = 3
NESTED = 4


def text_rows(run: LiveRun) -> Any:
    """Rows of both standard texts, prose about code and code, half and half: tokens (row, pos)."""
    import torch

    from harness.attention_only.curves_rows import standard_rows, tokenizer_of

    own, bos = tokenizer_of(run), run.probes.bos
    return torch.cat([standard_rows(name, own, bos, length=LENGTH, most=ROWS_EACH) for name in TEXTS])


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
    facts = {"checkpoint": checkpoint, "texts": list(TEXTS), "replaced by": "another row's" if resample else "the mean"}
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
    facts = {"heads": list(heads), "samples": shown, "checkpoint": checkpoint, "rules": rules, "texts": list(TEXTS),
             "agreement": None if np.isnan(same) else same, "kappa": None if np.isnan(kappa) else kappa}  # fmt: skip
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
    """A live run's ablations at the end of training, early on, and before it."""

    run: LiveRun

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
        return self.run.head_types()

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

    def overlap(self) -> Finding:
        """How much more the tokens affected by multigram heads of both layers coincide at the end (RL-31)."""
        early = self.effects(self.early)

        def growth(checkpoint: str) -> Measurement:
            return overlap_growth(
                self.effects(checkpoint), early, [self.multigram_heads(layer) for layer in (0, 1)],
                self.run.context.profile.shuffles, self.generator(), {"early": self.early, "end": checkpoint},
            )  # fmt: skip

        return Finding(growth(self.end), {"untrained model": lambda: growth("untrained")})

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

    def nested_closers(self) -> Finding:
        """How much more paths between multigram heads matter at nested closers than at words (RL-31c).

        As a multiple of the same at initialisation: few closing marks and many words differ in any weights.
        """
        first, second = (self.multigram_heads(layer) for layer in (0, 1))

        def sides(checkpoint: str) -> tuple[np.ndarray, np.ndarray]:
            arrays = self.nested(checkpoint).arrays
            return tuple(arrays[side][np.ix_(first, second)].mean((0, 1)) for side in ("closers", "elsewhere"))

        def ratio(checkpoint: str) -> Measurement:
            draws, source = self.run.context.profile.bootstrap_draws, self.nested(checkpoint)
            if not (first and second):
                facts = {**source.facts, "why": "a layer has no multigram heads"}
                return source.derive("path ablation at nested closers", None, status="partial", facts=facts)
            return closer_ratio(sides(checkpoint), sides("untrained"), draws, self.generator(), source)

        return Finding(ratio(self.end), {"untrained model": lambda: ratio("untrained")})


def overlap_growth(
    end: Float[np.ndarray, "layer head row pos"],
    early: Float[np.ndarray, "layer head row pos"],
    heads: Sequence[Sequence[int]],
    draws: int,
    generator: np.random.Generator,
    facts: Mapping[str, Any],
) -> Measurement:
    """Mean Jaccard overlap of the most affected tokens of multigram heads of both layers, at the end over early on.

    The most affected are the `TOP` share of positions; rows are drawn anew with replacement.
    """
    quantity = "growth of the overlap of affected tokens between layers"
    if not all(heads):
        return Measurement(quantity, None, status="partial", facts={**facts, "why": "a layer has no multigram heads"})

    def overlap(effects: np.ndarray, rows: np.ndarray) -> float:
        masks = [[_top(effects[layer, head][rows]) for head in heads[layer]] for layer in (0, 1)]
        return float(np.mean([(a & b).sum() / (a | b).sum() for a in masks[0] for b in masks[1]]))

    def growth(rows: np.ndarray) -> float:
        return overlap(end, rows) / max(overlap(early, rows), 1e-12)

    count = end.shape[2]
    own = np.arange(count)
    found = np.array([growth(generator.integers(count, size=count)) for _ in range(draws)])
    interval = ct.interval_of(found, f"{draws:,} bootstrap draws over {count} rows")
    more = {"overlap at the end": overlap(end, own), "overlap early": overlap(early, own)}
    return Measurement(quantity, growth(own), interval=interval, unit="times", n=count, facts={**facts, **more})


def _top(effects: Float[np.ndarray, "row pos"]) -> np.ndarray:
    flat = effects.flatten()
    mask = np.zeros(flat.size, dtype=bool)
    count = max(1, round(TOP * flat.size))
    mask[np.argpartition(-flat, count - 1)[:count]] = True
    return mask


def closer_ratio(
    now: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]],
    start: tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]],
    draws: int,
    generator: np.random.Generator,
    source: Measurement,
) -> Measurement:
    """Effect at closers over effect elsewhere, `now` over at the `start`; rows of both drawn anew with replacement."""

    def ratio(sides: tuple[np.ndarray, np.ndarray], rows: Any = slice(None)) -> float:
        return float(sides[0][rows].mean() / max(sides[1][rows].mean(), 1e-12))

    def anew(sides: tuple[np.ndarray, np.ndarray]) -> float:
        return ratio(sides, generator.integers(len(sides[0]), size=len(sides[0])))

    found = np.array([anew(now) / anew(start) for _ in range(draws)])
    interval = ct.interval_of(
        found, f"{draws:,} bootstrap draws over {len(now[0])} rows, those of the start drawn apart"
    )
    facts = {**source.facts, "closers over elsewhere": ratio(now), "the same at initialisation": ratio(start)}
    return source.derive("path ablation at nested closers over elsewhere, as a multiple of that at initialisation",
                         ratio(now) / ratio(start), interval=interval, unit="times", facts=facts)  # fmt: skip
