"""Sparse autoencoders: the batched training against autograd; a planted dictionary is found, noise has none."""

from __future__ import annotations

import pytest
import torch
from circuit_claims.heads.autoencoders import step as autoencoder_step
from circuit_claims.heads.autoencoders import training as autoencoder
from circuit_claims.heads.autoencoders.training import (
    Autoencoders,
    AutoencoderSettings,
    Frame,
    mean_max_cosine,
    train_autoencoders,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.heads.plain_autoencoders import train_one

PARTS = ("encoder", "decoder", "encoder_bias", "decoder_bias")
SMALL = {"features": 40, "batch": 16, "epochs": 30}


def vectors(n: int = 70, d_model: int = 24, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Random vectors of uneven length, off centre."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(n, 1, generator=generator) + 0.5
    return (3 * torch.randn(n, d_model, generator=generator) * spread + 1).to(dtype)


def furthest(one: Autoencoders, other: Autoencoders, row: int, other_row: int) -> float:
    """The largest difference in any parameter between a run of one training and a run of another."""
    return max(float((getattr(one, part)[row] - getattr(other, part)[other_row]).abs().max()) for part in PARTS)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"tied": True},
        {"unit_decoder": False},
        {"centre": False, "scale": "as is"},
        {"scale": "root d_model"},
        {"basis": "model"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(70, 24), (30, 48)], ids=["more vectors than dimensions", "fewer"])
def test_many_at_once_equal_autograd_one_by_one(shape, change) -> None:
    """In double precision: in single, a code on the edge of being active may fall on either side of it."""
    x, chosen = vectors(*shape), AutoencoderSettings(**{**SMALL, **change})
    together = train_autoencoders(x, [3, 5], chosen)
    for row, seed in enumerate(together.seeds):
        alone = train_one(x, seed, chosen)
        assert furthest(together, alone, row, 0) < 1e-4
        assert torch.equal(together.alive[row], alone.alive[0])
    assert furthest(together, together, 0, 1) > 0.01


def test_a_run_does_not_depend_on_its_company() -> None:
    x, chosen = vectors(dtype=torch.float32), AutoencoderSettings(**SMALL)
    together = train_autoencoders(x, [0, 1, 2, 3], chosen)
    assert furthest(together, train_autoencoders(x, [2], chosen), 2, 0) < 1e-4
    assert furthest(together, train_autoencoders(x, [3, 1], chosen), 1, 1) < 1e-4


def test_turns_give_what_one_training_gives(monkeypatch) -> None:
    x, chosen = vectors(dtype=torch.float32), AutoencoderSettings(**SMALL)
    together = train_autoencoders(x, [0, 1, 2], chosen)
    monkeypatch.setattr(autoencoder, "MOST_BYTES", 1)
    in_turns = train_autoencoders(x, [0, 1, 2], chosen)
    assert in_turns.seeds == together.seeds
    assert max(furthest(together, in_turns, row, row) for row in range(3)) < 1e-4


def test_rows_that_sleep_are_left_out_and_kept(monkeypatch) -> None:
    """A strong penalty kills most features; the packed training still equals autograd, which never leaves a row out."""
    x, chosen = vectors(), AutoencoderSettings(**{**SMALL, "epochs": 80, "l1": 1.2, "learning_rate": 1e-2})
    sizes = []
    packed = autoencoder._State.pack
    monkeypatch.setattr(autoencoder._State, "pack", lambda state: (packed(state), sizes.append(state.idle.shape[1])))
    together = train_autoencoders(x, [0, 1], chosen)
    assert sizes[-1] < 0.8 * chosen.features, "nothing was packed: the test proves nothing"
    assert furthest(together, train_one(x, 1, chosen), 1, 0) < 1e-4


