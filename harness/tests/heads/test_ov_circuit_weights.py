"""How weights are found, read and refused, and what the choices left open by the paper do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from circuit_claims.heads.groups import Group
from circuit_claims.heads.ov_circuit import effective_ov_logits, group_logits, head_inputs, headless_logits
from circuit_claims.heads.planted import TensorTable, random_tensors, small_config
from circuit_claims.models.architectures.forward import residuals
from circuit_claims.models.architectures.layers import CircuitWeights, UnknownToken
from circuit_claims.models.architectures.names import UnsupportedArchitecture, parameter_shapes
from circuit_claims.models.files.tensors import TensorSource, open_tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tests.helpers.small_models import ARCHITECTURES, save_small_model
from tests.helpers.small_models import small_config as transformers_config

TOKENS, CANDIDATES = torch.tensor([11, 7, 42, 11]), torch.tensor([40, 5, 23, 11, 30])


def random_table(architecture: str, seed: int = 0, **changes: Any) -> TensorTable:
    config = small_config(architecture, 24, 50) | changes
    return random_tensors(config, torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Recorder:
    """Passes reads on and notes what was asked for."""

    source: TensorSource
    whole: list[str] = field(default_factory=list)
    parts: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    digest: str = ""

    @property
    def config(self) -> Mapping[str, Any]:
        return self.source.config

    def names(self) -> tuple[str, ...]:
        return self.source.names()

    def read(self, name: str) -> Tensor:
        self.whole.append(name)
        return self.source.read(name)

    def rows(self, name: str, ids: Sequence[int]) -> Tensor:
        self.parts.append((name, tuple(ids)))
        return self.source.rows(name, ids)


def test_only_the_tensors_of_the_circuit_are_read_one_layer_at_a_time() -> None:
    recorder = Recorder(random_table("llama"))
    sweep = effective_ov_logits(CircuitWeights.open(recorder), TOKENS, CANDIDATES)
    next(sweep)
    assert not any("layers.1." in name for name in recorder.whole)
    next(sweep)
    by_layer = ("input_layernorm", "self_attn.v_proj", "self_attn.o_proj")
    mlp0 = ("post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    expected = [f"model.layers.{layer}.{name}.weight" for layer in range(2) for name in by_layer]
    expected += ["model.norm.weight", *(f"model.layers.0.{name}.weight" for name in mlp0)]
    assert sorted(recorder.whole) == sorted(expected)
    wanted = {"model.embed_tokens.weight": tuple(TOKENS.tolist()), "lm_head.weight": tuple(CANDIDATES.tolist())}
    assert dict(recorder.parts) == wanted
    assert len(recorder.parts) == 2


def test_a_lone_token_needs_no_queries_and_keys() -> None:
    recorder = Recorder(random_table("llama"))
    list(residuals(CircuitWeights.open(recorder), TOKENS))
    assert not any("q_proj" in name or "k_proj" in name for name in recorder.whole)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_the_expected_parameters_are_those_transformers_saves(architecture: str, tied: bool, tmp_path: Path) -> None:
    from safetensors import safe_open

    folder = save_small_model(architecture, tmp_path, tied=tied)
    with safe_open(str(folder / "model.safetensors"), "pt") as stored:
        found = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    assert parameter_shapes(json.loads((folder / "config.json").read_text())) == found


def test_without_norms_and_biases_the_formula_is_the_papers() -> None:
    table = random_table("gpt2")
    read = {name.removeprefix("transformer."): tensor for name, tensor in table.tensors.items()}
    hidden = read["wte.weight"][TOKENS] @ read["h.0.mlp.c_fc.weight"] + read["h.0.mlp.c_fc.bias"]
    hidden = F.gelu(hidden, approximate="tanh")
    resid = hidden @ read["h.0.mlp.c_proj.weight"] + read["h.0.mlp.c_proj.bias"]
    weights = CircuitWeights.open(table)
    found = list(effective_ov_logits(weights, TOKENS, CANDIDATES, norms=False, biases=False))
    d_model = weights.d_model
    for layer, head in [(0, 0), (0, 3), (1, 2)]:
        here = slice(head * d_model // 4, (head + 1) * d_model // 4)
        W_V = read[f"h.{layer}.attn.c_attn.weight"][:, 2 * d_model :][:, here]
        W_O = read[f"h.{layer}.attn.c_proj.weight"][here]
        expected = resid @ W_V @ W_O @ read["lm_head.weight"][CANDIDATES].T
        torch.testing.assert_close(found[layer][head], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("choices", [(False, True), (True, False), (False, False)], ids=str)
@pytest.mark.parametrize("path", ["mlp0", "residual"])
def test_each_choice_holds_in_the_fast_version_too(architecture: str, choices: tuple[bool, bool], path: str) -> None:
    weights, (norms, biases) = CircuitWeights.open(random_table(architecture)), choices
    group = Group(tuple(TOKENS.tolist()), tuple(CANDIDATES.tolist()))
    plain = torch.stack(list(effective_ov_logits(weights, TOKENS, CANDIDATES, path, norms=norms, biases=biases)))
    fast = torch.stack([item for (item,) in group_logits(weights, [group], path, norms=norms, biases=biases)])
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
    shipped = torch.stack(list(effective_ov_logits(weights, TOKENS, CANDIDATES, path)))
    has_biases = architecture in ("gpt2", "gpt_neox", "qwen2")
    assert torch.allclose(shipped, plain, rtol=1e-3) == (norms and not has_biases)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_large_epsilons_stand_where_the_norms_have_them(architecture: str) -> None:
    changes = dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), 0.5)
    weights = CircuitWeights.open(random_table(architecture, **changes))
    group = Group(tuple(TOKENS.tolist()), tuple(CANDIDATES.tolist()))
    plain = list(effective_ov_logits(weights, TOKENS, CANDIDATES))
    for layer, (fast,) in enumerate(group_logits(weights, [group])):
        torch.testing.assert_close(fast, plain[layer], rtol=1e-4, atol=1e-4)


def test_the_score_does_not_see_the_scale_of_gemmas_norm_after_attention() -> None:
    table = random_table("gemma3_text")
    name = "model.layers.1.post_attention_layernorm.weight"
    louder = TensorTable(table.config, {**table.tensors, name: 7.0 * (1.0 + table.tensors[name]) - 1.0})
    first, second = (list(effective_ov_logits(CircuitWeights.open(t), TOKENS, CANDIDATES))[1] for t in (table, louder))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    parts=st.lists(st.tuples(*[st.lists(st.integers(0, 49), min_size=1, max_size=6)] * 2), max_size=4),
)
def test_groups_are_cut_out_of_the_whole_table(architecture: str, parts: list[tuple[list[int], list[int]]]) -> None:
    weights = CircuitWeights.open(random_table(architecture))
    everything = torch.arange(50)
    whole = list(effective_ov_logits(weights, everything, everything))
    groups = [Group(tuple(inputs), tuple(candidates)) for inputs, candidates in parts]
    for table, tables in zip(whole, group_logits(weights, groups), strict=True):
        for found, (inputs, candidates) in zip(tables, parts, strict=True):
            torch.testing.assert_close(found, table[:, inputs][..., candidates], rtol=1e-4, atol=1e-4)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama3 positions": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "linear positions": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    ),
    "biases everywhere": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "one block after the other": ("gpt_neox", {"use_parallel_residual": False}),
    "half of each head turned": (
        "gpt_neox",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}},
    ),
    "attention scaled by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_inner": None}),
    "a global layer, stretched": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 300.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            }
        },
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_forward_pass_follows_the_config(variant: str, tmp_path: Path) -> None:
    import transformers

    architecture, changes = VARIANTS[variant]
    config = transformers_config(architecture, 60, n_layers=8, tied=False)
    config = type(config)(**{**config.to_dict(), **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        model.save_pretrained(tmp_path)
        sequences = torch.stack([torch.full_like(TOKENS, 3), TOKENS], dim=1)
        expected = model(sequences, output_hidden_states=True).hidden_states
    weights = CircuitWeights.open(open_tensors(tmp_path))
    for layer, resid in enumerate(residuals(weights, TOKENS, bos=3)):
        error = (resid - expected[layer][:, 1]).abs().max() / expected[layer].abs().max()
        assert error < 1e-5, layer


def test_configs_from_before_rope_parameters_mean_the_same() -> None:
    old = {
        "llama": {"rope_theta": 300.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "gpt_neox": {"rotary_emb_base": 300.0, "rotary_pct": 0.5},
        "gemma3_text": {"rope_theta": 300.0, "rope_local_base_freq": 50.0, "sliding_window_pattern": 2},
    }
    plain = {"rope_type": "default", "rope_theta": 300.0}
    new = {
        "llama": {"rope_parameters": {"rope_type": "linear", "rope_theta": 300.0, "factor": 2.0}},
        "gpt_neox": {"rope_parameters": {**plain, "partial_rotary_factor": 0.5}},
        "gemma3_text": {
            "rope_parameters": {"full_attention": plain, "sliding_attention": {**plain, "rope_theta": 50.0}},
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    }
    for architecture in old:
        config = small_config(architecture, 24, 50, n_layers=4)
        tables = [random_tensors(config | more[architecture], torch.Generator().manual_seed(2)) for more in (old, new)]
        tables.append(random_tensors(config, torch.Generator().manual_seed(2)))
        first, second, usual = (list(residuals(CircuitWeights.open(t), TOKENS, 3))[-1] for t in tables)
        assert torch.equal(first, second)
        assert not torch.equal(first, usual)


def test_gpt2_from_the_hub_keeps_no_prefix() -> None:
    table = random_table("gpt2")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in table.tensors.items()}
    first, second = (
        torch.stack(list(effective_ov_logits(CircuitWeights.open(source), TOKENS, CANDIDATES, "residual")))
        for source in (table, TensorTable(table.config, bare))
    )
    assert torch.equal(first, second)


def test_the_unembedding_of_gpt_neox_has_two_names() -> None:
    table = random_table("gpt_neox")
    newer = {name.replace("embed_out", "lm_head"): tensor for name, tensor in table.tensors.items()}
    assert newer.keys() != table.tensors.keys()
    weights = [CircuitWeights.open(source) for source in (table, TensorTable(table.config, newer))]
    assert torch.equal(weights[0].unembed(CANDIDATES), weights[1].unembed(CANDIDATES))


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    weights = CircuitWeights.open(random_table("llama"))
    for strange in (50, -1):
        with pytest.raises(UnknownToken, match=rf"0 to 49[\s\S]*{strange}[\s\S]*another model's tokenizer"):
            list(effective_ov_logits(weights, torch.tensor([strange]), CANDIDATES))
        with pytest.raises(UnknownToken):
            list(group_logits(weights, [Group((1,), (strange, 2))]))


def test_unknown_paths_are_refused() -> None:
    weights = CircuitWeights.open(random_table("llama"))
    with pytest.raises(ValueError, match=r"mlp0, embed\+mlp0, block0, residual, embed\n  found 'mlp1'"):
        head_inputs(weights, TOKENS, "mlp1")
    with pytest.raises(ValueError, match="does not depend on the layer"):
        headless_logits(weights, TOKENS, CANDIDATES, "residual")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "expected one of gpt2, gpt_neox, llama, qwen2, gemma3_text"),
        ({"hidden_act": "xielu"}, "found 'xielu'"),
        ({"num_hidden_layers": None}, "a value for num_hidden_layers or n_layer"),
        ({"tie_word_embeddings": None, "vocab_size": None}, "vocab_size"),
    ],
    ids=["architecture", "activation", "layers", "vocabulary"],
)
def test_what_cannot_be_read_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    table = random_table("llama")
    with pytest.raises(UnsupportedArchitecture, match=words):
        CircuitWeights.open(TensorTable({**table.config, **changes}, table.tensors))


def test_missing_tensors_and_strange_positions_are_refused_in_words() -> None:
    table = random_table("llama")
    headless = {name: tensor for name, tensor in table.tensors.items() if name != "lm_head.weight"}
    with pytest.raises(UnsupportedArchitecture, match=r"untied llama model: expected a tensor named lm_head\.weight"):
        CircuitWeights.open(TensorTable(table.config, headless))
    with pytest.raises(UnsupportedArchitecture, match=r"model\.embed_tokens\.weight[\s\S]*found 0 tensors"):
        CircuitWeights.open(TensorTable(table.config, {}))
    yarn = TensorTable({**table.config, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, table.tensors)
    with pytest.raises(UnsupportedArchitecture, match=r"found 'yarn'[\s\S]*residual"):
        list(residuals(CircuitWeights.open(yarn), TOKENS, bos=3))
