"""A head's slice changes that head and no other, in every layout; names, ranges and refusals."""

import pytest
import torch
import transformers
from circuit_claims.llc.slices import Piece, digest, weight_slice
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

TOKENS = torch.randint(0, 23, (2, 6), generator=torch.Generator().manual_seed(0))
SIZES = {"vocab_size": 23, "bos_token_id": 0, "eos_token_id": 0}
GROUPED = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 3,
           "intermediate_size": 20}  # fmt: skip


def gpt2():
    config = transformers.GPT2Config(n_layer=2, n_embd=24, n_head=6, n_positions=16, **SIZES)
    return transformers.GPT2LMHeadModel(config), "transformer.h.{}.attn.c_proj", 1


def gpt_neox():
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 20}
    return (
        transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**sizes, **SIZES)),
        "gpt_neox.layers.{}.attention.dense",
        1,
    )


def llama():
    config = transformers.LlamaConfig(**GROUPED, head_dim=8, attention_bias=False, **SIZES)
    return transformers.LlamaForCausalLM(config), "model.layers.{}.self_attn.o_proj", 2


def qwen2():
    return (
        transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**GROUPED, **SIZES)),
        "model.layers.{}.self_attn.o_proj",
        2,
    )


def build(make):
    torch.manual_seed(0)
    model, output, group = make()
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return model, output, group


def head_outputs(model, name, tensors, size):
    """What enters the output projection of one layer, head by head, with `tensors` in place of the model's own."""
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    logits = torch.func.functional_call(model, tensors, (TOKENS,)).logits
    handle.remove()
    return seen[0].unflatten(-1, (-1, size)), logits


@pytest.mark.parametrize("make", [gpt2, gpt_neox, llama, qwen2])
@pytest.mark.parametrize("head", [0, 3, 5])
def test_changing_a_heads_slice_changes_that_head_and_those_that_share_its_keys_and_values(make, head):
    model, output, group = build(make)
    own = dict(model.named_parameters())
    size = getattr(model.config, "head_dim", None) or 4
    where = weight_slice(model, f"1:{head}")
    shift = torch.randn(where.size, generator=torch.Generator().manual_seed(2))
    changed = {**own, **where.scatter(where.gather(own) + shift, own)}
    with torch.no_grad():
        before, logits = head_outputs(model, output.format(1), own, size)
        after, moved = head_outputs(model, output.format(1), changed, size)
    differs = (after - before).abs().amax((0, 1, 3)) > 1e-6
    sharing = [other // group == head // group for other in range(6)]
    assert differs[head]
    assert not any(d and not s for d, s in zip(differs.tolist(), sharing, strict=True))
    assert (logits - moved).abs().max() > 1e-4
    assert where.size == 4 * 24 * size + (0 if make is llama else 3 * size)


@pytest.mark.parametrize("make", [gpt2, gpt_neox, llama, qwen2])
def test_the_output_weights_of_a_head_are_those_that_read_it(make):
    """Silence a head's output slice: the layer then no longer depends on that head's own output."""
    model, output, _ = build(make)
    own = dict(model.named_parameters())
    where = weight_slice(model, "1:2")
    name = output.format(1) + ".weight"
    piece = next(piece for piece in where.pieces if piece.name == name)
    silenced = own[name].detach().clone()
    piece.of(silenced).zero_()
    size = getattr(model.config, "head_dim", None) or 4
    entering = torch.randn(1, 1, 6 * size, generator=torch.Generator().manual_seed(3))
    other = entering.clone()
    other[..., 2 * size : 3 * size] += 5.0
    layer = model.get_submodule(output.format(1))
    with torch.no_grad():
        parts = [torch.func.functional_call(layer, {"weight": silenced}, (x,)) for x in (entering, other)]
        torch.testing.assert_close(parts[0], parts[1])
        assert (layer(entering) - layer(other)).abs().max() > 1e-3


@pytest.mark.parametrize("make", [gpt2, gpt_neox, llama, qwen2])
@pytest.mark.parametrize("weights", ["all", "layer 1", "embed", "0:4"])
def test_gather_and_scatter_are_inverse_and_leave_the_model_alone(make, weights):
    model, _, _ = build(make)
    own, before = dict(model.named_parameters()), digest(model)
    where = weight_slice(model, weights)
    w = where.gather(own)
    same = where.scatter(w, own)
    assert all(torch.equal(tensor, own[name]) for name, tensor in same.items())
    other = where.scatter(w + 1, own)
    changed = sum(int((tensor != own[name]).sum()) for name, tensor in other.items())
    assert changed == where.size
    assert torch.equal(where.gather({**own, **other}), w + 1)
    assert digest(model) == before


def test_all_is_every_parameter_and_a_layer_is_its_own():
    model, _, _ = build(qwen2)
    assert weight_slice(model, "all").size == sum(p.numel() for p in model.parameters())
    assert all(piece.name.startswith("model.layers.1.") for piece in weight_slice(model, "layer 1").pieces)


def test_biases_are_a_choice():
    model, _, _ = build(qwen2)
    with_biases, without = weight_slice(model, "1:3"), weight_slice(model, "1:3", biases=False)
    assert with_biases.size - without.size == 3 * 4
    own = AttentionOnly(AttentionOnlyConfig())
    assert weight_slice(own, "1:6").size == 32_864
    assert weight_slice(own, "1:6", biases=False).size == 32_768


def test_heads_of_the_attention_only_model_together_are_its_attention_without_the_shared_bias():
    own = AttentionOnly(AttentionOnlyConfig(d_model=16, n_heads=4, d_head=4, n_ctx=9, d_vocab=11))
    heads = sum(weight_slice(own, f"0:{h}").size for h in range(4))
    assert heads == sum(p.numel() for p in own.blocks[0].attn.parameters()) - 16


def test_explicit_boxes_of_any_module():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    pieces = [Piece("0.weight", (slice(1, 3), slice(0, 2))), Piece("1.bias")]
    where = weight_slice(model, pieces)
    assert where.size == 6
    own = dict(model.named_parameters())
    changed = where.scatter(torch.zeros(6), own)
    assert torch.equal(changed["0.weight"][1:3, :2], torch.zeros(2, 2))
    assert torch.equal(changed["0.weight"][0], own["0.weight"][0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [("1:6", "head 6: the model has 6"), ("2:0", "layer 2: the model has 2"), ("layer 5", "the model has 2"),
     ("mlp", "expected a head such as"), ([Piece("nothing")], "no parameter 'nothing'"),
     ([Piece("lm_head.weight", (slice(0, 99),))], "not within 0:23"),
     ([Piece("lm_head.weight"), Piece("lm_head.weight", (slice(0, 1),))], "named twice"),
     ([Piece("lm_head.weight", (slice(0, 9, 2),))], "step 1"), ([], "found none")],
)  # fmt: skip
def test_names_that_do_not_exist_are_refused(weights, message):
    model, _, _ = build(llama)
    with pytest.raises(ValueError, match=message):
        weight_slice(model, weights)


def test_a_digest_sees_a_single_changed_number():
    model, _, _ = build(gpt2)
    before = digest(model)
    with torch.no_grad():
        model.transformer.h[1].ln_1.bias[3] += 1e-6
    assert digest(model) != before
