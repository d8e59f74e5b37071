"""The planted counter, vector arithmetic on it, and its greater-than bias, all where the answer is known."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from circuit_claims.heads.ov_circuit import effective_ov_logits
from circuit_claims.heads.planted import random_tensors, small_config
from circuit_claims.models.architectures.layers import CircuitWeights
from circuit_claims.papers.successor_heads.counting.planted.counter import HEAD, planted_counter, token_ids, vocabulary
from circuit_claims.papers.successor_heads.counting.planted.subject import CounterPlan, CounterTokens
from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, succession
from circuit_claims.papers.successor_heads.steering.arithmetic import (
    NOBODY,
    SCALES,
    HeadLogits,
    best_scale,
    contrasts,
    layout,
    mlp0_of,
    rate_draws,
    rate_interval,
    steering_table,
    strict_winner,
)
from circuit_claims.papers.successor_heads.steering.greater_than import (
    bias_of_feature_logits,
    bias_of_logits,
    feature_bias,
    head_bias,
    mean_profile,
    over_draws,
)
from circuit_claims.papers.successor_heads.steering.tokens import Items, counted_items, items_of
from circuit_claims.papers.successor_heads.succession.sweep import sweep_heads
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.small_models import ARCHITECTURES

TOKENS = CounterTokens(token_ids())
PERIODS = (10, 7, 12)


@functools.cache
def weights(period: int = 10, greater_than: bool = True) -> CircuitWeights:
    return CircuitWeights.open(planted_counter(period, greater_than=greater_than))


@functools.cache
def directions(period: int) -> torch.Tensor:
    """The true direction of each residue mod 10 at the length of the contrast: the numbers' means less all means."""
    numbers = mlp0_of(weights(period), [TOKENS.ids[str(number)] for number in range(500)])
    means = numbers.reshape(50, 10, -1).mean(0)
    means = means - means.mean(0)
    unit = means / means.norm(dim=1, keepdim=True)
    return unit * contrasts(numbers, torch.arange(500) % 10, unit)[:, None]


def table(task: str, period: int = 10):
    (items,) = counted_items(TOKENS, [task])
    return steering_table(HeadLogits.open(weights(period), HEAD), items, directions(period))


@pytest.mark.parametrize("period", PERIODS)
def test_the_planted_head_counts_whatever_the_period(period):
    """Every number has its successor on top of the whole vocabulary; the other heads are at chance."""
    ids = [TOKENS.ids[f" {number}"] for number in range(501)]
    logits = HeadLogits.open(weights(period), HEAD).logits(
        mlp0_of(weights(period), ids[:-1]), range(weights().dims.d_vocab)
    )
    assert logits.argmax(1).tolist() == ids[1:]
    scores = sweep_heads(weights(period), succession(TOKENS), bootstrap_draws=50, shuffles=50).scores
    first, second = scores.ranking("score")[:2]
    assert scores.name(int(first)) == "L1H2"
    assert scores.score[first] > 0.95
    assert scores.score[second] < 0.1


def test_the_planted_vocabulary_has_every_task_and_each_string_once():
    texts = [word.text for word in vocabulary()]
    assert len(texts) == len(set(texts)) == len(TOKENS.ids)
    assert all(items_of(TOKENS, task) is not None for task in PAPER_TASKS)
    assert {word.text: word.index for word in vocabulary()}[" May"] == 5
    assert TOKENS.single_token("501") is None


def test_a_period_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="expected 3 to 12, found 13"):
        CounterPlan(13)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_readout_is_the_circuits_head(architecture):
    """On MLP_0(W_E) of tokens it gives the logits of the effective OV circuit, norms, biases and shared values too."""
    generator = torch.Generator().manual_seed(0)
    small = CircuitWeights.open(random_tensors(small_config(architecture, 12, 12), generator))
    tokens = torch.arange(12)
    for layer, logits in enumerate(effective_ov_logits(small, tokens, tokens)):
        for head in range(small.n_heads):
            read = HeadLogits.open(small, (layer, head)).logits(mlp0_of(small, range(12)), range(12))
            assert torch.allclose(read, logits[head], atol=2e-4)


@pytest.mark.parametrize("task", ["numbers", "number words", "ordinal words"])
def test_arithmetic_succeeds_where_it_is_planted(task):
    found = table(task)
    assert found.rates()[found.at(1.0)] > 0.95
    assert found.rates(edited_only=True)[found.at(0.0)] < 0.05
    assert found.rates()[found.at(1.0)] >= found.rates().max() - 0.02


def test_months_need_twice_the_edit():
    found = table("months")
    assert found.rates()[found.at(2.0)] > 0.85
    assert found.rates()[found.at(1.0)] < 0.5
    assert best_scale(found.rates(edited_only=True), SCALES) > 1.5


