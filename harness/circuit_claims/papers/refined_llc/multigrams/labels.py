"""What each head has memorised: ablate it, collect the tokens it helped most, label them, count the multigrams.

The authors ablate each head at two checkpoints, collect the most affected tokens and label them as induction, bracket,
skip n-gram or n-gram; multigrams are n-grams and skip n-grams (Wang et al. 2025, section 4). Their thresholds are not
given: those here are this project's, and two sets of rules label every sample, so that their agreement can be stated.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.composition import ablated_to, head_loss_changes, head_writes, token_losses
from circuit_claims.heads.head_types import layer_and_head
from circuit_claims.toy.model import AttentionOnly

LABELS = ("induction", "bracket", "n-gram", "skip n-gram")
MULTIGRAMS = ("n-gram", "skip n-gram")
CLOSES: Mapping[str, str] = {")": "(", "]": "[", "}": "{", '"': '"'}


@dataclass(frozen=True)
class Rules:
    """Which tokens count as affected and what makes a sample an n-gram.

    A token is affected when ablation costs it `at_least` nats. There is no bound on how many tokens of a head are
    (`most` sets one): a bound that heads reach makes their counts equal, and it is the counts that are compared. The
    authors collect "the most affected" and say neither how many nor how much. A sample is an n-gram when what
    decides it lies within the last `window` tokens; with the context cut to those, at least the share `kept` of the
    head's effect must be left.
    """

    at_least: float = 0.3
    most: int | None = None
    window: int = 3
    kept: float = 0.5


@dataclass(frozen=True)
class Sample:
    """One affected token: where, how much its loss rises, where the head found it, and both labels.

    `position` is that of the token before `target`; `source` the position whose value, as weighted by the head's
    attention, raises the target's logit most.
    """

    head: str
    row: int
    position: int
    effect: float
    target: int
    source: int
    by_context: str
    by_source: str


def affected(effects: Float[Tensor, "row pos"], rules: Rules) -> list[tuple[int, int]]:
    """Rows and positions of the affected tokens, strongest first."""
    flat = effects.flatten()
    values, order = flat.topk(min(rules.most or flat.numel(), flat.numel()))
    kept = order[values >= rules.at_least]
    return [divmod(index, effects.shape[1]) for index in kept.tolist()]


def label_samples(
    model: AttentionOnly,
    tokens: Int[Tensor, "row pos"],
    strings: Sequence[str],
    rules: Rules = Rules(),
    *,
    effects: Float[Tensor, "layer head row pos"] | None = None,
) -> tuple[Sample, ...]:
    """Every affected token of every head with its labels. `strings` gives each id's text; `effects` saves ablating."""
    effects = head_loss_changes(model, tokens) if effects is None else effects
    means = _mean_writes(model, tokens)
    found: list[Sample] = []
    for layer in range(model.config.n_layers):
        for head in range(model.config.n_heads):
            places = affected(effects[layer, head], rules)
            if places:
                found += _label_head(model, tokens, strings, rules, (layer, head), places, effects, means[layer][head])
    return tuple(found)


def _label_head(
    model: AttentionOnly,
    tokens: Tensor,
    strings: Sequence[str],
    rules: Rules,
    head: tuple[int, int],
    places: list[tuple[int, int]],
    effects: Tensor,
    mean: Tensor,
) -> list[Sample]:
    rows, at = (torch.tensor(side) for side in zip(*places, strict=True))
    strength = effects[head][rows, at]
    source = sources(model, tokens, head, rows, at)
    local = _effect_in_window(model, tokens, head, mean, rows, at, rules.window) >= rules.kept * strength.cpu()
    samples = []
    for index, (row, position) in enumerate(places):
        context, target = tokens[row, : position + 1].tolist(), int(tokens[row, position + 1])
        samples.append(
            Sample(
                head=layer_and_head(head),
                row=row,
                position=position,
                effect=float(strength[index]),
                target=target,
                source=int(source[index]),
                by_context=context_label(context, target, strings, bool(local[index])),
                by_source=source_label(context, target, strings, int(source[index]), rules.window),
            )
        )
    return samples


def context_label(context: Sequence[int], target: int, strings: Sequence[str], local: bool) -> str:
    """By what the text allows: an earlier copy of the last token that was followed by the target makes it induction,
    an opening bracket or quote still open that the target closes makes it bracket; the rest is an n-gram where the
    effect is `local`, a skip n-gram where it needs tokens further back.

    >>> context_label([0, 1, 2, 0], 1, ["a", "b", "c"], local=True)
    'induction'
    """
    last = context[-1]
    if any(here == last and after == target for here, after in itertools.pairwise(context)):
        return "induction"
    closing = strings[target].strip()[:1]
    if closing in CLOSES and still_open("".join(strings[token] for token in context)) == CLOSES[closing]:
        return "bracket"
    return "n-gram" if local else "skip n-gram"


def source_label(context: Sequence[int], target: int, strings: Sequence[str], source: int, window: int) -> str:
    """By where the head found it: at the target's own copy behind a copy of the last token, at the bracket that the
    target closes, within the last `window` tokens, or further back.

    >>> source_label([0, 1, 2, 0], 1, ["a", "b", "c"], source=1, window=3)
    'induction'
    """
    if source > 0 and context[source] == target and context[source - 1] == context[-1]:
        return "induction"
    closing, found = strings[target].strip()[:1], strings[context[source]].strip()[-1:]
    if closing in CLOSES and found == CLOSES[closing]:
        return "bracket"
    return "n-gram" if len(context) - source <= window else "skip n-gram"


