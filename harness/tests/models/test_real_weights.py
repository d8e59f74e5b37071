"""The default subjects as published: the cache, the file read directly, and the model's own behaviour agree."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from circuit_claims.models.errors import ModelNotAvailable
from circuit_claims.models.files.tensors import open_tensors
from circuit_claims.models.registry import load_registry
from circuit_claims.models.resolve import LocalModel, resolve
from circuit_claims.models.sources import Search, find_source

from tests.helpers.small_models import DAYS

DEFAULTS = [row.name for row in load_registry().values() if row.default]
# A folder with the models' own GGUF files, for the tests that read those.
MODELS_DIR = os.environ.get("CIRCUIT_CLAIMS_MODELS_DIR")


@pytest.fixture(params=DEFAULTS)
def model(request: pytest.FixtureRequest) -> LocalModel:
    try:
        return resolve(request.param, models_dir=MODELS_DIR, fetch=False)
    except ModelNotAvailable as error:
        pytest.skip(f"{request.param} is not on this machine. Type: {error.command}")


@pytest.mark.weights
def test_the_file_read_directly_equals_the_cache(model, tmp_path):
    """Two readers, the harness's own and transformers', give the same bits for the published file.

    The conversion compared every tensor; here they are one of each kind from the first, a middle and the last layer.
    """
    from circuit_claims.models.cache import default_cache
    from circuit_claims.models.progress import quiet

    folder = Path(MODELS_DIR) if MODELS_DIR else None
    search = Search(folder, default_cache() / "downloads", offline=True)
    try:
        path = find_source(model.row, search, tmp_path, quiet).path
    except ModelNotAvailable:
        pytest.skip(
            f"the GGUF file of {model.name} is not on this machine."
            " Type: CIRCUIT_CLAIMS_MODELS_DIR=FOLDER pytest -m weights harness/tests/models"
        )
    direct, cached = open_tensors(path), model.tensors()
    assert direct.names() == cached.names()
    layers = sorted({int(number) for name in direct.names() for number in re.findall(r"\.(\d+)\.", name)})
    read = {f".{layers[at]}." for at in (0, len(layers) // 2, -1)}
    names = [name for name in direct.names() if not re.search(r"\.\d+\.", name) or any(at in name for at in read)]
    assert len(names) > len(direct.names()) // len(layers)
    different = [name for name in names if not torch.equal(direct.read(name), cached.read(name))]
    assert different == []


@pytest.mark.weights
def test_the_registry_counts_the_parameters_right(model):
    assert model.weights_bytes == model.row.memory_bytes
    assert model.tensors().config["model_type"] == model.row.architecture


@pytest.mark.weights
def test_days_and_digits_are_single_tokens_and_larger_numbers_are_not(model):
    tokens = model.tokenizer()
    assert all(tokens.single_token(f" {day}") is not None for day in DAYS)
    assert all(tokens.single_token(str(digit)) is not None for digit in range(10))
    assert [tokens.single_token(number) for number in ("10", "42", "199")] == [None] * 3
    assert (tokens.bos_id is not None) == model.row.traits.needs_bos


@pytest.mark.weights
def test_the_model_goes_on_with_the_days_of_the_week(model):
    """A wrong norm, rotary order or tokenizer gives nonsense here, with every checksum in order."""
    from circuit_claims.models.bridge import boot

    tokens = model.tokenizer()
    prompt = [] if tokens.bos_id is None else [tokens.bos_id]
    prompt += tokens.encode("Monday, Tuesday, Wednesday, Thursday,")
    with torch.no_grad():
        best = int(boot(model)(torch.tensor([prompt]))[0, -1].argmax())
    assert tokens.decode(best) == " Friday"
