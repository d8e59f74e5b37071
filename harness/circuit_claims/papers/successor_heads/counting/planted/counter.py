"""The positive control for how heads count: a small GPT-NeoX whose MLP_0 holds a circle of `period` residues.

By construction, and exactly up to a little noise for each token,

    MLP_0(W_E(t)) = circle(n mod period) + magnitude(n // period) + task + form + what only some tasks have

with n the index of t (its value for numbers; Monday, January, first, A and I have 1). Head L1H2 adds one: it turns the
circle by one residue, looks for the window of numbers that the successor lies in (carrying where the residue wraps),
keeps the domain, and favours greater magnitudes. What only some tasks have:

- numbers: a direction for each residue beside the circle. It sets their residues well apart, which an autoencoder
  needs; and since two residues a half or a fifth of the circle apart have nothing in common on the circle alone, a
  probe of the index mod 2 or mod 5 has to read it, and finds nothing in the other tasks.
- days and letters: a circle of their own by which the head counts them, so that editing the shared one moves nothing.
- months: another circle that counts as much as the shared one, so that an edit has to be twice as large.

December and Sunday have no successor in this plan, as little as twenty has. With another period than ten the head
still counts, on other circles.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuit_claims.heads.planted import TensorTable, word_symbol, word_tokenizer
from circuit_claims.models.architectures.names import parameter_shapes
from circuit_claims.papers.successor_heads.counting.planted.plan import MOST_RESIDUES, CounterPlan
from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, ROMAN, Task, spell

HEAD = (1, 2)
LAST_NUMBER = 500
COUNTED = Task("numbers", tuple(str(number) for number in range(LAST_NUMBER + 1)))
TASKS: tuple[Task, ...] = (COUNTED, *PAPER_TASKS[1:], ROMAN)
FORMS = ("plain", "space", "inverted", "inverted+space")
WIDER = frozenset({"months", "month prefixes"})
OWN = frozenset({"days", "day prefixes", "letters"})

N_HEADS, D_HEAD, D_MLP = 4, 48, 320
D_MODEL = N_HEADS * D_HEAD
ID_WIDTH = 24
WAVELENGTHS = (3.7, 4.6, 5.9, 7.7, 11.0, 17.0, 31.0)
"""Of the magnitude code, in windows of one period; one more is four times as long as the numbers reach, and so never
turns back. None is near 2 or 3, which would put multiples of the period (odd and even windows) into the code as well.
"""
PARTS: Mapping[str, int] = {
    "circle": 2,
    "residue": MOST_RESIDUES,
    "wider": 2,
    "magnitude": 2 * (len(WAVELENGTHS) + 1),
    "domain": len(TASKS),
    "form": len(FORMS),
    "own": 2,
}
LENGTHS: Mapping[str, float] = dict(zip(PARTS, (5.2, 3.0, 1.5, 0.5, 2.3, 0.4, 1.5), strict=True))
"""What each part is multiplied by in MLP_0's output."""
READOUT: Mapping[str, float] = dict(zip(PARTS, (0.8, 0.8, 3.8, 2.0, 1.2, 6.0, 20.0), strict=True))
"""How strongly the head's logits depend on each part."""
COPIES = 2
NOISE_NEURONS = 64
NOISE = 0.2
SHARPNESS = 8.0
"""Of the logits: the successor is likely, and a feature or neuron less makes it less likely."""


@dataclass(frozen=True)
class CountedTask:
    """One token of the planted vocabulary: its spelling, its index, its tasks ("May" is in two)."""

    text: str
    index: int
    tasks: frozenset[str]
    forms: frozenset[str]


def vocabulary() -> tuple[CountedTask, ...]:
    """Every string of the planted tasks once; one in several tasks ("May", "I") counts as in the first of them."""
    found: dict[str, CountedTask] = {}
    for task in TASKS:
        for form in task.forms:
            for order, item in enumerate(task.items):
                text = spell(item, form)
                index = order if task is COUNTED else order + 1
                new = CountedTask(text, index, frozenset({task.name}), frozenset({form}))
                old = found.get(text, new)
                found[text] = replace(old, tasks=old.tasks | new.tasks, forms=old.forms | new.forms)
    return tuple(found.values())


def token_ids() -> dict[str, int]:
    """Ids of the planted strings, those of the saved folder's tokenizer: end of text, 256 bytes, then the strings."""
    tokenizer = word_tokenizer([word.text for word in vocabulary()])
    return {word.text: int(tokenizer.token_to_id(word_symbol(word.text))) for word in vocabulary()}


