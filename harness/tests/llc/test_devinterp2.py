"""devinterp 2.0.1 as an oracle where it is right, and as a test case where it is not."""

import copy
import warnings

import numpy as np
import pytest
import torch
from circuit_claims.llc import exact
from circuit_claims.llc.refined import refined_llc
from circuit_claims.llc.sample import sample_llc
from circuit_claims.llc.sgld import RMSProp
from circuit_claims.llc.slices import Piece, weight_slice
from circuit_claims.llc.sweep import Sweep, run_sweep

from tests.llc import oracles
from tests.llc.test_sweep import SETTINGS, Counting, rows
from tests.toy.test_potentials import small_model

pytestmark = oracles.needs("2.0.1")
DATA = torch.randint(0, 31, (32, 12), generator=torch.Generator().manual_seed(4))
H = torch.tensor([0.5, 2.0, 8.0])


class Toy(torch.nn.Module):
    """A loss that is a quadratic of three weights plus what the data add, whatever the input."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((3,), start))

    def forward(self, tokens):
        return self.w


def bowl(model, tokens):
    """Per-token loss of devinterp's shape: the same number everywhere."""
    return ((H * model.w**2).sum() / 2).expand(tokens.shape[0], tokens.shape[1] - 1)


def by_token(model, tokens):
    """A loss that the weights do not enter: the mean token."""
    return (tokens[:, 1:].float() * 10) + 0 * model.w.sum()


def ours(start, **settings):
    return sample_llc(
        lambda w: (H * w**2).sum(-1) / 2, torch.full((3,), start), control_draws=0, mala_every=0, **settings
    )


# --- where it is right -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["1:2", "0:1", "layer 1"])
def test_equal_on_a_small_attention_only_model(weights):
    """16 chains of 80 draws each; false-alarm probability 6e-5 a case (|z| < 4). Its initial loss is over all rows."""
    model = oracles.trained_model(DATA)
    settings = {"n_beta": 30.0, "num_chains": 16, "num_draws": 80, "batch_size": 8}
    where = weight_slice(model, weights)
    theirs = oracles.llc(model, DATA, lr=1e-3, localization=50.0, param_masks=oracles.masks_of(model, where),
                         num_init_loss_batches=4, match_sampling_input_ids_across_chains=False, **settings)  # fmt: skip
    mine = refined_llc(model, DATA, weights=weights, gamma=50.0, eps=1e-3, mala_every=0, **settings)
    oracles.check_equal_means(mine.per_chain, theirs["llc_per_chain"].values)


@pytest.mark.parametrize("rmsprop", [None, RMSProp(alpha=0.9, eps=0.1)])
def test_equal_on_a_toy(rmsprop):
    """64 chains; false-alarm probability 6e-5 a case (|z| < 4). Without a preconditioner both meet the exact value."""
    settings = {"n_beta": 40.0, "num_chains": 64, "num_draws": 100}
    extra = {} if rmsprop is None else {"sampling_method": "rmsprop_sgld", "rmsprop_alpha": 0.9, "rmsprop_eps": 0.1}
    theirs = oracles.llc(Toy(), DATA, lr=2e-3, localization=10.0, batch_size=8, loss_fn=bowl, **extra, **settings)
    mine = ours(0.0, gamma=10.0, eps=2e-3, rmsprop=rmsprop, **settings)
    oracles.check_equal_means(mine.per_chain, theirs["llc_per_chain"].values)
    if rmsprop is None:
        value = exact.quadratic_sgld(H.numpy(), n_beta=40.0, gamma=10.0, eps=2e-3, num_draws=100)
        error = mine.per_chain.std(ddof=1) / 8
        assert abs(mine.mean - value) < 4.5 * error
        assert abs(float(theirs["llc_mean"]) - value) < 4.5 * error


def test_its_masks_and_our_slices_name_the_same_numbers():
    import transformers
    from devinterp.slt.weight_restrictions import create_param_masks

    sizes = {"vocab_size": 31, "bos_token_id": 0, "eos_token_id": 0}
    wide = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 6, "intermediate_size": 20, **sizes}
    models = [
        transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=2, n_embd=24, n_head=6, **sizes)),
        transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**wide)),
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**wide, num_key_value_heads=3)),
        transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**wide, num_key_value_heads=3)),
    ]
    for model in models:
        for head in (0, 3, 5):
            mine = oracles.masks_of(model, weight_slice(model, f"1:{head}"))
            theirs = create_param_masks(model, f"l1h{head}")
            assert set(mine) == set(theirs)
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# --- where it is not ---------------------------------------------------------------------------------------------


