"""Weights of a training run on disk: one safetensors file a checkpoint, loss curve and run card beside them.

`step_00000100.safetensors` holds the weights after 100 updates (step 0: as initialised). A shipped run is the same
folder with fewer checkpoints, in fp16; weights are computed with in fp32 either way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from circuit_claims.errors import ClaimsError
from circuit_claims.keeping.atomic import write_bytes_atomically, write_text_atomically
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from circuit_claims.toy.tokenizer import Tokenizer, open_tokenizer

CARD = "run_card.json"
LOSSES = "loss.csv"
LOSSES_FP32 = "loss_fp32.csv"  # of the same recipe's first steps in fp32, beside a run whose products are in bf16
NAME = re.compile(r"step_(\d{8})\.safetensors")


class RunError(ClaimsError, ValueError):
    """A run folder or checkpoint that is missing, damaged or of another kind; the text says what to type."""


@dataclass(frozen=True)
class RunFolder:
    """A training run: its card and the steps whose weights are at hand."""

    folder: Path
    card: Mapping[str, Any]
    steps: tuple[int, ...]

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Read a run folder. Raises `RunError` where it has no card or no weights."""
        try:
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            AttentionOnlyConfig(**card["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"run {folder}\n  expected  a folder with {CARD} and step_*.safetensors\n  found     {error}\n"
                "  A run is made by: claims train"
            ) from None
        found = sorted(int(match[1]) for path in folder.iterdir() if (match := NAME.fullmatch(path.name)))
        if not found:
            raise RunError(f"run {folder}\n  expected  step_*.safetensors\n  found     none: training has not begun")
        return cls(folder, card, tuple(found))

    @property
    def config(self) -> AttentionOnlyConfig:
        """Sizes of the model."""
        return AttentionOnlyConfig(**self.card["model"])

    @property
    def tokenizer_path(self) -> Path:
        """The run's tokenizer.json: in the folder, or beside it where several runs share one."""
        own = self.folder / "tokenizer.json"
        return own if own.exists() else self.folder.parent / "tokenizer.json"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer. Raises `RunError` where it is not the one the run was trained with."""
        found = open_tokenizer(self.tokenizer_path)
        if found.digest != self.card["tokenizer"]:
            raise RunError(
                f"tokenizer {self.tokenizer_path}\n  expected  sha256 {self.card['tokenizer'][:16]}...\n"
                f"  found     {found.digest[:16]}...\n  The file was changed: fetch the project anew."
            )
        return found

    def path(self, step: int) -> Path:
        """The file of a step. Raises `RunError` naming the nearest steps that are there."""
        if step not in self.steps:
            near = sorted(self.steps, key=lambda other: abs(other - step))[:3]
            raise RunError(
                f"run {self.folder}: no checkpoint of step {step}\n  expected  one of {len(self.steps)} steps\n"
                f"  nearest   {', '.join(map(str, sorted(near)))}"
            )
        return self.folder / f"step_{step:08d}.safetensors"

    def digest(self, step: int) -> str:
        """sha256 of a checkpoint's file, checked against the card where the card lists it."""
        found = hashlib.sha256(self.path(step).read_bytes()).hexdigest()
        expected = self.card.get("digests", {}).get(str(step), found)
        if found != expected:
            raise RunError(
                f"checkpoint {self.path(step)}\n  expected  sha256 {expected[:16]}...\n  found     {found[:16]}...\n"
                "  The file was changed or damaged: fetch the project anew."
            )
        return found

    def model(self, step: int) -> AttentionOnly:
        """The weights after `step` updates, fp32, for evaluation. Raises `RunError` for a damaged or foreign file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        self.digest(step)
        try:
            weights = load(self.path(step).read_bytes())
        except (SafetensorError, ValueError) as error:
            raise RunError(f"checkpoint {self.path(step)}\n  expected  safetensors\n  found     {error}") from None
        return model_from(weights, self.config, str(self.path(step)))

    def losses(self, fp32: bool = False) -> dict[str, list[float]]:
        """Columns of the loss curve: step, tokens, train_loss, test_loss (nan where it was not measured).

        With `fp32` that of the first steps in fp32, where a run in bf16 has it beside it. Empty without a file.
        """
        path = self.folder / (LOSSES_FP32 if fp32 else LOSSES)
        if not path.is_file():
            return {}
        lines = path.read_text(encoding="utf-8").splitlines()
        names = lines[0].split(",")
        rows = [[float(cell) if cell else float("nan") for cell in line.split(",")] for line in lines[1:]]
        return {name: [row[column] for row in rows] for column, name in enumerate(names)}


def model_from(weights: Mapping[str, torch.Tensor], config: AttentionOnlyConfig, source: str) -> AttentionOnly:
    """A model with these weights. Raises `RunError` for missing, unexpected, misshapen or non-finite ones."""
    model = AttentionOnly(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != wanted:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        detail = "; ".join(f"{name}: {wanted.get(name)} -> {found.get(name)}" for name in wrong[:4])
        raise RunError(f"weights {source}\n  expected  the tensors of {config}\n  found     {detail}")
    if bad := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise RunError(f"weights {source}\n  expected  finite numbers\n  found     inf or nan in {', '.join(bad[:4])}")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.eval()


def save_checkpoint(folder: Path, step: int, model: AttentionOnly, dtype: torch.dtype = torch.float32) -> Path:
    """Write the weights after `step` updates, whole or not at all."""
    from safetensors.torch import save

    path = folder / f"step_{step:08d}.safetensors"
    weights = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    write_bytes_atomically(path, save(weights, metadata={"format": "pt"}))
    return path


def ship(run: RunFolder, into: Path, steps: Sequence[int], notes: Mapping[str, Any]) -> RunFolder:
    """Copy chosen checkpoints as fp16 with loss curves and card (digests and `notes` added) to `into`."""
    for step in steps:
        save_checkpoint(into, step, run.model(step), torch.float16)
    for name in (LOSSES, LOSSES_FP32):
        if (run.folder / name).is_file():
            write_text_atomically(into / name, (run.folder / name).read_text(encoding="utf-8"))
    digests = {
        str(step): hashlib.sha256((into / f"step_{step:08d}.safetensors").read_bytes()).hexdigest() for step in steps
    }
    card = {**run.card, **notes, "dtype": "float16", "digests": digests}
    write_text_atomically(into / CARD, json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    return RunFolder.open(into)


def spread(steps: Sequence[int], count: int) -> tuple[int, ...]:
    """About `count` of the steps, evenly in their logarithm, the first and the last among them."""
    import math

    at_hand = sorted(set(steps))
    if count >= len(at_hand) or len(at_hand) < 3:
        return tuple(at_hand)
    low, high = math.log1p(at_hand[0]), math.log1p(at_hand[-1])
    aims = [low + (high - low) * index / (count - 1) for index in range(count)]
    return tuple(sorted({min(at_hand, key=lambda step: abs(math.log1p(step) - aim)) for aim in aims}))