@pytest.mark.parametrize("task", ["days", "letters"])
def test_tasks_with_a_circle_of_their_own_cannot_be_edited(task):
    found = table(task)
    assert found.rates(edited_only=True)[found.at(1.0)] < 0.05


@pytest.mark.parametrize("period", [7, 12])
@pytest.mark.parametrize("task", ["numbers", "months"])
def test_arithmetic_fails_with_another_period(period, task):
    found = table(task, period)
    assert found.rates(edited_only=True).max() < 0.2


def test_a_table_is_the_slow_one():
    """Cell by cell: one vector, one edit, the logits sorted, the successor of the edited order looked up by hand."""
    found = table("ordinal words")
    items, readout, f = found.items, HeadLogits.open(weights(), HEAD), directions(10)
    for row, place in enumerate(found.rows):
        n = items.index[place]
        for residue in range(10):
            order = n - n % 10 + residue
            exists = 1 <= order < 10
            assert found.expected[row, residue] == (order if exists else NOBODY), (
                "the successor's place is order - 1 + 1"
            )
            x = mlp0_of(weights(), [items.tokens[place]])[0] + 1.5 * (f[residue] - f[n % 10])
            logits = readout.logits(x, items.tokens)
            assert found.winner[found.at(1.5), row, residue] == int(logits.argsort(descending=True)[0])


def test_which_cells_a_table_has():
    numbers, months, words = counted_items(TOKENS, ["numbers", "months", "number words"])
    rows, cells = layout(numbers)
    assert [numbers.texts[place] for place in rows] == [str(number) for number in range(20, 30)]
    assert [[numbers.texts[place] for place in row] for row in cells] == [[str(n) for n in range(21, 31)]] * 10
    rows, cells = layout(months)
    december = [months.texts[place] if place != NOBODY else None for place in cells[11]]
    assert december == ["November", "December", "January", *[None] * 7]
    rows, _ = layout(words)
    assert [words.texts[place] for place in rows] == list(words.texts[9:19]), "twenty has no cell"


def test_items_are_those_of_the_richest_form_after_a_space_if_in_doubt():
    class Few:
        def single_token(self, text):
            return {"Monday": 1, "Tuesday": 2, " Monday": 3, "monday": 4, "tuesday": 5, "friday": 6}.get(text)

    days = items_of(Few(), PAPER_TASKS[3])
    assert (days.form, days.tokens, days.index) == ("inverted", (4, 5, 6), (1, 2, 5))
    assert days.successor_of(2) is None
    assert items_of(Few(), PAPER_TASKS[5]) is None


def test_a_tie_has_no_winner():
    assert strict_winner(torch.tensor([[1.0, 2.0, 2.0], [0.0, 3.0, 1.0]])).tolist() == [NOBODY, 1]


def test_the_best_scale_is_the_middle_of_a_plateau_and_none_where_no_edit_helps():
    rates = np.asarray([[0.1, 0.5, 0.9, 0.9, 0.2], [0.3, 0.3, 0.1, 0.0, 0.3]])
    assert best_scale(rates, (0.0, 1.0, 2.0, 3.0, 4.0)).tolist() == [2.5, 0.0]


def test_an_interval_holds_the_rate_and_is_not_narrower_than_the_binomial_one():
    found = table("numbers")
    draws = rate_draws(found, np.random.default_rng(0), 200)
    low, high = rate_interval(found, 1.0, draws)
    assert low <= found.rates()[found.at(1.0)] <= high
    assert low < 0.98


def test_draws_over_rows_and_residues_spread_wider_than_over_cells():
    """Half the rows all right, half all wrong: as cells that would be 100 coins, as rows it is ten."""
    (items,) = counted_items(TOKENS, ["numbers"])
    rows, expected = layout(items)
    winner = expected.copy()
    winner[::2] = NOBODY
    from circuit_claims.papers.successor_heads.steering.arithmetic import SteeringTable

    made = SteeringTable(items, (1.0,), rows, tuple(range(10)), expected, winner[None])
    spread = rate_draws(made, np.random.default_rng(0), 2000)[:, 0].std()
    assert spread == pytest.approx(0.5 / 10**0.5, rel=0.15)


def share_above(logits, at: int) -> float:
    """The slow one: share of distances of two or more at which the candidate above `at` outdoes the one below."""
    reach = min(at, len(logits) - 1 - at)
    wins = [(logits[at + d] > logits[at - d]) + 0.5 * (logits[at + d] == logits[at - d]) for d in range(2, reach + 1)]
    return float(np.mean(wins)) if wins else float("nan")


