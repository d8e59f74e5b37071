"""Training of the attention-only models by the published recipe: AdamW, constant rate, no warm-up, no clipping.

Hoogland et al. 2024 and Wang et al. 2025: 50,000 steps of 100 rows of 1,024 tokens, one pass. Sizes are parameters
because two cores cannot do that; everything else is the recipe's, until a later phase says otherwise. A step's batch
follows from its number, so a killed run that resumes ends with the same weights, bit for bit on a CPU with the same
number of threads.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from torch import Tensor

from circuit_claims.keeping.atomic import write_bytes_atomically, write_text_atomically
from circuit_claims.toy.checkpoints import CARD, LOSSES, RunError, save_checkpoint
from circuit_claims.toy.corpus import Corpus
from circuit_claims.toy.fast import fast_loss, plain_loss
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

STATE = "state.safetensors"
TEST_ROWS = 64
PART_TOKENS = 2_048
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Phase:
    """What holds from the update on that follows `start` others."""

    start: int
    batch: int
    lr: float
    weight_decay: float

    @classmethod
    def parse(cls, text: str) -> Phase:
        """A phase as it is typed, STEP:BATCH:RATE:DECAY. Raises `RunError` for anything else.

        >>> Phase.parse("41000:32:1e-3:0.05")
        Phase(start=41000, batch=32, lr=0.001, weight_decay=0.05)
        """
        parts = text.split(":")
        try:
            start, batch, lr, decay = parts
            return cls(int(start), int(batch), float(lr), float(decay))
        except ValueError:
            raise RunError(
                f"training: expected a later phase as STEP:BATCH:RATE:DECAY, found {text!r}\n"
                "  Type for instance: --later 41000:32:1e-3:0.05"
            ) from None


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; the defaults are the published run's.

    `later` are phases with another batch, rate or weight decay, in order. The seed draws the initial weights and the
    order of the rows, pass by pass. Weights are kept at steps even in their logarithm and every `keep_every` updates.
    """

    n_layers: int = 2
    steps: int = 50_000
    batch: int = 100
    n_ctx: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 1
    precision: str = "fp32"
    later: tuple[Phase, ...] = ()
    keep_every: int = 2_500

    def __post_init__(self) -> None:
        for name in ("n_layers", "steps", "batch", "lr", "keep_every"):
            if not getattr(self, name) > 0:
                raise RunError(f"training: expected {name} above 0, found {getattr(self, name)}")
        if self.n_ctx < 2:
            raise RunError(f"training: expected a context of at least 2 tokens, found {self.n_ctx}")
        starts = [phase.start for phase in self.later]
        wrong = [one for one in self.later if one.start < 1 or one.batch < 1 or one.lr <= 0 or one.weight_decay < 0]
        if wrong or starts != sorted(set(starts)):
            raise RunError(
                "training: expected later phases in order, each with a start and a batch of 1 or more, a rate above 0 "
                f"and a weight decay of 0 or more\n  found     {self.later}\n"
                "  Type for instance: --later 41000:32:1e-3:0.05"
            )
        if self.precision not in DTYPES:
            found = f"found {self.precision!r}\n  Type: --precision bf16"
            raise RunError(f"training: expected precision fp32 or bf16, {found}")

    @property
    def model(self) -> AttentionOnlyConfig:
        """Sizes of the model: the paper's but for layers and context."""
        return AttentionOnlyConfig(n_layers=self.n_layers, n_ctx=self.n_ctx)

    def phase(self, step: int) -> Phase:
        """What holds for the update that follows `step` others."""
        first = Phase(0, self.batch, self.lr, self.weight_decay)
        return next((phase for phase in reversed(self.later) if step >= phase.start), first)

    def rows_before(self, step: int) -> int:
        """Rows read by the first `step` updates."""
        starts = [0, *(phase.start for phase in self.later if phase.start < step), step]
        return sum((end - start) * self.phase(start).batch for start, end in pairwise(starts))

    def tokens_before(self, step: int) -> int:
        """Tokens read by the first `step` updates, BOS included."""
        return self.rows_before(step) * self.n_ctx

    def continues(self, other: Recipe, step: int) -> bool:
        """Whether a run of `other` that stands at `step` is one of this recipe so far."""
        same = replace(self, steps=other.steps, later=other.later) == other
        passed = [[phase for phase in recipe.later if phase.start < step] for recipe in (self, other)]
        return same and passed[0] == passed[1]


@dataclass(frozen=True)
class Step:
    """What is known after an update: its number, mean training loss since the last report, speed, test loss.

    `share_of_peak`: of the machine's best rate of matrix products, measured in the same process.
    """

    number: int
    train_loss: float
    tokens_per_second: float
    test_loss: float | None = None
    share_of_peak: float = math.nan

    @property
    def reported(self) -> bool:
        """Whether this update closed a report: every hundredth, every checkpoint, the last."""
        return not math.isnan(self.train_loss)


