"""What kind each head is: previous-token, current-token, induction, bracket; the rest are multigram heads.

Previous-token score and prefix (induction) score follow the authors' code (Hoogland et al. 2024, arXiv 2402.02364,
appendix; Wang et al. 2025, arXiv 2410.02984, section 4). The authors give no rule for current-token and bracket heads:
those two are this project's, stated below. Scores are kept sequence by sequence, so that types can be resampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.heads.effects.results import Head
from circuit_claims.toy.attention import project
from circuit_claims.toy.model import AttentionOnly

TYPES = ("previous-token", "current-token", "induction", "bracket", "multigram")
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
OTHER_CURRENT = (0.1,)  # the bound of previous-token heads


@dataclass(frozen=True)
class Thresholds:
    """At what score a head counts as one of a kind. The authors give no threshold for any.

    0.1 is where the authors' two previous-token heads part from the others in their published numbers; 0.02 is twice
    the attention that a uniform head gives one token of 128. In layer 1 random short sequences alone give
    previous-token scores of 0.12 to 0.18, so previous- and current-token heads are looked for in layer 0 only. A
    current-token head attends to its own position more than to all others together, 0.5: the authors name one head so
    and no more, and less than half of its attention is not what a head is called after. Claims that hang on types are
    tried with `OTHER_CURRENT` beside. A bracket head attends to an opening bracket by `bracket` more than to another
    token in its place, and its output raises the closing bracket's logit above that of `closing` of the vocabulary.
    """

    previous: float = 0.1
    current: float = 0.5
    prefix: float = 0.02
    bracket: float = 0.05
    closing: float = 0.9


USUAL = Thresholds()


@dataclass(frozen=True)
class HeadTypeScores:
    """Scores of every head, one row a sequence; `closing` has one row a kind of bracket (none where there is none)."""

    previous: Float[np.ndarray, "sequence layer head"]
    current: Float[np.ndarray, "sequence layer head"]
    prefix: Float[np.ndarray, "sequence layer head"]
    bracket: Float[np.ndarray, "sequence layer head"]
    closing: Float[np.ndarray, "kind layer head"]

    def means(self) -> dict[str, Float[np.ndarray, "layer head"]]:
        """Each score's mean over sequences; 0 where there are none."""
        tables = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: table.mean(0) if len(table) else np.zeros(table.shape[1:]) for name, table in tables.items()}

    def resampled(self, generator: np.random.Generator) -> HeadTypeScores:
        """The same with sequences drawn anew with replacement, each kind of sequence by itself."""
        first = generator.integers(len(self.previous), size=len(self.previous))
        picks = {"previous": first, "current": first}
        for name in ("prefix", "bracket"):
            count = len(getattr(self, name))
            picks[name] = generator.integers(count, size=count) if count else np.zeros(0, dtype=int)
        return HeadTypeScores(**{name: getattr(self, name)[rows] for name, rows in picks.items()}, closing=self.closing)


def previous_token_scores(
    patterns: Float[Tensor, "row layer head query key"],
) -> Float[Tensor, "row layer head"]:
    """Mean attention of each head to the token before, over all positions but the first. Patterns of any decoder.

    >>> previous_token_scores(torch.eye(4).roll(-1, 1)[None, None, None]).item()
    1.0
    """
    return patterns.diagonal(-1, -2, -1).mean(-1)


def current_token_scores(
    patterns: Float[Tensor, "row layer head query key"],
) -> Float[Tensor, "row layer head"]:
    """Mean attention of each head from a token to itself, over all positions but the first. Patterns of any decoder.

    The first position can look nowhere else, so it says nothing.

    >>> current_token_scores(torch.eye(4)[None, None, None]).item()
    1.0
    """
    return patterns.diagonal(0, -2, -1)[..., 1:].mean(-1)


def prefix_matching_scores(
    patterns: Float[Tensor, "row layer head query key"], period: int
) -> Float[Tensor, "row layer head"]:
    """Mean attention from each token of the second half of `network.repeated_tokens` to the token after its first copy.

    Olsson et al. (2022), the score of induction heads: a head that looks evenly has about 1 / length. Patterns of any
    decoder, on rows whose last `period` tokens repeat the `period` before them. Raises ValueError for shorter rows.

    >>> from circuit_claims.heads.head_types_planted import planted_types_model
    >>> from circuit_claims.heads.network import network_of
    >>> network = network_of(planted_types_model({"0:1": "previous-token", "1:6": "induction"}))
    >>> tokens = torch.arange(20).repeat(2)[None]
    >>> scores = prefix_matching_scores(network.patterns(tokens), period=20)[0]
    >>> bool(scores[1, 6] > 0.9), bool(scores[1, 0] < 0.1)
    (True, True)
    """
    length = patterns.shape[-1]
    if length < 2 * period:
        raise ValueError(f"rows of repeated tokens: expected at least {2 * period} positions, found {length}")
    # Query q holds the token of q - period; the one after it stands at q - period + 1.
    return patterns.diagonal(1 - period, -2, -1)[..., -period:].mean(-1)