def still_open(text: str) -> str:
    """The innermost bracket or double quote of `text` that is open at its end, empty where there is none.

    >>> still_open("f(a[0], ")
    '('
    """
    stack: list[str] = []
    for letter in text:
        if letter == '"':
            stack.pop() if stack and stack[-1] == '"' else stack.append('"')
        elif letter in CLOSES.values():
            stack.append(letter)
        elif letter in CLOSES and stack and stack[-1] == CLOSES[letter]:
            stack.pop()
    return stack[-1] if stack else ""


@torch.no_grad()
def sources(
    model: AttentionOnly, tokens: Tensor, head: tuple[int, int], rows: Int[Tensor, " n"], at: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """The position from which a head raises each sample's target most: attention times the value's direct logit."""
    inputs, (layer, index) = tokens[:, :-1], head
    positions, resid = model.positions(inputs.shape[1]), model.embed["W_E"][inputs]
    for block in model.blocks[:layer]:
        resid = block(resid, positions)
    block, normed = model.blocks[layer], model.blocks[layer].ln1(resid)
    attn, located = block.attn, normed + positions
    query = located[rows, at] @ attn.W_Q[index] + attn.b_Q[index]  # (n, k)
    key = located @ attn.W_K[index] + attn.b_K[index]  # (row, pos, k)
    scores = torch.einsum("nk,npk->np", query, key[rows]) / key.shape[-1] ** 0.5
    ahead = torch.arange(inputs.shape[1], device=tokens.device) > at[:, None]
    looks = scores.masked_fill(ahead, -torch.inf).softmax(-1)
    directions = model.ln_final.w * model.unembed["W_U"].T[tokens[rows, at + 1]]  # (n, d)
    pulls = (directions - directions.mean(-1, keepdim=True)) @ attn.W_O[index].T  # (n, k)
    value = normed @ attn.W_V[index] + attn.b_V[index]
    gains = looks * torch.einsum("nk,npk->np", pulls, value[rows])
    # Where every position seen lowers the target, those ahead, at exactly 0, must not win.
    return gains.masked_fill(ahead, -torch.inf).argmax(-1).cpu()


@torch.no_grad()
def _mean_writes(model: AttentionOnly, tokens: Tensor) -> list[Float[Tensor, "head d"]]:
    inputs, found = tokens[:, :-1], []
    resid = model.embed["W_E"][inputs]
    for layer, block in enumerate(model.blocks):
        found.append(head_writes(model, layer, block.ln1(resid)).mean((0, 2)))
        resid = block(resid, model.positions(inputs.shape[1]))
    return found


@torch.no_grad()
def _effect_in_window(
    model: AttentionOnly, tokens: Tensor, head: tuple[int, int], mean: Tensor, rows: Tensor, at: Tensor, window: int
) -> Float[Tensor, " n"]:
    """The head's effect on each sample's target when the context is the last `window` tokens alone.

    A sample with less context than that keeps its effect by definition: infinite.
    """
    effect, long = torch.full((len(rows),), torch.inf), (at >= window).nonzero().flatten()
    if not len(long):
        return effect
    cut = torch.stack([tokens[rows[i], at[i] - window + 1 : at[i] + 2] for i in long])
    resid = model.embed["W_E"][cut[:, :-1]]
    for block in model.blocks:
        resid = block(resid, model.positions(window))
    ablated = ablated_to(model, cut[:, :-1], head, mean)
    before, after = (token_losses(model, each[:, -1:], cut[:, -2:]) for each in (resid, ablated))
    effect[long] = (after - before)[:, 0].cpu()
    return effect


def label_pattern(sample: Sample, tokens: Int[Tensor, "row pos"]) -> tuple[int, int, int]:
    """What a multigram remembers: the token it was found at, the last token, and the target."""
    row = tokens[sample.row]
    return int(row[sample.source]), int(row[sample.position]), sample.target


def count_multigrams(
    samples: Sequence[Sample], tokens: Int[Tensor, "row pos"], heads: Sequence[str], *, rule: str = "by_context"
) -> dict[str, int]:
    """Different multigrams among each head's affected tokens: n-grams and skip n-grams, each pattern once."""
    seen: dict[str, set[tuple[int, int, int]]] = {head: set() for head in heads}
    for sample in samples:
        if getattr(sample, rule) in MULTIGRAMS:
            seen[sample.head].add(label_pattern(sample, tokens))
    return {head: len(found) for head, found in seen.items()}


def label_agreement(samples: Sequence[Sample]) -> tuple[float, float]:
    """Share of samples that both sets of rules label alike, and Cohen's kappa; NaN where there is nothing to compare.

    >>> label_agreement([])
    (nan, nan)
    """
    if not samples:
        return float("nan"), float("nan")
    n = len(samples)
    same = sum(sample.by_context == sample.by_source for sample in samples) / n
    first, second = (Counter(getattr(sample, rule) for sample in samples) for rule in ("by_context", "by_source"))
    chance = sum(first[label] * second[label] for label in LABELS) / n**2
    return same, (same - chance) / (1 - chance) if chance < 1 else float("nan")
