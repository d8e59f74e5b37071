"""What ablations of a live run's heads and paths find, stored: effects on tokens, labelled samples, pairs of heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Measurement, measure
from circuit_claims.papers.refined_llc.curves.roles import HELD_OUT, STANDARD

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.multigrams.labels import Rules, Sample
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

ROWS, LENGTH, PATH_ROWS = 48, 129, 16
RULES = ("by_context", "by_source")
SHOWN, NESTED = 3, 4


def text_names(run: LiveRun) -> tuple[str, ...]:
    """The text that heads are ablated on: the training mixture where it is here, else what stands in for it."""
    from circuit_claims.papers.refined_llc.recording.texts import names_here

    here = names_here(run)
    return next(((name,) for name in (HELD_OUT, "pile") if name in here), STANDARD)


def text_rows(run: LiveRun) -> Any:
    """Rows of `text_names`, as many of each where there are two: tokens (row, pos)."""
    import torch

    from circuit_claims.papers.refined_llc.recording.rows import evenly
    from circuit_claims.papers.refined_llc.recording.texts import rows_here

    names = text_names(run)
    rows = rows_here(run, names)
    return torch.cat([evenly(rows[name], ROWS // len(names))[:, :LENGTH] for name in names])


def head_names(run: LiveRun) -> tuple[str, ...]:
    """Names of all heads, layer by layer."""
    from circuit_claims.heads.head_types import all_heads

    return all_heads(run.run.config.n_layers, run.run.config.n_heads)


def digest_of_rows(run: LiveRun) -> str:
    """What tells these rows from those of another Python: a parameter of every measure below."""
    from circuit_claims.papers.refined_llc.recording.coefficients import rows_digest

    return rows_digest(text_rows(run))


def _model(run: LiveRun, checkpoint: str) -> Any:
    from circuit_claims.papers.refined_llc.recording.recorded import model_at

    return model_at(run, checkpoint)


@measure
def ablation_effects(run: Any, *, checkpoint: str, text: str, resample: bool = False) -> Measurement:
    """Loss added at each token by ablating each head: array `effects` (layer, head, row, pos), in nats."""
    import torch

    from circuit_claims.heads.composition import head_loss_changes

    rows = text_rows(run)
    order = torch.arange(len(rows)).roll(1) if resample else None
    effects = head_loss_changes(_model(run, checkpoint), rows, order=order).numpy().astype(np.float32)
    texts, put = list(text_names(run)), "another row's" if resample else "the mean"
    facts = {"checkpoint": checkpoint, "texts": texts, "replaced by": put}
    return Measurement("loss added by ablation", None, unit="nats", n=effects[0, 0].size, arrays={"effects": effects},
                       facts=facts)  # fmt: skip


@measure
def multigram_samples(run: Any, *, checkpoint: str, text: str) -> Measurement:
    """Every affected token of every head with its labels under the usual `multigrams.Rules`.

    Arrays, one row a sample, each head's strongest first: `head` (its number among all heads), `effect` in nats,
    `label` (sample, rule) an index into `multigrams.LABELS` by context and by source, `pattern` (sample, 3). Facts hold
    the strongest samples of each head as text, for a person to check, and how far both rules agree.
    """
    import torch

    from circuit_claims.papers.refined_llc.multigrams import labels as mg

    rows, heads, strings = text_rows(run), head_names(run), token_strings(run)
    effects = torch.from_numpy(ablation_effects(run, checkpoint=checkpoint, text=text).arrays["effects"])
    found = mg.label_samples(_model(run, checkpoint), rows, strings, mg.Rules(), effects=effects)
    same, kappa = mg.label_agreement(found)
    facts = {
        "heads": list(heads), "checkpoint": checkpoint, "rules": asdict(mg.Rules()), "texts": list(text_names(run)),
        "samples": [_shown(sample, rows, strings) for head in heads for sample in _strongest(found, head)],
        "agreement": None if np.isnan(same) else same, "kappa": None if np.isnan(kappa) else kappa,
    }  # fmt: skip
    arrays = sample_arrays(found, rows, heads)
    return Measurement("affected tokens of each head", None, unit="nats", n=len(found), arrays=arrays, facts=facts)


def sample_arrays(found: Sequence[Sample], rows: Any, heads: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of `multigram_samples`."""
    from circuit_claims.papers.refined_llc.multigrams.labels import LABELS, label_pattern

    labels = [[LABELS.index(each) for each in (one.by_context, one.by_source)] for one in found]
    return {
        "head": np.array([heads.index(one.head) for one in found], dtype=np.int16),
        "effect": np.array([one.effect for one in found], dtype=np.float32),
        "label": np.array(labels, dtype=np.int8).reshape(-1, len(RULES)),
        "pattern": np.array([label_pattern(one, rows) for one in found], dtype=np.int32).reshape(-1, 3),
    }