@given(st.lists(st.lists(st.integers(-5, 5), min_size=8, max_size=8), min_size=8, max_size=8))
def test_a_bias_is_the_slow_one_and_its_mirror_image_is_the_rest(rows):
    """Token by token around its successor; read for descending values, every value above is below."""
    logits = np.asarray(rows, dtype=float)
    bias = bias_of_logits(["digits"], [logits])
    slow = [share_above(row, place + 1) for place, row in enumerate(logits[:-1])]
    assert bias.shares[0] == pytest.approx([share for share in slow if not np.isnan(share)])
    assert bias_of_logits(["digits"], [-logits]).value == pytest.approx(1 - bias.value)
    once = np.ones((1, 8))
    assert bias.pairs[0].share(once)[0] == pytest.approx(bias.value, abs=1e-6)


def test_a_draw_counts_a_pair_as_often_as_its_source_and_both_its_values():
    """Against the plain thing: a task in which each string stands as often as it was drawn."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(9, 9))
    (pairs,) = bias_of_logits(["digits"], [logits]).pairs
    counts = generator.integers(1, 4, (3, 9)).astype(float)
    for row, found in zip(counts, pairs.share(counts), strict=True):
        each = []
        for token in range(8):
            around = [(token + 1 + d, token + 1 - d) for d in range(2, min(token + 1, 7 - token) + 1)]
            weights = [row[above] * row[below] for above, below in around]
            if around:
                wins = [logits[token, above] > logits[token, below] for above, below in around]
                each.append((row[token], np.average(wins, weights=weights)))
        drawn, shares = np.transpose(each)
        assert found == pytest.approx(np.average(shares, weights=drawn), abs=1e-6)


@pytest.mark.parametrize("read", ["head", "features"])
def test_one_order_of_the_values_whatever_is_read_is_no_bias(read):
    """A head that puts a task's strings in much the same chance order: a rule at 90 % is wrong 5 % of times each way.

    200 data sets: more than 20 have probability 0.001.
    """
    generator, wrong = np.random.default_rng(0), 0
    indices = [list(range(10)), list(range(1, 21)), list(range(1, 11))]
    names = ("digits", "number words", "ordinal words")
    for _ in range(200):
        rows = [10 if read == "features" else len(index) for index in indices]
        tables = [
            generator.normal(size=(n, len(index))) + 3 * generator.normal(size=len(index))
            for n, index in zip(rows, indices, strict=True)
        ]
        bias = bias_of_logits(names, tables) if read == "head" else bias_of_feature_logits(names, tables, indices)
        wrong += bias.interval(generator, 400).low > 0.5
    assert wrong <= 20


def test_the_planted_bias_is_found_and_its_absence_too():
    numbers = counted_items(TOKENS, ["numbers"])
    generator = np.random.default_rng(0)
    with_bias = head_bias(HeadLogits.open(weights(), HEAD), numbers)
    without = head_bias(HeadLogits.open(weights(10, False), HEAD), numbers)
    shuffled = head_bias(HeadLogits.open(weights(), HEAD), numbers, [generator.permutation(200)])
    interval = with_bias.interval(generator, 500)
    assert interval.low > 0.55
    assert with_bias.redrawn == {"strings": 200}
    assert without.value == pytest.approx(0.5, abs=0.04)
    assert shuffled.value == pytest.approx(0.5, abs=0.04)


def test_the_true_directions_of_residues_have_no_bias():
    bias = feature_bias(HeadLogits.open(weights(), HEAD), counted_items(TOKENS, ["numbers"]), directions(10))
    assert bias.value == pytest.approx(0.5, abs=0.1)
    assert bias.n == 10
    assert bias.redrawn == {"strings": 200, "features": 10}


def test_a_profile_peaks_at_the_successor():
    distances, profile = mean_profile(HeadLogits.open(weights(), HEAD), counted_items(TOKENS, ["numbers"])[0])
    assert distances[int(np.nanargmax(profile))] == 0


def test_a_task_too_short_for_a_bias_says_so():
    few = Items("digits", "plain", ("0", "1"), (1, 2), (0, 1))
    with pytest.raises(ValueError, match="greater-than bias: expected a task with values on both sides"):
        head_bias(HeadLogits.open(weights(), HEAD), [few])


def test_draws_of_the_weights_are_told_apart_from_their_tokens():
    """Heads with a chance order each: sure by their tokens, open over draws. False alarm: 1 in 10,000."""
    generator = np.random.default_rng(0)
    heads = [bias_of_logits(["digits"], [np.tile(generator.normal(size=10), (10, 1))]) for _ in range(20)]
    found = over_draws(heads)
    interval = found.interval(generator, 2_000)
    assert found.n == 20
    assert interval.low < 0.5 < interval.high
    assert found.value == pytest.approx(np.mean([bias.value for bias in heads]))
    assert found.redrawn == {"draws of the weights": 20}