def test_it_averages_burnin_in_and_we_do_not():
    """From w = 3 the loss falls from 47 to 0.05 within the burn-in; the mean of the draws alone is known exactly."""
    settings = {"n_beta": 100.0, "num_chains": 8, "num_draws": 50, "num_burnin_steps": 150}
    theirs = oracles.llc(Toy(3.0), DATA, lr=1e-2 / 4, batch_size=8, loss_fn=bowl, **settings)
    mine = ours(3.0, gamma=0.0, eps=1e-2 / 4, **settings)
    trace = theirs["loss_trace"].values
    assert trace.shape == (8, 200)
    late = 100 * (trace[:, 150:].mean(1) - float(theirs["init_loss"]))
    assert theirs["llc_per_chain"].values == pytest.approx(100 * (trace.mean(1) - float(theirs["init_loss"])), rel=1e-4)
    assert abs(float(theirs["llc_mean"]) - late.mean()) > 20
    assert mine.mean == pytest.approx(late.mean(), abs=2.0)


def test_its_diverged_chain_still_gives_a_number_and_ours_does_not():
    settings = {"n_beta": 1e4, "num_chains": 2, "num_draws": 60}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        from devinterp.slt.llc import llc

        theirs = llc(Toy(1.0), oracles.dataset(DATA), {}, device="cpu", lr=1.0, batch_size=8, loss_fn=bowl, **settings)
    assert any("Chain failed" in str(warning.message) for warning in said)
    assert not np.isfinite(theirs["loss_trace"].values).all()
    assert not np.isnan(float(theirs["llc_mean"]))
    mine = ours(1.0, gamma=0.0, eps=1.0, **settings)
    assert mine.status == "diverged"
    assert np.isnan(mine.mean)
    assert "2 of 2 chains diverged" in mine.reasons[0]


def test_its_initial_loss_is_from_other_batches_so_data_noise_can_make_it_negative_and_ours_is_paired():
    """The weights do not enter the loss: the coefficient is 0. Rows are sorted, so its first batch is the highest."""
    tokens = DATA[DATA[:, 1:].float().mean(1).argsort(descending=True)]
    settings = {"n_beta": 30.0, "num_chains": 2, "num_draws": 8}
    theirs = oracles.llc(Toy(), tokens, lr=1e-3, batch_size=4, loss_fn=by_token, shuffle=False, num_init_loss_batches=1,
                         **settings)  # fmt: skip
    assert float(theirs["llc_mean"]) < -100

    def mean_token(forward, batch):
        return batch[:, 1:].float().mean(1) * 10 + 0 * forward(batch).sum()

    mine = refined_llc(
        Toy(), tokens, weights=[Piece("w")], loss=mean_token, gamma=0.0, eps=1e-3, batch_size=4, **settings
    )
    assert mine.mean == pytest.approx(0.0, abs=1e-4)


def test_its_cache_answers_for_other_weights_and_other_data_and_ours_does_not(tmp_path):
    settings = {
        "lr": 1e-3,
        "n_beta": 30.0,
        "batch_size": 8,
        "num_chains": 1,
        "num_draws": 4,
        "output_path": tmp_path / "s.zarr",
    }
    first = oracles.llc(small_model(3), DATA, **settings)
    second = oracles.llc(small_model(5), (DATA + 1) % 31, **settings)
    assert float(first["llc_mean"]) == float(second["llc_mean"])
    store, run = Counting(), {"weights": ["1:0"], "texts": ["a"], "checkpoints": ["c"], "settings": SETTINGS}
    one = run_sweep(Sweep(load_model=lambda _: small_model(3), load_text=rows, **run), store)
    two = run_sweep(Sweep(load_model=lambda _: small_model(5), load_text=rows, **run), store)
    assert store.saved == 4
    assert next(iter(one.values())).mean != next(iter(two.values())).mean


