"""Small random models of the five architectures, opened for ablation, and a few random contexts for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from circuit_claims.heads.effects.forward import AblationModel, Pass, open_model
from circuit_claims.heads.effects.reference import Reference, reference_of
from circuit_claims.heads.effects.settings import Ablations
from circuit_claims.models.resolve import LocalModel, resolve
from torch import Tensor

from tests.helpers.small_models import ARCHITECTURES, save_small_model


@dataclass(frozen=True)
class Bench:
    """A model, contexts (context, pos) and their passes; the first context is the one that is ablated."""

    local: LocalModel
    model: AblationModel
    contexts: Tensor
    runs: list[Pass]

    def reference(self, **choices) -> Reference:
        """The reference of all contexts but the first (`contexts` of them from there on, or from the start)."""
        return reference_of(self.runs[1:], Ablations(**{"repeats": 2, **choices}))


@pytest.fixture(scope="session")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """The bench of a named architecture, made once."""
    root = tmp_path_factory.mktemp("ablation")
    made: dict[str, Bench] = {}

    def bench(architecture: str) -> Bench:
        if architecture not in made:
            made[architecture] = open_bench(save_small_model(architecture, root / architecture), root / "cache")
        return made[architecture]

    return bench


def open_bench(folder: Path, cache: Path) -> Bench:
    """Six random contexts of 20 tokens: longer than Gemma's sliding window."""
    local = resolve(folder, cache_dir=cache)
    model = open_model(local)
    contexts = torch.randint(0, model.dims.d_vocab, (6, 20), generator=torch.Generator().manual_seed(0))
    return Bench(local, model, contexts, model.run(contexts))


@pytest.fixture(params=ARCHITECTURES)
def bench(request: pytest.FixtureRequest, bench_of: Callable[[str], Bench]) -> Bench:
    """Every architecture in turn."""
    return bench_of(request.param)
