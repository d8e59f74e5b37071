"""transformer-lens 3.9.0 as an oracle: `HookedTransformer` with Shortformer positions on the same weights and seed."""

import importlib.metadata

import pytest
import torch
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

VERSION, COMMAND = "3.9.0", "tox -e tl39"
FOUND = importlib.metadata.version("transformer-lens")
pytestmark = pytest.mark.skipif(
    FOUND != VERSION,
    reason=f"needs transformer-lens {VERSION}, the last with Shortformer positions, found {FOUND}. Type: {COMMAND}",
)
SIZES = [AttentionOnlyConfig(n_layers=1), AttentionOnlyConfig(n_layers=2)]
LAYERS = ["one layer", "two layers"]


def oracle(config: AttentionOnlyConfig, seed: int = 0):
    """The published run's `HookedTransformer`, sizes from `config`."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    sizes = {name: getattr(config, name) for name in ("n_layers", "d_model", "n_heads", "d_head", "n_ctx", "d_vocab")}
    return HookedTransformer(HookedTransformerConfig(
        **sizes, attn_only=True, positional_embedding_type="shortformer", normalization_type="LN", seed=seed,
        init_weights=True, eps=config.ln_eps, device="cpu",
    )).eval()  # fmt: skip


def worn(config: AttentionOnlyConfig) -> AttentionOnly:
    """Weights as after training: no bias or gain is what it was drawn as."""
    model = AttentionOnly(config).initialise(1).eval()
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    return model


def with_weights_of(model: AttentionOnly):
    """The oracle with this model's weights, name by name."""
    theirs = oracle(model.config)
    found = theirs.load_state_dict(model.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(name.rsplit(".", 1)[-1] in ("mask", "IGNORE") for name in found.missing_keys)
    return theirs


def in_double(theirs):
    """The same oracle in fp64; its configuration names the dtype that it computes in."""
    theirs.double()
    theirs.cfg.dtype = torch.float64
    return theirs


def some_tokens(rows: int = 2) -> torch.Tensor:
    return torch.randint(0, 5000, (rows, 1024), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("config", SIZES, ids=LAYERS)
def test_equal_logits_on_the_same_weights(config):
    """To 1e-5 of the largest logit in fp32, where each is about as far from fp64; in fp64 to the last digits."""
    model = worn(config)
    theirs = with_weights_of(model)
    single, largest = model(some_tokens()), float(model(some_tokens()).abs().max())
    assert single.std() > 1
    torch.testing.assert_close(single, theirs(some_tokens()), atol=1e-5 * largest, rtol=0)
    exact, twin = model.double()(some_tokens()), in_double(theirs)(some_tokens())
    assert exact.dtype == twin.dtype == torch.float64
    torch.testing.assert_close(exact, twin, atol=1e-12, rtol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("config", SIZES, ids=LAYERS)
def test_equal_logits_at_initialisation(config):
    model = AttentionOnly(config).initialise(1).eval()
    torch.testing.assert_close(model(some_tokens()), oracle(config, seed=1)(some_tokens()), atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", SIZES, ids=LAYERS)
def test_equal_gradients_on_the_same_weights(config):
    model, tokens = worn(config), some_tokens(1)[:, :128]
    theirs = with_weights_of(model)
    want = theirs(tokens, return_type="loss")
    want.backward()
    losses = torch.nn.functional.cross_entropy(model(tokens)[0, :-1], tokens[0, 1:])
    losses.backward()
    torch.testing.assert_close(losses, want, atol=1e-5, rtol=1e-5)
    grads = dict(theirs.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, grads[name].grad, atol=1e-5, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("config", SIZES, ids=LAYERS)
def test_one_seed_draws_the_same_weights_bit_for_bit(config):
    ours, theirs = AttentionOnly(config).initialise(1).state_dict(), oracle(config, seed=1).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert not torch.equal(ours["embed.W_E"], oracle(config, seed=2).state_dict()["embed.W_E"])


@torch.no_grad()
@pytest.mark.parametrize("config", SIZES, ids=LAYERS)
def test_every_hook_point_has_the_oracles_name_shape_and_numbers(config):
    from circuit_claims.toy.hooked import hooked

    model, tokens = worn(config), some_tokens()[:, :200]
    _, ours = hooked(model).run_with_cache(tokens)
    _, theirs = with_weights_of(model).run_with_cache(tokens)
    assert set(ours) == set(theirs)
    for name, tensor in ours.items():
        torch.testing.assert_close(
            tensor, theirs[name], atol=1e-5, rtol=1e-5, msg=lambda text, at=name: f"{at}: {text}"
        )