def test_each_of_its_chains_copies_the_model_and_none_of_ours_does(monkeypatch):
    from devinterp.slt import sampler

    copies, real = [], copy.deepcopy
    monkeypatch.setattr(sampler, "deepcopy", lambda thing: copies.append(type(thing).__name__) or real(thing))
    run = {"n_beta": 30.0, "num_chains": 3, "num_draws": 2, "batch_size": 4}
    oracles.llc(small_model(), DATA, lr=1e-3, **run)
    assert copies == ["AttentionOnly"] * 3

    def refuse(*_):
        raise AssertionError("the model was copied")

    model = small_model()
    monkeypatch.setattr(torch.nn.Module, "__deepcopy__", refuse, raising=False)
    assert np.isfinite(refined_llc(model, DATA, weights="1:2", gamma=10.0, eps=1e-3, **run).mean)


def test_its_head_mask_draws_noise_for_all_heads_and_our_slice_for_one(monkeypatch):
    model = small_model()
    where = weight_slice(model, "1:2")
    drawn, real = [], torch.normal

    def counting(*args, **kwargs):
        drawn.append(int(np.prod(kwargs["size"])))
        return real(*args, **kwargs)

    run = {"n_beta": 30.0, "num_chains": 1, "num_draws": 3, "batch_size": 4}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "normal", counting)
        oracles.llc(model, DATA, lr=1e-3, param_masks=oracles.masks_of(model, where), **run)
    heads = sum(p.numel() for p in model.blocks[1].attn.parameters()) - 16
    assert sum(drawn) == 3 * heads == 3 * 4 * where.size
    mine = refined_llc(model, DATA, weights="1:2", gamma=10.0, eps=1e-3, **run)
    assert mine.surroundings.size == where.size
    assert mine.traces.displacement[0, 1] == pytest.approx(np.sqrt(1e-3 * where.size), rel=0.25)


def test_its_chains_share_batches_by_default_and_ours_have_their_own():
    from devinterp.slt.sampling import sample

    run = {"n_beta": 30.0, "num_chains": 2, "num_draws": 4, "batch_size": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = sample(small_model(), oracles.dataset(DATA), {}, device="cpu", lr=1e-3, **run)
    seen = tree.dataset.sampling_input_ids_micro.values
    assert np.array_equal(seen[0], seen[1])
    mine = refined_llc(small_model(), DATA, weights="1:2", gamma=10.0, eps=1e-3, **run)
    assert not np.allclose(mine.traces.start_loss[0], mine.traces.start_loss[1])


def test_its_interrupted_run_must_be_deleted_and_ours_goes_on(tmp_path):
    calls = []

    def interrupted(model, tokens):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return bowl(model, tokens)

    run = {"lr": 1e-3, "n_beta": 30.0, "batch_size": 8, "num_chains": 2, "num_draws": 4, "num_init_loss_batches": 1,
           "output_path": tmp_path / "s.zarr"}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        oracles.llc(Toy(), DATA, loss_fn=interrupted, **run)
    with pytest.raises(RuntimeError, match="Delete and retry"):
        oracles.llc(Toy(), DATA, loss_fn=bowl, **run)

    class Failing(Counting):
        def save(self, key, measurement):
            super().save(key, measurement)
            if self.saved == 2:
                raise KeyboardInterrupt

    store = Failing()
    plan = Sweep(["c"], ["1:0", "1:1"], ["a"], lambda _: small_model(), rows, SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, store)
    assert len(run_sweep(plan, store)) == 2
    assert store.saved == 4


def test_its_masks_assume_a_head_as_wide_as_the_model_over_the_heads_and_our_slices_ask_the_model():
    import transformers
    from devinterp.slt.weight_restrictions import create_param_masks

    config = transformers.LlamaConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=3, head_dim=8,
        intermediate_size=20, vocab_size=31, bos_token_id=0, eos_token_id=0)  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    name = "model.layers.0.self_attn.k_proj.weight"
    theirs = create_param_masks(model, "l0h2")[name]
    mine = oracles.masks_of(model, weight_slice(model, "0:2"))[name]
    key_rows = torch.zeros(24, dtype=torch.bool)
    key_rows[8:16] = True  # head 2 of 6 reads key head 1 of 3, each 8 wide
    assert torch.equal(mine.all(1), key_rows)
    assert not torch.equal(theirs.all(1), key_rows)
