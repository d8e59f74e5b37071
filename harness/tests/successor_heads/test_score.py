"""Scores against a plain slow reference, on planted truths, and what must hold for any logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from circuit_claims.heads.groups import Group
from circuit_claims.papers.successor_heads.dataset import Task, assemble_dataset, succession
from circuit_claims.papers.successor_heads.succession.score import (
    Resamples,
    SuccessorScores,
    find_winners,
    form_hits,
    score_heads,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.successor_heads.toy import (
    Words,
    layers_of,
    plain_pairs,
    planted_table,
    rivals_of,
    slow_scores,
    small_words,
)

WORDS = small_words()


def scored(table: torch.Tensor, exclude_self: bool = False, draws: int = 50, **layout: bool) -> SuccessorScores:
    dataset = succession(WORDS, **layout)
    winners = find_winners(layers_of(table, dataset), dataset)
    rng = np.random.default_rng(0)
    return score_heads(winners, dataset, generator=rng, exclude_self=exclude_self, bootstrap_draws=draws)


def random_table(seed: int, layers: int = 2, heads: int = 3, rounded: bool = False) -> torch.Tensor:
    table = torch.randn(layers, heads, len(WORDS), len(WORDS), generator=torch.Generator().manual_seed(seed))
    return (2 * table).round() if rounded else table


@pytest.mark.parametrize("rounded", [False, True], ids=["no ties", "many ties"])
@pytest.mark.parametrize("exclude_self", [False, True], ids=["all", "but self"])
@pytest.mark.parametrize("mixed_forms", [False, True], ids=["one form", "mixed"])
@pytest.mark.parametrize("wraps", [False, True], ids=["chain", "wraps"])
def test_scores_equal_the_slow_reference(rounded, exclude_self, mixed_forms, wraps):
    table = random_table(1, rounded=rounded)
    table[1, 2] = planted_table(succession(WORDS), WORDS, 1, torch.Generator().manual_seed(2))[0, 0]
    scores = scored(table, exclude_self, mixed_forms=mixed_forms, wraps=wraps)
    dataset = succession(WORDS, mixed_forms=mixed_forms, wraps=wraps)
    for row, (layer, head) in enumerate(scores.heads):
        expected = slow_scores(table[layer, head].numpy(), dataset, exclude_self)
        found = (scores.score[row], scores.macro_score[row], scores.copy_score[row])
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_planted_successor_scores_one_and_leads():
    table = planted_table(succession(WORDS), WORDS, 5, torch.Generator().manual_seed(3))
    scores = scored(table, draws=200)
    assert scores.score[4] == scores.macro_score[4] == 1.0
    assert scores.copy_score[4] < 0.3
    assert scores.name(int(scores.ranking()[0])) == "L0H4"
    assert scores.support()[4] == 1.0
    assert scores.lead().value > 2
    assert scores.simultaneous()[4, 0] > 0.5


def test_the_same_head_with_a_shuffled_map_does_not():
    table = planted_table(succession(WORDS), WORDS, 5, torch.Generator().manual_seed(3))
    shuffle = torch.randperm(len(WORDS), generator=torch.Generator().manual_seed(4))
    scores = scored(table[..., shuffle])
    assert scores.score[4] < 0.3


def test_a_tie_is_not_a_pass():
    table = planted_table(succession(WORDS), WORDS, 1, torch.Generator().manual_seed(3))
    dataset = succession(WORDS)
    for entry, successor in plain_pairs(dataset):
        rival = min(rivals_of(entry, dataset) - {successor.token})
        table[0, 0, entry.token, rival] = table[0, 0, entry.token, successor.token]
    assert scored(table).score[0] == 0.0


def test_a_head_that_copies_and_increments_shows_only_without_the_token_itself():
    table = planted_table(succession(WORDS), WORDS, 1, torch.Generator().manual_seed(3))
    for token in WORDS.ids.values():
        table[0, 0, token, token] = 200.0
    assert scored(table).score[0] == 0.0
    assert scored(table).copy_score[0] == 1.0
    assert scored(table, exclude_self=True).score[0] == 1.0


def test_a_set_of_two_tokens_is_no_test_once_the_token_itself_is_out():
    pair = Task("pair", ("alpha", "beta"))
    long = Task("long", ("one", "two", "three"))
    dataset = assemble_dataset(Words(["alpha", "beta", "one", "two", "three"]), [pair, long])
    winners = find_winners(layers_of(torch.zeros(1, 1, 5, 5), dataset), dataset)
    rng = np.random.default_rng(0)
    with_self = score_heads(winners, dataset, generator=rng)
    without = score_heads(winners, dataset, generator=rng, exclude_self=True)
    assert (with_self.pair_count, without.pair_count) == (3, 2)
    assert np.isnan(without.task_scores[0, 0])
    assert without.macro_score[0] == without.score[0] == 0.0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.floats(0.1, 10.0), shift=st.floats(-5.0, 5.0))
def test_a_rising_transform_of_the_logits_leaves_the_winners_unchanged(seed, scale, shift):
    dataset = succession(WORDS)
    table = random_table(seed, 1, 2).double()
    before = find_winners(layers_of(table, dataset), dataset)
    after = find_winners(layers_of(torch.sinh(table) * scale + shift, dataset), dataset)
    np.testing.assert_array_equal(before.winner, after.winner)
    np.testing.assert_array_equal(before.winner_but_self, after.winner_but_self)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(len(WORDS))))
def test_the_score_does_not_depend_on_the_order_of_token_ids(order):
    words, shuffled = small_words(), small_words()
    shuffled.ids = {text: order[place] for text, place in words.ids.items()}
    table = random_table(7, 1, 2)
    moved = torch.empty_like(table)
    moved[:, :, torch.tensor(order)[:, None], torch.tensor(order)] = table
    results = []
    for vocabulary, logits in ((words, table), (shuffled, moved)):
        dataset = succession(vocabulary)
        winners = find_winners(layers_of(logits, dataset), dataset)
        rng = np.random.default_rng(0)
        results.append(score_heads(winners, dataset, generator=rng, bootstrap_draws=2))
    np.testing.assert_allclose(results[0].score, results[1].score)
    np.testing.assert_allclose(results[0].macro_score, results[1].macro_score)
    np.testing.assert_allclose(results[0].copy_score, results[1].copy_score)


def test_bootstrap_draws_equal_a_plain_recount():
    """Each draw's scores, recounted pair by pair with the drawn tokens repeated."""
    table = random_table(5)
    scores = scored(table, draws=7)
    drawn = dict(zip(scores.resamples.strings, scores.resamples.counts.T, strict=True))
    for draw in range(7):
        times = np.asarray([drawn[string][draw] for string in scores.string]) * scores.weight
        shares = [
            (scores.hits[:, scores.task == task] @ times[scores.task == task]) / times[scores.task == task].sum()
            for task in range(len(scores.task_names))
            if times[scores.task == task].sum() > 0
        ]
        np.testing.assert_allclose(scores.draws["score"][draw], scores.hits @ times / times.sum(), rtol=1e-5)
        np.testing.assert_allclose(scores.draws["macro_score"][draw], np.mean(shares, axis=0), rtol=1e-5)