def counts_of(samples: Measurement, rules: Rules, rule: str) -> dict[str, int]:
    """Different multigrams of each head among its stored samples that `rules` take, by their label under one `rule`.

    Raises ValueError for rules that take tokens, or label them in a way, that the stored ones do not.
    """
    from circuit_claims.papers.refined_llc.multigrams.labels import LABELS, MULTIGRAMS

    stored = samples.facts["rules"]
    if rules.at_least < stored["at_least"] or (rules.window, rules.kept) != (stored["window"], stored["kept"]):
        raise ValueError(f"counting multigrams: expected rules as strict as the stored {stored}, found {rules}")
    kinds = [LABELS.index(label) for label in MULTIGRAMS]
    found = {}
    for number, head in enumerate(samples.facts["heads"]):
        mine = np.flatnonzero(samples.arrays["head"] == number)[: rules.most]
        mine = mine[samples.arrays["effect"][mine] >= rules.at_least]
        mine = mine[np.isin(samples.arrays["label"][mine, RULES.index(rule)], kinds)]
        found[head] = len(np.unique(samples.arrays["pattern"][mine], axis=0))
    return found


def _strongest(samples: Sequence[Sample], head: str) -> list[Sample]:
    """The strongest sample of each label first, then the strongest of all, `SHOWN` together."""
    own = sorted((sample for sample in samples if sample.head == head), key=lambda sample: -sample.effect)
    first = list({sample.by_context: sample for sample in reversed(own)}.values())
    return sorted({id(each): each for each in [*first, *own]}.values(), key=lambda each: each not in first)[:SHOWN]


def _shown(sample: Sample, rows: Any, strings: Any) -> dict[str, Any]:
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
    from circuit_claims.papers.refined_llc.recording.rows import tokenizer_of

    tokenizer = tokenizer_of(run)
    return [tokenizer.decode([token]) for token in range(run.run.config.d_vocab)]


@measure
def path_ablation_table(run: Any, *, checkpoint: str, text: str) -> Measurement:
    """Path ablation of all 64 pairs of heads and their composition scores: arrays (writer, reader) for K, Q and V."""
    from circuit_claims.heads.composition import composition, path_effects

    model, rows = _model(run, checkpoint), text_rows(run)
    rows = rows[:: len(rows) // PATH_ROWS]
    changes = path_effects(model, rows).numpy()
    arrays = {"mean": changes.mean((2, 3)), "size": np.abs(changes).mean((2, 3))}
    arrays |= {reader: composition(model, reader).numpy() for reader in ("K", "Q", "V")}
    return Measurement("path ablation", None, unit="nats", n=len(rows), arrays=arrays, facts={"checkpoint": checkpoint})


@measure
def nested_brackets(run: Any, *, checkpoint: str, text: str) -> Measurement:
    """Nested brackets and quotes: path ablation at closers and elsewhere, margins, and what each head adds to them."""
    import torch

    from circuit_claims.heads.composition import path_effects
    from circuit_claims.papers.refined_llc.multigrams import brackets as br

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