def test_a_planted_dictionary_is_found_and_noise_has_none() -> None:
    generator = torch.Generator().manual_seed(1)
    dictionary = torch.randn(12, 32, generator=generator)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    codes = torch.rand(300, 12, generator=generator) * (torch.rand(300, 12, generator=generator) < 0.15)
    chosen = AutoencoderSettings(features=48, epochs=60, batch=32)
    planted = train_autoencoders(codes @ dictionary, [0, 1], chosen)
    noise = train_autoencoders(torch.randn(300, 32, generator=generator), [0, 1], chosen)
    unit = planted.decoder / planted.decoder.norm(dim=2, keepdim=True)
    found = (unit @ dictionary.T).amax(1)  # (seed, planted feature)
    assert found.min() > 0.8
    agreement = [torch.nanmean(mean_max_cosine(runs)) for runs in (planted, noise)]
    assert agreement[0] > agreement[1] + 0.2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**20))
def test_the_agreement_of_runs_is_the_slow_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    decoder = torch.randn(2, 5, 4, generator=generator)
    alive = torch.ones(2, 5, dtype=torch.bool)
    alive[0, 2] = False
    runs = made_of(decoder, alive)
    for alive_only in (True, False):
        found = mean_max_cosine(runs, alive_only=alive_only)
        for one, other in ((0, 1), (1, 0)):
            best = [
                max(float(torch.cosine_similarity(mine, theirs, dim=0))
                    for theirs, there in zip(decoder[other], alive[other], strict=True) if there or not alive_only)
                for mine, here in zip(decoder[one], alive[one], strict=True) if here or not alive_only
            ]  # fmt: skip
            assert float(found[one, other]) == pytest.approx(sum(best) / len(best), abs=1e-5)
        assert found.diagonal().isnan().all()


def made_of(decoder: torch.Tensor, alive: torch.Tensor) -> Autoencoders:
    """Runs with these decoders."""
    seeds, features, width = decoder.shape
    nothing = torch.zeros(seeds, width)
    return Autoencoders(
        tuple(range(seeds)), AutoencoderSettings(), decoder, decoder, torch.zeros(seeds, features), nothing, nothing,
        torch.ones(seeds), torch.zeros(seeds, 1, dtype=torch.long), alive,
    )  # fmt: skip


def test_codes_and_reconstructions_are_in_the_models_units() -> None:
    x, chosen = vectors(dtype=torch.float32), AutoencoderSettings(**SMALL)
    runs = train_autoencoders(x, [0, 1], chosen)
    codes = runs.codes(x)
    by_hand = runs.centre[:, None] + (codes @ runs.decoder + runs.decoder_bias[:, None]) / runs.scale[:, None, None]
    assert torch.allclose(runs.reconstruct(codes), by_hand, atol=1e-4)
    without = codes.clone()
    without[:, :, 3] = 0
    removed = runs.reconstruct(codes) - codes[:, :, 3, None] * runs.features()[:, 3, None]
    assert torch.allclose(runs.reconstruct(without), removed, atol=1e-4)


def test_too_little_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 vectors"):
        train_autoencoders(vectors(9), [0])
    with pytest.raises(ValueError, match="one seed"):
        train_autoencoders(vectors(), [])


@pytest.mark.parametrize("centre", [True, False])
def test_the_basis_of_the_span_loses_nothing(centre: bool) -> None:
    """Fewer vectors than dimensions: coordinates give the vectors back, and no run has a part outside their span."""
    x = vectors(20, 48, dtype=torch.float32)
    chosen = AutoencoderSettings(**{**SMALL, "centre": centre})
    frame = Frame.of(x, chosen)
    assert frame.basis.shape == (48, 19 if centre else 20)
    assert torch.allclose(frame.inside(x) @ frame.basis.T + frame.origin, x, atol=1e-4)
    runs = train_autoencoders(x, [0], chosen)
    outside = runs.encoder[0] - runs.encoder[0] @ frame.basis @ frame.basis.T
    assert outside.abs().max() < 1e-5
    assert Frame.of(x, AutoencoderSettings(basis="model")).basis is None


def test_passes_are_compiled_where_nothing_can_be_kept_too(monkeypatch):
    def njit(cache=False, **settings):
        def decorate(function):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return function

        return decorate

    monkeypatch.setattr(autoencoder_step.numba, "njit", njit)

    def doubled(number):
        return 2 * number

    assert autoencoder_step.compiled_step(doubled)(3) == 6
