"""Most important features, their modes by residue, and the tokens behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from circuit_claims.heads.autoencoders.training import AutoencoderSettings, train_autoencoders
from circuit_claims.heads.ov_circuit import effective_ov_logits
from circuit_claims.heads.planted import random_tensors, small_config
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.counting.features import (
    NOBODY,
    Important,
    head_logits,
    logits_of_features,
    mod_ten_features,
    modal_coverage,
    modal_features,
    most_important_features,
    random_features,
    successor_probability,
)
from circuit_claims.papers.successor_heads.counting.planted.counter import token_ids
from circuit_claims.papers.successor_heads.counting.tokens import counted_tokens
from circuit_claims.papers.successor_heads.succession.planted_subject import WordTokens

from tests.helpers.small_models import ARCHITECTURES
from tests.successor_heads.counting.counters import PERIODS, counter, shuffled

SMALL = AutoencoderSettings(features=96, epochs=60, batch=32)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_heads_logits_are_those_of_the_whole_circuit(architecture: str) -> None:
    table = random_tensors(small_config(architecture, 20, 24), torch.Generator().manual_seed(0))
    weights, tokens, candidates = CircuitWeights.open(table), torch.arange(20), torch.tensor([3, 1, 17])
    vectors = weights.mlp0(weights.embed(tokens))
    for layer, whole in enumerate(effective_ov_logits(weights, tokens, candidates)):
        for head in range(weights.n_heads):
            mine = head_logits(weights, (layer, head), candidates)(vectors)
            assert torch.allclose(mine, whole[head], atol=1e-4)


def test_importance_is_the_slow_one() -> None:
    """Every feature of a few tokens taken out by hand, one after another."""
    here = counter(10)
    runs = train_autoencoders(here.vectors, [0, 1], SMALL)
    found = most_important_features(runs, here.vectors, here.successors, here.logits)
    codes = runs.codes(here.vectors)
    for seed in (0, 1):
        for token in (0, 17, 60):
            kept = _probability(here, runs.reconstruct(codes)[seed, token], token)
            assert found.kept[seed, token] == pytest.approx(kept, abs=1e-5)
            drops = []
            for feature in range(SMALL.features):
                without = codes.clone()
                without[seed, token, feature] = 0
                drops.append(kept - _probability(here, runs.reconstruct(without)[seed, token], token))
            assert found.drop[seed, token] == pytest.approx(max(*drops, 0), abs=1e-5)
            if max(drops) > 1e-4:
                assert drops[found.feature[seed, token]] == pytest.approx(max(drops), abs=1e-5)
    assert (found.feature[:, -1] == NOBODY).all(), "the last number has no successor among the candidates"


def _probability(here, vector: torch.Tensor, token: int) -> float:
    return float(successor_probability(here.logits(vector[None]), here.successors[token : token + 1])[0])


@pytest.mark.parametrize("period", PERIODS)
def test_the_planted_period_covers_more_than_shuffled_classes_and_than_other_periods(period: int) -> None:
    here = counter(period)
    runs = train_autoencoders(here.vectors, range(4), SMALL)
    important = most_important_features(runs, here.vectors, here.successors, here.logits)

    def coverage(residues: np.ndarray, modulus: int):
        modal = modal_features(runs, here.vectors, important, residues, modulus)
        return modal_coverage(important, modal, residues, here.tokens.index)

    planted = coverage(here.residues(period), period)
    for control in (
        coverage(shuffled(here.residues(period)), period),
        *(coverage(here.residues(other), other) for other in PERIODS if other != period),
    ):
        assert planted.interval.low > control.interval.high


def test_the_mode_goes_by_count_then_by_drop_and_absent_residues_have_none() -> None:
    vectors = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    runs = train_autoencoders(vectors, [0], AutoencoderSettings(features=8, epochs=1))
    feature = np.array([[1, 1, 2, 5, 6, NOBODY, NOBODY, NOBODY, 3, 3, 3, 3]])
    drop = np.array([[0.1, 0.1, 0.9, 0.2, 0.3, 0, 0, 0, 1, 1, 1, 1]])
    residues = np.array([0, 0, 0, 1, 1, 1, 2, 2, NOBODY, NOBODY, NOBODY, NOBODY])
    important = Important(feature, drop, drop)
    modal = modal_features(runs, vectors, important, residues, 4)
    assert modal.feature.tolist() == [[1, 6, NOBODY, NOBODY]]
    assert modal.coverage[0] == pytest.approx([2 / 3, 1 / 3, 0, 0])
    assert modal.distinct.tolist() == [1.0]
    rows = mod_ten_features(modal)
    unit = runs.decoder[0] / runs.decoder[0].norm(dim=1, keepdim=True)
    assert torch.allclose(rows[:2], unit[[1, 6]], atol=1e-5)
    assert (rows[2:] == 0).all()
    found = modal_coverage(important, modal, residues, np.arange(12))
    assert found.value == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_coverage_without_any_feature_is_refused() -> None:
    vectors = torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    runs = train_autoencoders(vectors, [0], AutoencoderSettings(features=8, epochs=1))
    nothing = np.full((1, 12), NOBODY)
    important = Important(nothing, nothing * 0.0, nothing * 0.0)
    modal = modal_features(runs, vectors, important, np.arange(12) % 10)
    with pytest.raises(ValueError, match="expected tokens with a most important feature"):
        modal_coverage(important, modal, np.arange(12) % 10, np.arange(12))


def test_the_control_has_the_same_length_and_other_features() -> None:
    here = counter(10)
    runs = train_autoencoders(here.vectors, [0, 1], SMALL)
    important = most_important_features(runs, here.vectors, here.successors, here.logits)
    modal = modal_features(runs, here.vectors, important, here.residues(10))
    control = random_features(runs, modal, torch.Generator().manual_seed(0))
    assert torch.allclose(control.norm(dim=1), mod_ten_features(modal).norm(dim=1), atol=1e-5)
    unit = runs.decoder / runs.decoder.norm(dim=2, keepdim=True)
    for row in range(2):
        cosines = control @ unit[row].T
        matched = {int(at) for at, best in zip(cosines.argmax(1), cosines.amax(1), strict=True) if best > 0.9999}
        assert not matched & set(modal.feature[row].tolist())
    table = logits_of_features(mod_ten_features(modal), here.logits)
    assert table.shape == (len(here.tokens), 10)
    assert np.abs(table.mean(0)).max() < 1e-4


def test_tokens_have_their_index_and_successor() -> None:
    tokens = counted_tokens(WordTokens(token_ids()), roman=True)
    text = {(task, spelt): at for at, (task, spelt) in enumerate(zip(tokens.tasks, tokens.texts, strict=True))}

    def after(task: str, spelt: str) -> str | None:
        row = tokens.successor[text[task, spelt]]
        return None if row == NOBODY else tokens.texts[row]

    assert after("numbers", " 499") == " 500"
    assert after("numbers", "500") is None
    assert after("days", " Sunday") == " Monday"
    assert after("letters", "Z") is None
    assert after("roman numerals", " IX") == " X"
    wanted = {("numbers", "0"): 0, ("days", "Monday"): 1, ("months", " December"): 12, ("letters", " A"): 1}
    assert {key: int(tokens.index[text[key]]) for key in wanted} == wanted
    single = tokens.distinct()
    assert len(set(single.tokens.tolist())) == len(single) < len(tokens)
    assert single.tasks[single.texts.index("May")] == "months"
    april = single.texts.index(" Apr")
    assert single.texts[single.successor[april]] == " May", "a successor that is kept in another task is still found"


def test_a_tokenizer_that_splits_numbers_has_digits() -> None:
    ids = {text: at for text, at in token_ids().items() if not text.strip().isdigit() or len(text.strip()) == 1}
    tokens = counted_tokens(WordTokens(ids))
    assert "numbers" not in tokens.tasks
    assert tokens.index[tokens.of("digits")].max() == 9
    assert tokens.take(tokens.of("digits")).texts[0] == "0"
