"""The positive control for how heads count: a small GPT-NeoX whose MLP_0 holds a circle of `period` residues.

By construction, and exactly up to a little noise for each token,

    MLP_0(W_E(t)) = circle(n mod period) + magnitude(n // period) + domain(task, form) + a circle of their own for some

with n the index of t (its value for numbers; Monday, January, first, A and I have 1). Head L1H2 adds one: it turns the
circles by one residue, looks for the window of numbers that the successor lies in (carrying where the residue wraps),
keeps the domain, and favours greater magnitudes. Days and letters lie on the shared circle too, but have one of their
own by which the head counts them, so that editing the shared one does not move them; months have another that counts
as much as the shared one, so that an edit has to be twice as large. December and Sunday have no successor in this
plan, as little as twenty has. With another period than ten the head still counts, on other circles.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from harness.measure import Context
from harness.models.architectures_names import parameter_shapes
from harness.successor.dataset import PAPER_TASKS, ROMAN, Task, spell
from harness.successor.planted import TensorTable, word_symbol, word_tokenizer

HEAD = (1, 2)
LAST_NUMBER = 500
COUNTED = Task("numbers", tuple(str(number) for number in range(LAST_NUMBER + 1)))
TASKS: tuple[Task, ...] = (COUNTED, *PAPER_TASKS[1:], ROMAN)
FORMS = ("plain", "space", "inverted", "inverted+space")
WIDER = frozenset({"months", "month prefixes"})
OWN = frozenset({"days", "day prefixes", "letters"})

N_HEADS, D_HEAD, D_MLP = 4, 32, 256
D_MODEL = N_HEADS * D_HEAD
ID_WIDTH = 24
WAVELENGTHS = (10.0, 26.0, 70.0)
"""Of the magnitude code, in windows; a fourth is four times as long as the numbers reach, so that it never turns back.

All are long: a short one would put multiples of the period (odd and even windows) into the code as well.
"""
PARTS: Mapping[str, int] = {
    "circle": 2,
    "wider": 2,
    "magnitude": 2 * (len(WAVELENGTHS) + 1),
    "domain": len(TASKS) + len(FORMS),
    "own": 2,
}
LENGTHS: Mapping[str, float] = {"circle": 3.0, "wider": 3.0, "magnitude": 0.75, "domain": 2.5, "own": 3.0}
"""What each part is multiplied by in MLP_0's output."""
READOUT: Mapping[str, float] = {"circle": 1.0, "wider": 1.0, "magnitude": 2.0, "domain": 1.0, "own": 12.0}
"""How strongly the head's logits depend on each part."""
COPIES = 2
NOISE_NEURONS = 64
NOISE = 0.3
SHARPNESS = 20.0
"""Of the logits: a probability of about a half or more for the successor among the whole vocabulary."""


@dataclass(frozen=True)
class Counted:
    """One token of the planted vocabulary: its spelling, its index, its tasks ("May" is in two)."""

    text: str
    index: int
    tasks: frozenset[str]
    forms: frozenset[str]


def vocabulary() -> tuple[Counted, ...]:
    """Every string of the planted tasks once; one in several tasks ("May", "I") counts as in the first of them."""
    found: dict[str, Counted] = {}
    for task in TASKS:
        for form in task.forms:
            for order, item in enumerate(task.items):
                text = spell(item, form)
                index = order if task is COUNTED else order + 1
                new = Counted(text, index, frozenset({task.name}), frozenset({form}))
                old = found.get(text, new)
                found[text] = replace(old, tasks=old.tasks | new.tasks, forms=old.forms | new.forms)
    return tuple(found.values())


def token_ids() -> dict[str, int]:
    """Ids of the planted strings, those of the saved folder's tokenizer: end of text, 256 bytes, then the strings."""
    tokenizer = word_tokenizer([word.text for word in vocabulary()])
    return {word.text: int(tokenizer.token_to_id(word_symbol(word.text))) for word in vocabulary()}


