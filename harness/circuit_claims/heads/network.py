"""One face for every decoder that runs: tokens in, logits, losses, patterns, heads' writes, and heads ablated.

A pretrained model, a folder of weights, a training run at a checkpoint, an attention-only model made by hand: a measure
written against `Network` takes them all. Hook names and shapes are transformer-lens' own, weights are verified as they
are read and never folded or centred, all is fp32. Read `network_of` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from circuit_claims.errors import InputError
from circuit_claims.heads.effects.results import Head
from circuit_claims.models.resolve import LocalModel
from circuit_claims.toy.checkpoints import RunFolder
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

if TYPE_CHECKING:
    from circuit_claims.texts.sources import Text
    from circuit_claims.texts.windows import Contexts

By = Literal["zero", "mean", "resample"]
Hook = tuple[str, Callable[..., Any]]
Weights = Literal["trained", "untrained"]


@dataclass(frozen=True)
class HeadWeights:
    """The matrices of one layer's heads, keys and values of shared heads repeated, biases left out."""

    W_Q: Float[Tensor, "head d_model d_head"]
    W_K: Float[Tensor, "head d_model d_head"]
    W_V: Float[Tensor, "head d_model d_head"]
    W_O: Float[Tensor, "head d_head d_model"]


@dataclass
class TokenIds:
    """How a network reads text: the ids of a text, and the token in front of every text, or None for a model without.

    It is what `texts.windows.draw_contexts` asks of a tokenizer.
    """

    ids: Callable[[str], Sequence[int]]
    bos_id: int | None

    def encode(self, text: str) -> list[int]:
        """The ids of `text` and of nothing else."""
        return [int(token) for token in self.ids(text)]