def test_forms_of_one_string_move_together_and_task_sizes_stay():
    dataset = succession(WORDS)
    used = np.ones(len(dataset.pairs.column), dtype=bool)
    resamples = Resamples.draw(dataset, used, 100, np.random.default_rng(0))
    assert len(resamples.strings) == len(np.unique(dataset.pairs.string))
    assert len(resamples.strings) < len(np.unique(dataset.pairs.token))  # " Monday" and "Monday" are one string
    spelt = {(entry.task, entry.token): entry.text.strip().lower() for entry in dataset.entries}
    texts = [
        spelt[dataset.task_names[task], token]
        for task, token in zip(dataset.pairs.task, dataset.pairs.token, strict=True)
    ]
    assert len(set(zip(texts, dataset.pairs.string, strict=True))) == len(set(texts)) == len(resamples.strings)
    np.testing.assert_allclose(resamples.counts.sum(axis=1), len(resamples.strings), rtol=1e-5)


def many_token_scores(chances: np.ndarray, tokens: int, rng: np.random.Generator, draws: int = 400) -> SuccessorScores:
    """Heads that pass each of many tokens with a known chance: no model, only the statistics."""
    hits = rng.random((len(chances), tokens)) < chances[:, None]
    ids = np.arange(tokens)
    counts = rng.multinomial(tokens, np.full(tokens, 1 / tokens), draws).astype(np.float32)
    heads = np.stack([np.zeros(len(chances), dtype=int), np.arange(len(chances))], axis=1)
    ones = np.ones(tokens, dtype=int)
    zero = np.zeros(tokens, dtype=int)
    return SuccessorScores(
        heads, ("one",), hits, ones, zero, ids, np.zeros(len(chances)), Resamples(ids, counts, (tokens,)), False, True
    )