@dataclass(frozen=True)
class Plan:
    """What is planted. `greater_than` False leaves out the head's preference for greater magnitudes."""

    period: int = 10
    greater_than: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.period < 3:
            raise ValueError(f"period of the planted circle: expected 3 or more, found {self.period}")

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Of the magnitude code, in windows of one period."""
        return (*WAVELENGTHS, 4.0 * (LAST_NUMBER / self.period + 1))

    def circle(self, index: int) -> Float[Tensor, " 2"]:
        """The unit vector of a residue."""
        return _turn(2 * math.pi * index / self.period)

    def magnitude(self, window: int) -> Float[Tensor, " magnitude"]:
        """Which window of numbers, on one slow circle for each wavelength."""
        return torch.cat([_turn(2 * math.pi * window / length) for length in self.wavelengths])

    def code(self, word: Counted) -> dict[str, Tensor]:
        """What MLP_0 writes of a token, part by part, each still to be multiplied by its length."""
        turned = self.circle(word.index)
        return {
            "circle": turned,
            "wider": turned * bool(word.tasks & WIDER),
            "magnitude": self.magnitude(word.index // self.period),
            "domain": _hot(word),
            "own": turned * bool(word.tasks & OWN),
        }

    def wanted(self, word: Counted) -> dict[str, Tensor]:
        """What the unembedding of a token reads: the parts of the token's place as a successor."""
        code = self.code(word)
        # The successors of window w are p w + 1 ... p w + p: the number that carries belongs to the window before.
        magnitude = self.magnitude((word.index - 1) // self.period)
        return {**code, "wider": code["circle"], "own": code["circle"], "magnitude": magnitude}

    def step(self) -> Float[Tensor, "part part"]:
        """What the head does between reading and writing: turn the circles by one residue."""
        turn = _rotation(2 * math.pi / self.period)
        magnitudes = torch.eye(PARTS["magnitude"], dtype=torch.float64)
        if self.greater_than:
            # cos(a - 60 degrees) rises where a, the distance to a window, is small: windows above gain.
            magnitudes[-2:, -2:] = 2 * _rotation(math.pi / 3)
        blocks = {"circle": turn, "wider": turn, "own": turn, "magnitude": magnitudes}
        weighed = [READOUT[part] * blocks.get(part, torch.eye(width, dtype=torch.float64))
                   for part, width in PARTS.items()]  # fmt: skip
        return torch.block_diag(*weighed)


def _turn(angle: float) -> Float[Tensor, " 2"]:
    return torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)


def _rotation(angle: float) -> Float[Tensor, "2 2"]:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def _hot(word: Counted) -> Float[Tensor, " domain"]:
    names = (*(task.name for task in TASKS), *FORMS)
    return torch.tensor([float(name in word.tasks | word.forms) for name in names], dtype=torch.float64)


@dataclass(frozen=True)
class _Spaces:
    """Orthonormal directions, none with a mean (norms take it away): of embeddings, of MLP_0's output, of logits."""

    identity: Float[Tensor, "d_model id"]
    embed: Float[Tensor, "d_model part"]
    mlp0: Float[Tensor, "d_model part"]
    out: Float[Tensor, "d_model part"]

    @classmethod
    def draw(cls, generator: torch.Generator) -> _Spaces:
        """Random ones."""
        width = sum(PARTS.values())
        drawn = torch.randn(D_MODEL, ID_WIDTH + 3 * width, generator=generator, dtype=torch.float64)
        ones = torch.ones(D_MODEL, 1, dtype=torch.float64)
        basis = torch.linalg.qr(torch.cat([ones, drawn], dim=1)).Q[:, 1:]
        return cls(*basis.split([ID_WIDTH, width, width, width], dim=1))