@dataclass
class Trainer:
    """One run in one folder. `advance` yields after each update until the recipe's last step."""

    recipe: Recipe
    corpus: Corpus
    folder: Path
    device: str = "cpu"
    save_every: int = 500
    model: AttentionOnly = field(init=False)
    optimiser: torch.optim.AdamW = field(init=False)
    step: int = field(init=False, default=0)
    _sum: Float[Tensor, ""] = field(init=False)
    _count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.corpus.n_ctx != self.recipe.n_ctx:
            raise RunError(f"training: expected rows of {self.recipe.n_ctx} tokens, found {self.corpus.n_ctx}")
        if len(self.corpus.train) < self.recipe.batch:
            raise RunError(
                f"training: a step needs {self.recipe.batch:,} rows\n  found     {len(self.corpus.train):,} rows\n"
                "  Give more text, or ask for a smaller batch."
            )
        self.model = AttentionOnly(self.recipe.model).initialise(self.recipe.seed).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.recipe.lr,
            betas=self.recipe.betas,
            weight_decay=self.recipe.weight_decay,
            fused=True,
        )
        self._sum = torch.zeros((), device=self.device)

    def advance(self) -> Iterator[Step]:
        """Train to the end, from the saved state where there is one; checkpoints, curve and state are kept on the way.

        Raises `RunError` where another process trains in the folder or the folder is another run's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                self._begin()
                yield from self._updates()
        except Timeout:
            raise RunError(f"run {self.folder}\n  expected  no other training here\n  found     one at work") from None

    def _updates(self) -> Iterator[Step]:
        schedule = checkpoint_steps(self.recipe.steps, self.recipe.keep_every)
        began, first = time.monotonic(), self.step
        while self.step < self.recipe.steps:
            phase = self.recipe.phase(self.step)
            self.optimiser.param_groups[0].update(lr=phase.lr, weight_decay=phase.weight_decay)
            self._sum += self.update(self.rows(self.step))
            self._count += 1
            self.step += 1
            due, last = self.step in schedule, self.step == self.recipe.steps
            read = self.recipe.tokens_before(self.step) - self.recipe.tokens_before(first)
            speed = read / (time.monotonic() - began)
            mean, test = float("nan"), None
            if due or self.step % 100 == 0 or last:
                mean, test = self._report(due)
            if due or self.step % self.save_every == 0 or last:
                self._save()
            yield Step(self.step, mean, speed, test)

    def rows(self, step: int) -> Int[Tensor, "batch pos"]:
        """The batch of a step: the next rows of the corpus, in the order of the seed and the pass."""
        first = self.recipe.rows_before(step)
        numbers = [self._row(number) for number in range(first, first + self.recipe.phase(step).batch)]
        return torch.from_numpy(self.corpus.train[numbers].astype("int64")).to(self.device)

    def _row(self, number: int) -> int:
        reading, place = divmod(number, len(self.corpus.train))
        return int(pass_order(reading, len(self.corpus.train), self.recipe.seed)[place])

    def update(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
        """One AdamW step; returns the loss before it. Raises `RunError` where the loss is no longer a number."""
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        # On a CPU a large batch is slower than its parts in turn, whose logits stay in the cache.
        rows = max(1, PART_TOKENS // self.recipe.n_ctx) if self.device == "cpu" else len(tokens)
        for part in tokens.split(rows):
            loss = self.loss(part) * (len(part) / len(tokens))
            loss.backward()
            total += loss.detach()
        self.optimiser.step()
        return total

    def loss(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
        """The training loss in the recipe's precision on this device."""
        if self.device == "cpu":
            return fast_loss(self.model, tokens, DTYPES[self.recipe.precision])
        if self.recipe.precision == "fp32":
            return plain_loss(self.model, tokens)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            return plain_loss(self.model, tokens)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean loss in nats on the first held-out rows, fp32."""
        rows = torch.from_numpy(self.corpus.test[:TEST_ROWS].astype("int64"))
        parts = [plain_loss(self.model, part.to(self.device)).item() * len(part) for part in rows.split(8)]
        return sum(parts) / len(rows)

    def _begin(self) -> None:
        about, path = self._card(), self.folder / CARD
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else about
        if (self.folder / STATE).exists():
            self._resume()
        wrong = [name for name in about if name not in ("corpus_card", "recipe") and found.get(name) != about[name]]
        if not self.recipe.continues(recipe_of(found["recipe"]), self.step):
            wrong.append("recipe")
        if wrong:
            detail = "; ".join(f"{name}: {found.get(name)} -> {about[name]}" for name in wrong)
            raise RunError(
                f"run {self.folder}\n  expected  the run that was begun here\n  found     other settings ({detail})\n"
                "  Use the same settings, or another folder."
            )
        write_text_atomically(path, json.dumps(about, indent=1) + "\n")
        if self.step == 0:
            write_text_atomically(self.folder / LOSSES, "step,tokens,train_loss,test_loss\n")
            save_checkpoint(self.folder, 0, self.model)
            self._log(0, float("nan"), self.held_out_loss())

    def _card(self) -> dict[str, Any]:
        return {
            "model": asdict(self.recipe.model),
            "recipe": json.loads(json.dumps(asdict(self.recipe))),
            "corpus": self.corpus.digest,
            "tokenizer": self.corpus.card["tokenizer"],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "device": self.device.split(":")[0],
            "corpus_card": self.corpus.card,
        }

    def _report(self, due: bool) -> tuple[float, float | None]:
        mean, test = float(self._sum) / self._count, None
        if not math.isfinite(mean):
            raise RunError(f"training: the loss is {mean} near step {self.step}; the last saved state stands")
        self._sum.zero_()
        self._count = 0
        if due:
            save_checkpoint(self.folder, self.step, self.model)
            test = self.held_out_loss()
        self._log(self.step, mean, test)
        return mean, test

    def _log(self, step: int, train: float, test: float | None) -> None:
        cells = [step, self.recipe.tokens_before(step), "" if math.isnan(train) else f"{train:.6f}"]
        with (self.folder / LOSSES).open("a", encoding="utf-8") as file:
            file.write(",".join(map(str, [*cells, "" if test is None else f"{test:.6f}"])) + "\n")

    def _save(self) -> None:
        from safetensors.torch import save

        tensors = {f"weight/{name}": tensor.detach() for name, tensor in self.model.named_parameters()}
        for name, parameter in self.model.named_parameters():
            for key, tensor in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{key}/{name}"] = tensor
        # The running sum goes along: a report after a resume covers what one without would.
        tensors |= {"sum": self._sum, "count": torch.tensor(self._count), "at": torch.tensor(self.step)}
        write_bytes_atomically(self.folder / STATE, save({k: v.cpu().contiguous() for k, v in tensors.items()}))

    def _resume(self) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.folder / STATE
        try:
            tensors = load(path.read_bytes())
            self.step, self._count = int(tensors.pop("at")), int(tensors.pop("count"))
            self._sum = tensors.pop("sum").to(self.device)
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(tensors.pop(f"weight/{name}"))
                    state = {key.split("/")[0]: key for key in tensors if key.split("/", 1)[1] == name}
                    if state:
                        kept = {short: tensors[key].to(self.device) for short, key in state.items()}
                        self.optimiser.state[parameter] = {**kept, "step": kept["step"]}
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise RunError(
                f"state {path}\n  expected  the state of this run\n  found     {error}\n  Delete it to begin anew."
            ) from None
        self._forget_later_losses()

    def _forget_later_losses(self) -> None:
        head, *rows = (self.folder / LOSSES).read_text(encoding="utf-8").splitlines()
        kept = [row for row in rows if row.count(",") == 3 and int(row.split(",")[0]) <= self.step]
        write_text_atomically(self.folder / LOSSES, "\n".join([head, *kept]) + "\n")


def recipe_of(card: Mapping[str, Any]) -> Recipe:
    """The recipe a run card holds."""
    later = tuple(Phase(**phase) for phase in card.get("later", ()))
    return Recipe(**{**card, "betas": tuple(card["betas"]), "later": later})


@cache
def pass_order(reading: int, rows: int, seed: int) -> Int[np.ndarray, " row"]:
    """The order in which a pass (0 is the first) reads the corpus' rows."""
    return np.random.default_rng([seed, reading]).permutation(rows)


def checkpoint_steps(steps: int, every: int, per_decade: int = 8) -> frozenset[int]:
    """Steps whose weights are kept: evenly in the logarithm, and every `every`, and the last."""
    logged = {round(10 ** (index / per_decade)) for index in range(int(per_decade * math.log10(steps)) + 1)}
    return frozenset({step for step in logged | set(range(every, steps, every)) if step <= steps} | {steps})


def flops_per_token(config: AttentionOnlyConfig) -> float:
    """Floating-point operations of the matrix products of one training token: forward once, backward twice.

    Counts projections, scores and mixing over the causal half, and the readout; a multiply-add is two.
    """
    width, inner = config.d_model, config.n_heads * config.d_head
    layer = 4 * width * inner + 2 * inner * (config.n_ctx + 1) / 2
    return 3 * 2 * (config.n_layers * layer + width * config.d_vocab)


def matmul_peak(
    dtype: torch.dtype, size: int = 2048, repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The machine's best rate of square matrix products in floating-point operations a second."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    best = math.inf
    for _ in range(repeats):
        began = clock()
        torch.mm(left, right)
        best = min(best, clock() - began)
    return 2 * size**3 / best
