"""GGUF files read back as the Hugging Face folders they were written from, and damaged ones refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from circuit_claims.models.errors import DamagedWeights, UnsafeFile, WeightsMismatch
from circuit_claims.models.files.gguf import GGUFTensors, unpermute
from circuit_claims.models.files.tensors import open_tensors
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.small_gguf import GGUF_ARCHITECTURES, PAIRS, Q4_0, save_small_gguf
from tests.helpers.small_models import save_small_model
from tests.models.damage import pickled

# Adding 1 to Gemma's norm weights and taking it off again rounds once in each direction.
ROUNDING = {"gemma3_text": 2.0**-22}


def pair(architecture: str, tmp_path: Path, *, tied: bool = True, **changes) -> tuple[Path, Path]:
    folder = save_small_model(architecture, tmp_path / "model", tied=tied, vocab_words=PAIRS, seed=5)
    return folder, save_small_gguf(folder, tmp_path / "model.gguf", **changes)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", GGUF_ARCHITECTURES)
def test_a_gguf_file_reads_as_the_folder_it_was_written_from(architecture, tied, tmp_path):
    folder, path = pair(architecture, tmp_path, tied=tied)
    ours, plain = open_tensors(path), open_tensors(folder)
    assert ours.names() == plain.names()
    for name in plain.names():
        difference = (ours.read(name) - plain.read(name)).abs().max().item()
        assert difference <= ROUNDING.get(architecture, 0.0), name
    embedding = plain.names()[0]
    assert torch.equal(ours.rows(embedding, [5, 0, 5]), plain.read(embedding)[[5, 0, 5]])


@pytest.mark.parametrize("architecture", GGUF_ARCHITECTURES)
def test_the_settings_are_those_of_the_folder(architecture, tmp_path):
    from circuit_claims.models.architectures.names import dimensions_of

    folder, path = pair(architecture, tmp_path)
    ours, plain = (dimensions_of(open_tensors(place).config) for place in (path, folder))
    assert ours.eps == pytest.approx(plain.eps)
    assert (ours.n_layers, ours.n_heads, ours.n_kv_heads, ours.d_head) == (
        2,
        plain.n_heads,
        plain.n_kv_heads,
        plain.d_head,
    )
    assert (ours.d_vocab, ours.d_mlp, ours.tied, ours.activation) == (
        plain.d_vocab,
        plain.d_mlp,
        plain.tied,
        plain.activation,
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text"])
def test_quantised_matrices_are_dequantised_before_they_are_rearranged(architecture, tmp_path):
    folder, path = pair(architecture, tmp_path, quantised=True)
    ours, plain = open_tensors(path), open_tensors(folder)
    exact = [name for name in plain.names() if plain.read(name).shape[-1] % 32 or plain.read(name).ndim == 1]
    for name in plain.names():
        matrix = plain.read(name)
        if name in exact:
            expected = matrix
        else:
            # Q4_0 quantises each row by itself, so a permutation of the rows does not change what a row becomes.
            expected = torch.from_numpy(gguf.dequantize(gguf.quantize(matrix.numpy(), Q4_0), Q4_0))
        assert torch.allclose(ours.read(name), expected, rtol=0, atol=ROUNDING.get(architecture, 0.0)), name
    assert len(exact) < len(plain.names())


def test_a_tied_embedding_stored_in_two_roundings_is_read_in_the_finer(tmp_path):
    folder, path = pair("qwen2", tmp_path, coarse_embedding=True)
    ours, plain = open_tensors(path), open_tensors(folder)
    assert ours.config["tie_word_embeddings"] is True
    assert ours.names() == plain.names()
    assert torch.equal(ours.read("model.embed_tokens.weight"), plain.read("model.embed_tokens.weight"))


def test_two_different_embeddings_stay_two(tmp_path):
    _, path = pair("qwen2", tmp_path, tied=False)
    ours = open_tensors(path)
    assert ours.config["tie_word_embeddings"] is False
    assert not torch.equal(ours.read("model.embed_tokens.weight"), ours.read("lm_head.weight"))


@given(heads=st.integers(1, 4), half=st.integers(1, 5), columns=st.integers(1, 3))
def test_unpermute_undoes_interleaving(heads, half, columns):
    rows = np.arange(heads * 2 * half * columns).reshape(heads, 2, half, columns)
    interleaved = rows.swapaxes(1, 2).reshape(heads * 2 * half, columns)
    assert np.array_equal(unpermute(interleaved, heads), rows.reshape(-1, columns))


@pytest.mark.parametrize("architecture", GGUF_ARCHITECTURES)
def test_settings_with_one_layer_more_than_the_file_are_refused(architecture, tmp_path):
    _, path = pair(architecture, tmp_path, block_count=3)
    with pytest.raises(WeightsMismatch, match=r"config.json has 3 layers, the file 2"):
        open_tensors(path)


def test_settings_with_one_layer_less_are_refused(tmp_path):
    _, path = pair("llama", tmp_path, block_count=1)
    with pytest.raises(WeightsMismatch, match=r"unexpected \(\d+\): blk\.1\."):
        open_tensors(path)


def test_a_truncated_file_is_refused(saved_gguf, tmp_path):
    data = saved_gguf.read_bytes()
    for keep in (3, 20, len(data) // 20, len(data) // 2, len(data) - 40):
        short = tmp_path / f"short-{keep}.gguf"
        short.write_bytes(data[:keep])
        with pytest.raises(DamagedWeights, match="is not a"):
            open_tensors(short)


def test_a_pickle_called_gguf_is_refused(tmp_path):
    pickled(tmp_path / "model.gguf")
    with pytest.raises(UnsafeFile, match="is a pickle or an archive by its first bytes"):
        open_tensors(tmp_path / "model.gguf")


def test_something_else_called_gguf_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"not weights at all")
    with pytest.raises(DamagedWeights, match="expected it to begin with b'GGUF'"):
        open_tensors(tmp_path / "model.gguf")


def test_an_architecture_that_is_not_read_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WeightsMismatch, match=r"expected one of gpt2, llama, qwen2, gemma3\n  found 'mamba'"):
        open_tensors(tmp_path / "model.gguf")


def test_the_digest_is_that_of_the_file(saved_gguf):
    import hashlib

    assert GGUFTensors(saved_gguf).digest == hashlib.sha256(saved_gguf.read_bytes()).hexdigest()


def test_unknown_names_and_rows_are_refused(saved_gguf):
    source = open_tensors(saved_gguf)
    with pytest.raises(KeyError, match="no tensor called 'nonsense'"):
        source.read("nonsense")
    with pytest.raises(ValueError, match=r"expected numbers from 0 to 261, found \[262\]"):
        source.rows("model.embed_tokens.weight", [262])