def layer_and_head(head: Head) -> str:
    """A head as layer:head, as Wang et al. (2025) write it.

    >>> layer_and_head((1, 6))
    '1:6'
    """
    return f"{head[0]}:{head[1]}"


def all_heads(layers: int, heads: int) -> tuple[str, ...]:
    """Names of all heads, layer by layer."""
    return tuple(layer_and_head((layer, head)) for layer in range(layers) for head in range(heads))


@torch.no_grad()
def attention_rows(
    model: AttentionOnly, tokens: Int[Tensor, "batch pos"], queries: Int[Tensor, " batch"]
) -> Float[Tensor, "batch layer head pos"]:
    """Where each head looks from one position of each sequence: a row of its attention pattern, 0 behind the query."""
    positions, resid = model.positions(tokens.shape[1]), model.embed["W_E"][tokens]
    batch = torch.arange(len(tokens), device=tokens.device)
    ahead = torch.arange(tokens.shape[1], device=tokens.device) > queries[:, None]
    rows = []
    for block in model.blocks:
        attn, located = block.attn, block.ln1(resid) + positions
        query = project(located[batch, queries][:, None], attn.W_Q, attn.b_Q)  # (batch, head, 1, k)
        key = project(located, attn.W_K, attn.b_K)
        scores = (query * key).sum(-1) / key.shape[-1] ** 0.5
        rows.append(scores.masked_fill(ahead[:, None], -torch.inf).softmax(-1))
        resid = block(resid, positions)
    return torch.stack(rows, 1)


@dataclass(frozen=True)
class ProbeSequences:
    """How many sequences of each kind, and what they are made of: ids below `d_vocab` but the beginning's."""

    bos: int
    brackets: tuple[tuple[int, int], ...] = ()
    sequences: int = 200
    chunk: int = 50


def head_type_scores(model: AttentionOnly, probes: ProbeSequences, generator: torch.Generator) -> HeadTypeScores:
    """All scores of all heads of a model."""
    previous, current = _last_position(model, probes, generator)
    return HeadTypeScores(
        previous=previous,
        current=current,
        prefix=_prefix(model, probes, generator),
        bracket=_bracket(model, probes, generator),
        closing=closing_ranks(model, probes.brackets),
    )


def random_tokens(
    model: AttentionOnly, probes: ProbeSequences, length: int, generator: torch.Generator
) -> Int[Tensor, "sequence pos"]:
    """Uniform tokens behind a beginning-of-sequence token, `length` tokens in all."""
    others = torch.tensor([token for token in range(model.config.d_vocab) if token != probes.bos])
    tokens = others[torch.randint(len(others), (probes.sequences, length), generator=generator)]
    tokens[:, 0] = probes.bos
    return tokens


def _rows(
    model: AttentionOnly, probes: ProbeSequences, tokens: Tensor, queries: Tensor
) -> Float[Tensor, "sequence layer head pos"]:
    device = next(model.parameters()).device
    parts = zip(tokens.split(probes.chunk), queries.split(probes.chunk), strict=True)
    return torch.cat([attention_rows(model, part.to(device), at.to(device)).cpu() for part, at in parts])


def _last_position(
    model: AttentionOnly, probes: ProbeSequences, generator: torch.Generator
) -> tuple[Float[np.ndarray, "sequence layer head"], Float[np.ndarray, "sequence layer head"]]:
    """Attention at the last position to the position before and to itself; sequences of 16 to 64 tokens.

    Causal attention makes a sequence of n tokens the first n of a longer one, so all are drawn 64 long and asked at
    their own last position.
    """
    tokens = random_tokens(model, probes, 64, generator)
    last = torch.randint(15, 64, (probes.sequences,), generator=generator)
    rows, each = _rows(model, probes, tokens, last), torch.arange(probes.sequences)
    return rows[each, :, :, last - 1].numpy(), rows[each, :, :, last].numpy()