def test_intervals_cover_the_truth():
    """90 % intervals of the leader, of its lead, and of all heads at once, over 200 simulated models.

    With a coverage of 0.85 in truth (bootstrap at 150 tokens loses a little), fewer than 156 of 200 hits have a
    probability below 0.005 for each of the three checks (binomial).
    """
    rng, chances = np.random.default_rng(11), np.array([0.6, 0.3, 0.25, 0.2, 0.1, 0.1])
    own = lead = together = 0
    for _ in range(200):
        scores = many_token_scores(chances, 150, rng)
        low, high = scores.intervals("score")[0]
        own += low <= 0.6 <= high
        ratio = scores.lead("score")
        lead += ratio.low <= 2.0 <= ratio.high
        band = scores.simultaneous("score")
        together += bool(((band[:, 0] <= chances) & (chances <= band[:, 1])).all())
    assert min(own, lead, together) >= 156


def test_support_is_shared_where_nobody_leads():
    """Two equal heads: each leads in about half of the draws; a third, far below, in none."""
    hits = np.zeros((3, 100), dtype=bool)
    hits[0, :50], hits[1, 50:] = True, True
    base = many_token_scores(np.zeros(3), 100, np.random.default_rng(0), draws=2000)
    scores = replace(base, hits=hits)
    support = scores.support("score")
    assert support.sum() == pytest.approx(1.0)
    assert support[0] == pytest.approx(0.5, abs=0.06)  # 5 standard errors of 2,000 draws
    assert support[2] == 0.0
    lead = scores.lead("score")
    assert lead.low < 1.0 < lead.high


def test_a_runner_up_without_a_pass_gives_an_infinite_lead_and_no_nan():
    hits = np.zeros((2, 40), dtype=bool)
    hits[0] = True
    base = many_token_scores(np.zeros(2), 40, np.random.default_rng(0), draws=50)
    lead = replace(base, hits=hits).lead("score")
    assert (lead.value, lead.low, lead.high) == (np.inf, np.inf, np.inf)
    nobody = base.lead("score")
    assert (nobody.value, nobody.low, nobody.high) == (1.0, 1.0, 1.0)


def test_form_hits_counts_days_in_one_form():
    table = planted_table(succession(WORDS), WORDS, 2, torch.Generator().manual_seed(3))
    dataset = succession(WORDS)
    hits, wanted = form_hits(find_winners(layers_of(table, dataset), dataset), dataset, "days", "space")
    assert (hits[1], wanted) == (7, 7)
    assert hits[0] < 7
    with pytest.raises(KeyError, match="no token in form"):
        form_hits(find_winners(layers_of(table, dataset), dataset), dataset, "months", "inverted")


def test_errors_say_what_was_expected_and_what_was_found():
    dataset = succession(WORDS)
    layers = layers_of(random_table(0, 1, 1), dataset)
    with pytest.raises(ValueError, match=r"expected logits \(head, \d+, \d+\), found"):
        find_winners([[logits[:, :-1] for logits in layers[0]]], dataset)
    with pytest.raises(ValueError, match="comparison sets, found 1"):
        find_winners([layers[0][:1]], dataset)
    with pytest.raises(ValueError, match="expected finite logits"):
        find_winners([[logits * torch.nan for logits in layers[0]]], dataset)
    with pytest.raises(ValueError, match="no layer of logits"):
        find_winners([], dataset)
    empty = succession(Words(["Monday"]))
    winners = find_winners([[torch.zeros(1, 1, 1)]], empty)
    with pytest.raises(ValueError, match="at least one pair, found none"):
        score_heads(winners, empty, generator=np.random.default_rng(0))
    with pytest.raises(KeyError, match="no head named L9H9: expected one from L0H0 to L0H0"):
        scored(random_table(0, 1, 1)).row("L9H9")


def test_the_winner_of_each_column_is_a_place_in_its_set():
    dataset = succession(Words(["Monday", "Tuesday", "Wednesday"]))
    assert dataset.groups == (Group((0, 1, 2), (0, 1, 2)),)
    logits = torch.tensor(
        [[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [2.0, 0.0, 0.0]], [[2.0, 1.0, 1.0], [0.0] * 3, [0.0] * 3]]
    )
    winners = find_winners([[logits]], dataset)
    assert winners.winner.tolist() == [[1, 2, 0], [0, -1, -1]]
    assert winners.winner_but_self.tolist() == [[1, 2, 0], [-1, -1, -1]]