@dataclass
class Network:
    """A decoder ready to run. Rows of a batch are run together: give as many as memory holds.

    `n_ctx` is the longest context, 0 where there is no limit. `reading` is None for a network without a tokenizer.

    >>> model = AttentionOnly(AttentionOnlyConfig(n_layers=2, d_vocab=11, n_ctx=4)).initialise(seed=1)
    >>> made = network_of(model)
    >>> made.n_layers, made.heads[-1], made.forward(torch.tensor([[1, 2, 3]])).shape
    (2, (1, 7), torch.Size([1, 3, 11]))
    """

    name: str
    n_layers: int
    n_heads: int
    d_model: int
    d_vocab: int
    n_ctx: int
    hooked: Any = field(repr=False)
    reading: TokenIds | None = field(default=None, repr=False)
    device: str = "cpu"
    _hooks: list[Hook] = field(default_factory=list, repr=False)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Every head as (layer, head), layer by layer."""
        return tuple((layer, head) for layer in range(self.n_layers) for head in range(self.n_heads))

    @property
    def bos_id(self) -> int | None:
        """The token in front of every text, None for a network trained without one or without a tokenizer."""
        return None if self.reading is None else self.reading.bos_id

    def tokens(self, text: str) -> Int[Tensor, "1 pos"]:
        """Ids of a text as one row, the token that the network expects in front of it. Raises `InputError`."""
        if self.reading is None:
            raise InputError(f"{self.name} has no tokenizer: expected token ids, found text")
        front = [] if self.bos_id is None else [self.bos_id]
        return torch.tensor([[*front, *self.reading.encode(text)]])

    def random_tokens(self, rows: int, length: int, generator: torch.Generator) -> Int[Tensor, "row pos"]:
        """Uniform ids, `length` in a row, none of them the token in front, which is the first of each row if any."""
        low_end = self.d_vocab - (self.bos_id is not None)
        drawn = torch.randint(low_end, (rows, length), generator=generator)
        if self.bos_id is None:
            return drawn
        drawn += drawn >= self.bos_id
        drawn[:, 0] = self.bos_id
        return drawn

    def repeated_tokens(self, rows: int, period: int, generator: torch.Generator) -> Int[Tensor, "row pos"]:
        """Rows of `period` uniform ids said twice, behind the token in front if there is one (Olsson et al. 2022)."""
        front = int(self.bos_id is not None)
        once = self.random_tokens(rows, period + front, generator)
        return torch.cat([once, once[:, front:]], 1)

    @torch.no_grad()
    def forward(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos vocab"]:
        """Logits in nats. Raises `InputError` for rows longer than the context or ids outside the vocabulary."""
        return self.run_with_hooks(tokens, [])

    @torch.no_grad()
    def run_with_hooks(self, tokens: Int[Tensor, "row pos"], hooks: Sequence[Hook]) -> Float[Tensor, "row pos vocab"]:
        """Logits with `hooks`, pairs (name, function of tensor and hook), by transformer-lens' names and rules."""
        return self.hooked.run_with_hooks(self._ready(tokens), fwd_hooks=[*self._hooks, *hooks])

    @torch.no_grad()
    def run_with_cache(
        self, tokens: Int[Tensor, "row pos"], names: Sequence[str]
    ) -> tuple[Float[Tensor, "row pos vocab"], dict[str, Tensor]]:
        """Logits and the intermediates called `names`, by transformer-lens' names. Raises KeyError for an unknown one.

        >>> from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
        >>> made = AttentionOnly(AttentionOnlyConfig(n_layers=1, d_vocab=11, n_ctx=4)).initialise(seed=1)
        >>> tokens = torch.tensor([[1, 2, 3]])
        >>> logits, cache = network_of(made).run_with_cache(tokens, ["blocks.0.attn.hook_pattern"])
        >>> logits.shape, cache["blocks.0.attn.hook_pattern"].shape
        (torch.Size([1, 3, 11]), torch.Size([1, 8, 3, 3]))
        """
        kept: dict[str, Tensor] = {}

        def keeper(name: str) -> Callable[..., None]:
            # By the name that was asked for: a hook may have several, and says but one of them.
            def keep(tensor: Tensor, hook: Any) -> None:
                del hook
                kept[name] = tensor.detach()

            return keep

        logits = self.run_with_hooks(tokens, [(name, keeper(name)) for name in names])
        return logits, {name: kept[name] for name in names}

    def patterns(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row layer head query key"]:
        """Where every head looks: each query's shares sum to one over the keys up to it."""
        return torch.stack(self._of_each_layer(tokens, "hook_pattern"), 1)

    def head_outputs(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row layer head pos d_model"]:
        """What every head adds to the residual stream, without the shared bias and before any norm behind the heads."""
        each = self._of_each_layer(tokens, "hook_z")
        written = [torch.einsum("rphk,hkd->rhpd", z, self.weights(layer).W_O) for layer, z in enumerate(each)]
        return torch.stack(written, 1)

    def loss(self, tokens: Int[Tensor, "row pos"]) -> Float[Tensor, "row target"]:
        """Next-token loss in nats of each token but the first: one fewer than there are positions."""
        logits = self.forward(tokens)[:, :-1]
        targets = tokens[:, 1:].to(logits.device)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)

    @contextmanager
    def ablated(
        self, heads: Sequence[Head], by: By = "zero", *, of: Int[Tensor, "row pos"] | None = None
    ) -> Iterator[Network]:
        """Inside, the outputs of `heads`, (layer, head), are replaced in everything that is run.

        `zero`: by nothing. `mean`: by their mean over rows and positions. `resample`: by those of the row before, at
        the same position. Means are those of the rows `of` where given, else of the rows that are run.
        Raises `InputError` for a head that the network does not have.

        >>> from circuit_claims.heads.head_types_planted import planted_types_model
        >>> network = network_of(planted_types_model({"0:1": "previous-token", "1:6": "induction"}))
        >>> tokens = torch.arange(20).repeat(2)[None]
        >>> with network.ablated([(1, 6)]):
        ...     without = network.loss(tokens)
        >>> bool(without[0, 25:].mean() > network.loss(tokens)[0, 25:].mean())
        True
        """
        by_layer = self._by_layer(heads)
        names = [f"blocks.{layer}.attn.hook_z" for layer in by_layer]
        means = (
            {name: z.mean((0, 1)) for name, z in self.run_with_cache(of, names)[1].items()} if of is not None else {}
        )
        added: list[Hook] = [
            (name, _replacing(some, by, means.get(name))) for name, some in zip(names, by_layer.values(), strict=True)
        ]
        before = self._hooks
        self._hooks = [*before, *added]
        try:
            yield self
        finally:
            self._hooks = before

    @torch.no_grad()
    def weights(self, layer: int) -> HeadWeights:
        """The matrices of a layer's heads; a query head has the key and value matrix of the head that serves it."""
        attn = self.hooked.model.blocks[layer].attn if self._is_toy else self.hooked.blocks[layer].attn
        wide = [getattr(attn, name).detach() for name in ("W_Q", "W_K", "W_V", "W_O")]
        return HeadWeights(*(one.repeat_interleave(self.n_heads // len(one), dim=0) for one in wide))

    @property
    def _is_toy(self) -> bool:
        return isinstance(getattr(self.hooked, "model", None), AttentionOnly)

    def _of_each_layer(self, tokens: Tensor, name: str) -> list[Tensor]:
        names = [f"blocks.{layer}.attn.{name}" for layer in range(self.n_layers)]
        return list(self.run_with_cache(tokens, names)[1].values())

    def _by_layer(self, heads: Sequence[Head]) -> dict[int, list[int]]:
        strange = [head for head in heads if tuple(head) not in self.heads]
        if strange:
            raise InputError(
                f"heads of {self.name}: expected (layer, head) below ({self.n_layers}, {self.n_heads}), "
                f"found {', '.join(map(str, strange))}"
            )
        layers = sorted({layer for layer, _ in heads})
        return {layer: sorted({head for at, head in heads if at == layer}) for layer in layers}

    def _ready(self, tokens: Tensor) -> Tensor:
        if self.n_ctx and tokens.shape[1] > self.n_ctx:
            raise InputError(f"{self.name}: expected rows of at most {self.n_ctx} tokens, found {tokens.shape[1]}")
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or high >= self.d_vocab:
            strange = low if low < 0 else high
            raise InputError(f"{self.name}: expected token ids from 0 to {self.d_vocab - 1}, found {strange}")
        return tokens.to(self.device)


def _replacing(heads: list[int], by: By, mean: Tensor | None) -> Callable[..., Tensor]:
    """A hook on what heads have gathered: W_O is linear, so replacing it replaces what they write."""

    def replace(z: Float[Tensor, "row pos head d_head"], hook: Any) -> Tensor:
        del hook
        if by == "resample" and len(z) < 2:
            raise InputError("resample ablation: expected two rows of tokens or more, found one")
        changed = z.clone()
        if by == "zero":
            changed[:, :, heads] = 0.0
        elif by == "mean":
            changed[:, :, heads] = (z.mean((0, 1)) if mean is None else mean)[heads]
        else:
            changed[:, :, heads] = z.roll(1, 0)[:, :, heads]
        return changed

    return replace


def network_of(subject: Any, *, step: int | None = None, weights: Weights = "trained", seed: int = 0) -> Network:
    """A subject of claims, ready to run: a pretrained model, a training run, a model's folder, an attention-only model.

    `step` is the checkpoint of a training run, by default its last. With `weights` "untrained" the network has the
    subject's shape and tokenizer and the weights that training would start from, drawn with `seed`: a control.
    Raises `InputError` for a subject without weights (recorded numbers), and the errors of the weights' own readers.

    >>> from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
    >>> made = AttentionOnly(AttentionOnlyConfig(n_layers=1, d_vocab=11, n_ctx=4)).initialise(seed=1)
    >>> network = network_of(made)
    >>> network.n_layers, network.n_heads, network.patterns(torch.tensor([[1, 2, 3]])).shape
    (1, 8, torch.Size([1, 1, 8, 3, 3]))
    """
    device = subject.context.device if hasattr(subject, "context") else "cpu"
    if isinstance(subject, AttentionOnly):
        return _of_toy("attention-only model", _maybe_untrained(subject, weights, seed), None, device)
    run = subject if isinstance(subject, RunFolder) else getattr(subject, "run", None)
    if isinstance(run, RunFolder):
        at = run.steps[-1] if step is None else step
        model = _maybe_untrained(run.model(at), weights, seed)
        name = f"{getattr(subject, 'name', run.folder.name)} at step {at:,}"
        return _of_toy(name, model, _reading_of_run(run), device)
    local = subject if isinstance(subject, LocalModel) else getattr(subject, "model", None)
    if isinstance(local, LocalModel):
        if step is not None:
            raise InputError(f"{local.name}: step is of training runs; for a pretrained model: subject.at_step({step})")
        return _of_pretrained(subject, local, weights, seed, device)
    raise InputError(
        f"network of {getattr(subject, 'name', subject)}: expected a model or a training run with weights, found none\n"
        "  Recorded numbers have no weights to run. Name a model: --claims-subjects NAME"
    )


def _maybe_untrained(model: AttentionOnly, weights: Weights, seed: int) -> AttentionOnly:
    return model if weights == "trained" else AttentionOnly(model.config).initialise(seed).eval()


def _reading_of_run(run: RunFolder) -> TokenIds | None:
    """The run's tokenizer, looked up when a text is first read: many runs are asked about ids alone."""
    if not run.card.get("tokenizer") or not run.tokenizer_path.exists():
        return None
    from circuit_claims.toy.tokenizer import BOS

    return TokenIds(lambda text: run.tokenizer.encode(text).tolist(), BOS)


def _of_toy(name: str, model: AttentionOnly, reading: TokenIds | None, device: str) -> Network:
    from circuit_claims.toy.hooked import hooked

    config: AttentionOnlyConfig = model.config
    sizes = (config.n_layers, config.n_heads, config.d_model, config.d_vocab, config.n_ctx)
    return Network(name, *sizes, hooked(model.to(device)), reading, device)


def _of_pretrained(subject: Any, local: LocalModel, weights: Weights, seed: int, device: str) -> Network:
    from circuit_claims.heads.planted import Untrained
    from circuit_claims.heads.whole_model import whole_model
    from circuit_claims.models.architectures.names import dimensions_of
    from circuit_claims.models.bridge import boot

    dims, table = dimensions_of(local.tensors().config), local.tokenizer()
    if weights == "untrained":
        hooked = boot(local, device, text=False, instead=Untrained(local.tensors(), seed))
    else:
        hooked = boot(local, device, text=False) if isinstance(subject, LocalModel) else whole_model(subject)
    sizes = (dims.n_layers, dims.n_heads, dims.d_model, dims.d_vocab, dims.n_ctx)
    return Network(local.name, *sizes, hooked, TokenIds(table.encode, table.bos_id), device)


def contexts(network: Network, text: Text | str, *, count: int = 128, length: int = 512, seed: int = 0) -> Contexts:
    """Rows of `length` tokens from a text's documents for this network's tokenizer, drawn with `seed`.

    `text` is what the fixture `text` gives, or a name in texts.toml. `.tokens` are the ids, `.clusters` the document
    of each row: the unit to redraw. Raises `InputError` for a network without a tokenizer, ValueError where no document
    is long enough.

    >>> made = network_of(AttentionOnly(AttentionOnlyConfig(n_layers=1, d_vocab=128, n_ctx=8)).initialise(seed=1))
    >>> made.reading = TokenIds(lambda text: [ord(letter) % 128 for letter in text], bos_id=None)
    >>> contexts(made, "python-docs", count=2, length=8).tokens.shape
    (2, 8)
    """
    from circuit_claims.texts.sources import open_text
    from circuit_claims.texts.windows import draw_contexts

    if network.reading is None:
        raise InputError(f"{network.name} has no tokenizer: a text cannot be read with it")
    opened = open_text(text) if isinstance(text, str) else text
    return draw_contexts(opened, network.reading, count=count, length=length, seed=seed)
