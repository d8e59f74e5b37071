"""Small saved models that the tests of this folder share; nothing here needs a network or real weights."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.forked_converter import ForkedConverter
from tests.helpers.small_gguf import PAIRS, save_small_gguf
from tests.helpers.small_models import ARCHITECTURES, save_small_model


@pytest.fixture(autouse=True)
def converter_starts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions run in a process of their own all the same, but one that has its imports behind it."""
    started = SimpleNamespace(Popen=ForkedConverter, PIPE=subprocess.PIPE)
    monkeypatch.setattr("circuit_claims.models.files.convert.subprocess", started)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder for each architecture, never to be changed; `copy_of` gives one that may be."""
    root = tmp_path_factory.mktemp("saved")
    return {name: save_small_model(name, root / name) for name in ARCHITECTURES}


@pytest.fixture
def copy_of(saved: dict[str, Path], tmp_path: Path):
    """A folder of the named architecture that a test may damage."""

    def copy(architecture: str) -> Path:
        return Path(shutil.copytree(saved[architecture], tmp_path / f"{architecture}-copy"))

    return copy


@pytest.fixture(scope="session")
def saved_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small llama in one GGUF file."""
    root = tmp_path_factory.mktemp("gguf")
    folder = save_small_model("llama", root / "small-llama", vocab_words=PAIRS, seed=3)
    return save_small_gguf(folder, root / "small-llama.gguf")