@dataclass
class _Builder:
    """Fills the tensors of one plan."""

    plan: Plan
    words: tuple[Counted, ...] = field(default_factory=vocabulary)

    def build(self) -> TensorTable:
        """All weights, fp32."""
        self.ids = token_ids()
        self.config = _config(max(self.ids.values()) + 1)
        self.generator = torch.Generator().manual_seed(self.plan.seed)
        self.spaces = _Spaces.draw(self.generator)
        self.tensors = {name: self._start(name, shape) for name, shape in parameter_shapes(self.config).items()}
        self._embeddings()
        self._mlp0()
        self._head()
        return TensorTable(self.config, {name: tensor.float() for name, tensor in self.tensors.items()})

    def _start(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """As training starts: small random matrices, norms that change nothing, no biases."""
        if len(shape) > 1:
            return 0.02 * torch.randn(shape, generator=self.generator, dtype=torch.float64)
        ones = name.endswith("norm.weight")
        return torch.ones(shape, dtype=torch.float64) if ones else torch.zeros(shape, dtype=torch.float64)

    def _embeddings(self) -> None:
        """Each token's code and a random part of its own that brings every embedding to one length; the readout."""
        places = [self.ids[word.text] for word in self.words]
        codes = torch.stack([torch.cat(list(self.plan.code(word).values())) for word in self.words])
        own = torch.randn(len(self.words), ID_WIDTH, generator=self.generator, dtype=torch.float64)
        rest = (1.5 * codes.square().sum(1).max() - codes.square().sum(1)).sqrt()
        own = own / own.norm(dim=1, keepdim=True) * rest[:, None]
        embedding = codes @ self.spaces.embed.T + own @ self.spaces.identity.T
        self.tensors["gpt_neox.embed_in.weight"][places] = embedding
        self.reach = float(embedding[0].norm())
        wanted = torch.stack([torch.cat(list(self.plan.wanted(word).values())) for word in self.words])
        readout = torch.zeros_like(self.tensors["embed_out.weight"])
        readout[places] = SHARPNESS / D_MODEL**0.5 * wanted @ self.spaces.out.T
        self.tensors["embed_out.weight"] = readout

    def _mlp0(self) -> None:
        """Neurons that fire around each residue and write it; pairs that pass the other parts through; noise.

        gelu(z) - gelu(-z) = z: two neurons pass a number through exactly.
        """
        prefix = "gpt_neox.layers.0.mlp.dense_"
        W_in, W_out = torch.zeros(D_MLP, D_MODEL, dtype=torch.float64), torch.zeros(D_MODEL, D_MLP, dtype=torch.float64)
        bias = torch.zeros(D_MLP, dtype=torch.float64)
        scale = self.reach / D_MODEL**0.5  # undoes the norm before MLP_0: all embeddings have one length
        period, steep, threshold = self.plan.period, 4.0, 0.5
        angles = torch.stack([self.plan.circle(residue) for residue in range(period)])  # (residue, 2)
        W_in[:period] = steep * scale * angles @ self.spaces.embed[:, :2].T
        bias[:period] = -steep * threshold
        fired = torch.nn.functional.gelu(steep * (angles[0] @ angles.T) - steep * threshold)
        W_out[:, :period] = LENGTHS["circle"] / (fired @ (angles @ angles[0])) * self.spaces.mlp0[:, :2] @ angles.T
        lengths = torch.cat([torch.full((width,), LENGTHS[part]) for part, width in PARTS.items()]).double()
        at = period
        for _ in range(COPIES):
            for sign in (1.0, -1.0):
                here = slice(at, at + len(lengths) - 2)
                W_in[here] = sign * scale * self.spaces.embed[:, 2:].T
                W_out[:, here] = sign / COPIES * lengths[2:] * self.spaces.mlp0[:, 2:]
                at = here.stop
        noisy = slice(at, at + NOISE_NEURONS)
        reads = torch.randn(NOISE_NEURONS, ID_WIDTH, generator=self.generator, dtype=torch.float64)
        writes = torch.randn(len(lengths), NOISE_NEURONS, generator=self.generator, dtype=torch.float64)
        W_in[noisy] = scale / ID_WIDTH**0.5 * reads @ self.spaces.identity.T
        W_out[:, noisy] = NOISE / (NOISE_NEURONS * len(lengths)) ** 0.5 * self.spaces.mlp0 @ writes
        self.tensors |= {f"{prefix}h_to_4h.weight": W_in, f"{prefix}h_to_4h.bias": bias}
        self.tensors[f"{prefix}4h_to_h.weight"] = W_out

    def _head(self) -> None:
        """The head reads what MLP_0 wrote, steps on, and writes what the unembedding reads; it looks at its own token.

        Queries and keys hold the random part of the embedding, where rotary positions do not turn them.
        """
        layer, head = HEAD
        fused = self.tensors[f"gpt_neox.layers.{layer}.attention.query_key_value.weight"]
        parts = fused.unflatten(0, (N_HEADS, 3, D_HEAD))
        width = sum(PARTS.values())
        parts[head] = 0.0
        parts[head, :2, D_HEAD - ID_WIDTH :] = 2.0 * self.spaces.identity.T
        parts[head, 2, :width] = self.spaces.mlp0.T
        out = self.tensors[f"gpt_neox.layers.{layer}.attention.dense.weight"].unflatten(1, (N_HEADS, D_HEAD))
        out[:, head] = 0.0
        out[:, head, :width] = self.spaces.out @ self.plan.step()


def _config(d_vocab: int) -> dict[str, Any]:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": d_vocab,
        "hidden_size": D_MODEL,
        "num_attention_heads": N_HEADS,
        "num_hidden_layers": 2,
        "intermediate_size": D_MLP,
        "max_position_embeddings": 64,
        "rotary_pct": 0.25,
        "hidden_act": "gelu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }


def planted_counter(period: int = 10, *, greater_than: bool = True, seed: int = 0) -> TensorTable:
    """The planted weights (a `TensorSource`). Raises `ValueError` for a period below 3."""
    return _Builder(Plan(period, greater_than, seed)).build()


@dataclass(frozen=True)
class CounterTokens:
    """The planted vocabulary: each string of the planted tasks is one token."""

    ids: Mapping[str, int]
    bos_id: int | None = None

    def single_token(self, text: str) -> int | None:
        """The id of `text`, or None."""
        return self.ids.get(text)


@dataclass(frozen=True)
class CounterSubject:
    """The planted counter as a subject, measured like any other."""

    context: Context
    plan: Plan = Plan()
    name: str = "planted counter"

    def identity(self) -> dict[str, Any]:
        """What is planted; the code that plants it is part of every measure's key."""
        return {"planted counter": dict(vars(self.plan))}

    @cached_property
    def tokens(self) -> CounterTokens:
        """The planted vocabulary."""
        return CounterTokens(token_ids())

    @cached_property
    def tensors(self) -> TensorTable:
        """The planted weights."""
        return _Builder(self.plan).build()


def counter_folder(folder: Path, plan: Plan = Plan()) -> Path:
    """The planted counter saved as a Hugging Face folder with its tokenizer, to be booted whole."""
    from safetensors.torch import save_file

    table = _Builder(plan).build()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in table.tensors.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(table.config), indent=1), encoding="utf-8")
    word_tokenizer([word.text for word in vocabulary()]).save(str(folder / "tokenizer.json"))
    return folder