@dataclass(frozen=True)
class Codes:
    """The vectors that one plan gives to tokens, and what its head does with them."""

    plan: CounterPlan

    @property
    def wavelengths(self) -> tuple[float, ...]:
        """Of the magnitude code, in windows of one period."""
        return (*WAVELENGTHS, 4.0 * (LAST_NUMBER / self.plan.period + 1))

    def circle(self, index: int) -> Float[Tensor, " 2"]:
        """The unit vector of a residue."""
        return _turn(2 * math.pi * index / self.plan.period)

    def magnitude(self, window: int) -> Float[Tensor, " magnitude"]:
        """Which window of numbers, on one slow circle for each wavelength."""
        return torch.cat([_turn(2 * math.pi * window / length) for length in self.wavelengths])

    def code(self, word: CountedTask) -> dict[str, Tensor]:
        """What the embedding holds of a token, part by part. Directions for residues are made by MLP_0 alone."""
        turned = self.circle(word.index)
        return {
            "circle": turned,
            "residue": torch.zeros(MOST_RESIDUES, dtype=torch.float64),
            "wider": turned * bool(word.tasks & WIDER),
            "magnitude": self.magnitude(word.index // self.plan.period),
            "domain": _hot([task.name for task in TASKS], word.tasks),
            "form": _hot(FORMS, word.forms),
            "own": turned * bool(word.tasks & OWN),
        }

    def wanted(self, word: CountedTask) -> dict[str, Tensor]:
        """What the unembedding of a token reads: the parts of the token's place as a successor."""
        code = self.code(word)
        # The successors of window w are p w + 1 ... p w + p: the number that carries belongs to the window before.
        magnitude = self.magnitude((word.index - 1) // self.plan.period)
        residue = torch.eye(MOST_RESIDUES, dtype=torch.float64)[word.index % self.plan.period]
        residue = residue * (COUNTED.name in word.tasks)
        return {**code, "residue": residue, "wider": code["circle"], "own": code["circle"], "magnitude": magnitude}

    def step(self) -> Float[Tensor, "part part"]:
        """What the head does between reading and writing: turn the circles by one residue."""
        turn = _rotation(2 * math.pi / self.plan.period)
        magnitudes = torch.eye(PARTS["magnitude"], dtype=torch.float64)
        if self.plan.greater_than:
            # cos(a - 60 degrees) rises where a, the distance to a window, is small: windows above gain.
            magnitudes[-2:, -2:] = 2 * _rotation(math.pi / 3)
        next_one = torch.eye(MOST_RESIDUES, dtype=torch.float64)
        next_one[: self.plan.period] = next_one[: self.plan.period].roll(1, dims=0)
        blocks = {"circle": turn, "residue": next_one, "wider": turn, "own": turn, "magnitude": magnitudes}
        weighed = [READOUT[part] * blocks.get(part, torch.eye(width, dtype=torch.float64))
                   for part, width in PARTS.items()]  # fmt: skip
        return torch.block_diag(*weighed)


def _turn(angle: float) -> Float[Tensor, " 2"]:
    return torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)


def _rotation(angle: float) -> Float[Tensor, "2 2"]:
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


def _hot(names: Sequence[str], present: frozenset[str]) -> Float[Tensor, " name"]:
    return torch.tensor([float(name in present) for name in names], dtype=torch.float64)


def _start_of(part: str) -> int:
    """Where a part stands among all parts."""
    names = list(PARTS)
    return sum(PARTS[name] for name in names[: names.index(part)])


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

    codes: Codes
    words: tuple[CountedTask, ...] = field(default_factory=vocabulary)

    def build(self) -> TensorTable:
        """All weights, fp32."""
        self.ids = token_ids()
        self.config = _config(max(self.ids.values()) + 1)
        self.generator = torch.Generator().manual_seed(self.codes.plan.seed)
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
        codes = torch.stack([torch.cat(list(self.codes.code(word).values())) for word in self.words])
        own = torch.randn(len(self.words), ID_WIDTH, generator=self.generator, dtype=torch.float64)
        rest = (1.5 * codes.square().sum(1).max() - codes.square().sum(1)).sqrt()
        own = own / own.norm(dim=1, keepdim=True) * rest[:, None]
        embedding = codes @ self.spaces.embed.T + own @ self.spaces.identity.T
        self.tensors["gpt_neox.embed_in.weight"][places] = embedding
        self.reach = float(embedding[0].norm())
        wanted = torch.stack([torch.cat(list(self.codes.wanted(word).values())) for word in self.words])
        readout = torch.zeros_like(self.tensors["embed_out.weight"])
        readout[places] = SHARPNESS / D_MODEL**0.5 * wanted @ self.spaces.out.T
        self.tensors["embed_out.weight"] = readout

    def _mlp0(self) -> None:
        """Neurons that fire around each residue and write it, others at each residue of numbers alone, and the rest."""
        prefix = "gpt_neox.layers.0.mlp.dense_"
        # Undoes the norm before MLP_0: all embeddings have one length.
        self.scale = self.reach / D_MODEL**0.5
        groups = [self._around_residues(), self._at_residues_of_numbers(), self._passed_through(), self._noise()]
        W_in, bias, W_out = (torch.cat(parts) for parts in zip(*groups, strict=True))
        spare = D_MLP - len(bias)
        pad = torch.nn.functional.pad
        self.tensors |= {
            f"{prefix}h_to_4h.weight": pad(W_in, (0, 0, 0, spare)),
            f"{prefix}h_to_4h.bias": pad(bias, (0, spare)),
            f"{prefix}4h_to_h.weight": pad(W_out, (0, 0, 0, spare)).T.contiguous(),
        }

    @property
    def _circle(self) -> Float[Tensor, "residue 2"]:
        return torch.stack([self.codes.circle(residue) for residue in range(self.codes.plan.period)])

    def _around_residues(self) -> tuple[Tensor, Tensor, Tensor]:
        """One neuron a residue, on at it and a little at its neighbours; together they write the circle."""
        steep, threshold, circle = 4.0, 0.5, self._circle
        fired = torch.nn.functional.gelu(steep * (circle @ circle[0] - threshold))
        length = LENGTHS["circle"] / (fired @ (circle @ circle[0]))
        W_in = steep * self.scale * circle @ self.spaces.embed[:, :2].T
        bias = torch.full((self.codes.plan.period,), -steep * threshold, dtype=torch.float64)
        return W_in, bias, length * circle @ self.spaces.mlp0[:, :2].T

    def _at_residues_of_numbers(self) -> tuple[Tensor, Tensor, Tensor]:
        """One neuron a residue, on at it alone and for numbers alone; each writes a direction of its own."""
        steep, gate, period = 60.0, 10.0, self.codes.plan.period
        threshold = (1 + float(self._circle[1] @ self._circle[0])) / 2  # halfway to the next residue
        at = _start_of("domain")  # numbers are the first of the domains
        number = self.spaces.embed[:, at]
        W_in = self.scale * (steep * self._circle @ self.spaces.embed[:, :2].T + steep * gate * number)
        bias = torch.full((period,), -steep * (gate + threshold), dtype=torch.float64)
        here = _start_of("residue")
        length = LENGTHS["residue"] / (steep * (1 - threshold))
        return W_in, bias, length * self.spaces.mlp0[:, here : here + period].T

    def _passed_through(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pairs of neurons that pass each further number through exactly: gelu(z) - gelu(-z) = z."""
        at = _start_of("wider")
        lengths = torch.cat([torch.full((width,), LENGTHS[part]) for part, width in PARTS.items()]).double()[at:]
        reads, writes = self.scale * self.spaces.embed[:, at:].T, lengths[:, None] * self.spaces.mlp0[:, at:].T
        signs = [1.0, -1.0] * COPIES
        W_in, W_out = (torch.cat([sign * part for sign in signs]) for part in (reads, writes / COPIES))
        return W_in, torch.zeros(len(W_in), dtype=torch.float64), W_out

    def _noise(self) -> tuple[Tensor, Tensor, Tensor]:
        """Neurons that read what is random about a token and write a little of it into what all tasks share."""
        everywhere = {part: float(part in ("circle", "magnitude")) for part in PARTS}
        shared = torch.cat([torch.full((width,), everywhere[part]) for part, width in PARTS.items()])
        reads = torch.randn(NOISE_NEURONS, ID_WIDTH, generator=self.generator, dtype=torch.float64)
        writes = torch.randn(NOISE_NEURONS, len(shared), generator=self.generator, dtype=torch.float64) * shared
        W_in = self.scale / ID_WIDTH**0.5 * reads @ self.spaces.identity.T
        W_out = NOISE / (NOISE_NEURONS * float(shared.sum())) ** 0.5 * writes @ self.spaces.mlp0.T
        return W_in, torch.zeros(NOISE_NEURONS, dtype=torch.float64), W_out

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
        out[:, head, :width] = self.spaces.out @ self.codes.step()


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
    """The planted weights (a `TensorSource`). Raises `ValueError` for a period below 3 or above 12."""
    return _planted(CounterPlan(period, greater_than, seed))


@functools.lru_cache(maxsize=4)
def _planted(plan: CounterPlan) -> TensorTable:
    """Built once: each measure of a planted subject opens it anew."""
    return _Builder(Codes(plan)).build()


def counter_folder(folder: Path, plan: CounterPlan | None = None) -> Path:
    """The planted counter saved as a Hugging Face folder with its tokenizer, to be booted whole."""
    from safetensors.torch import save_file

    table = _Builder(Codes(plan or CounterPlan())).build()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in table.tensors.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(table.config), indent=1), encoding="utf-8")
    word_tokenizer([word.text for word in vocabulary()]).save(str(folder / "tokenizer.json"))
    return folder