def _prefix(
    model: AttentionOnly, probes: ProbeSequences, generator: torch.Generator
) -> Float[np.ndarray, "sequence layer head"]:
    """Attention from a token's second copy to the token after its first; sequences of 128, a copy in each half."""
    tokens = random_tokens(model, probes, 128, generator)
    first = torch.randint(1, 63, (probes.sequences,), generator=generator)
    second = torch.randint(64, 128, (probes.sequences,), generator=generator)
    each = torch.arange(probes.sequences)
    tokens[each, second] = tokens[each, first]
    return _rows(model, probes, tokens, second)[each, :, :, first + 1].numpy()


def _bracket(
    model: AttentionOnly, probes: ProbeSequences, generator: torch.Generator
) -> Float[np.ndarray, "sequence layer head"]:
    """Attention from the last of 64 random tokens to an opening bracket, less that to a random token in its place."""
    config = model.config
    if not probes.brackets:
        return np.zeros((0, config.n_layers, config.n_heads), dtype=np.float32)
    plain = random_tokens(model, probes, 64, generator)
    each, last = torch.arange(probes.sequences), torch.full((probes.sequences,), 63)
    at = torch.randint(1, 60, (probes.sequences,), generator=generator)
    opened = plain.clone()
    opened[each, at] = torch.tensor([probes.brackets[index % len(probes.brackets)][0] for index in each.tolist()])
    with_bracket, without = (_rows(model, probes, tokens, last)[each, :, :, at] for tokens in (opened, plain))
    return (with_bracket - without).numpy()


@torch.no_grad()
def closing_ranks(model: AttentionOnly, brackets: Sequence[tuple[int, int]]) -> Float[np.ndarray, "kind layer head"]:
    """Share of the vocabulary whose logit a head that attends to an opening bracket raises less than the closing one's.

    The head's effective OV circuit on the bracket's embedding, read out through the final gain: 0.5 is chance.
    """
    found = []
    for opening, closing in brackets:
        for block in model.blocks:
            normed = block.ln1(model.embed["W_E"][opening])
            values = torch.einsum("d,hdk->hk", normed, block.attn.W_V) + block.attn.b_V
            written = torch.einsum("hk,hkd->hd", values, block.attn.W_O)
            centred = (written - written.mean(-1, keepdim=True)) * model.ln_final.w
            logits = centred @ model.unembed["W_U"]
            found.append((logits < logits[:, [closing]]).float().mean(-1).cpu())
    shape = (len(brackets), model.config.n_layers, model.config.n_heads)
    return torch.stack(found).view(shape).numpy() if found else np.zeros(shape, dtype=np.float32)


def bracket_tokens(vocabulary: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    """Pairs of ids of an opening bracket, alone or behind a space, and its closing one, as far as they are one token.

    >>> bracket_tokens({"(": 5, " (": 6, ")": 7, "[": 8})
    ((5, 7), (6, 7))
    """
    return tuple(
        (vocabulary[form], vocabulary[closing])
        for opening, closing in PAIRS
        for form in (opening, f" {opening}")
        if form in vocabulary and closing in vocabulary
    )


def classify(scores: HeadTypeScores, thresholds: Thresholds = USUAL) -> dict[str, str]:
    """The type of each head by name; the first that fits of previous-token, current-token, induction and bracket."""
    mean = scores.means()
    types = {}
    for layer, head in np.ndindex(mean["previous"].shape):
        at = (layer, head)
        if layer == 0 and mean["previous"][at] >= thresholds.previous:
            kind = "previous-token"
        elif layer == 0 and mean["current"][at] >= thresholds.current:
            kind = "current-token"
        elif layer > 0 and mean["prefix"][at] >= thresholds.prefix:
            kind = "induction"
        elif mean["bracket"][at] >= thresholds.bracket and mean["closing"][at] >= thresholds.closing:
            kind = "bracket"
        else:
            kind = "multigram"
        types[layer_and_head(at)] = kind
    return types


def heads_of_type(types: Mapping[str, str], kind: str) -> str:
    """The heads of one type as a label, "none" where there are none.

    >>> heads_of_type({"0:1": "bracket", "1:3": "bracket", "1:4": "multigram"}, "bracket")
    '0:1, 1:3'
    """
    return ", ".join(name for name, found in types.items() if found == kind) or "none"


def label_support(
    scores: HeadTypeScores, kind: str, draws: int, generator: np.random.Generator, thresholds: Thresholds = USUAL
) -> dict[str, float]:
    """Share of bootstrap draws over sequences in which each set of heads was the one of type `kind`."""
    labels = [heads_of_type(classify(scores.resampled(generator), thresholds), kind) for _ in range(draws)]
    return {label: labels.count(label) / draws for label in sorted(set(labels))}
