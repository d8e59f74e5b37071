"""Head types on planted heads, on untrained weights, and against plain loops over positions."""

import numpy as np
import pytest
import torch
from circuit_claims.heads import head_types as ht
from circuit_claims.heads.head_types_planted import (
    BOS,
    CLOSERS,
    CONFIG,
    OPENERS,
    PAPER_LIKE,
    STRINGS,
    planted_types_model,
)
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig
from hypothesis import given, settings
from hypothesis import strategies as st

BRACKETS = tuple(zip(OPENERS, CLOSERS, strict=True))
PROBES = ht.ProbeSequences(BOS, BRACKETS, sequences=60)


def scores_of(model, seed=0):
    return ht.head_type_scores(model, PROBES, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("head", "role"), [item for item in PAPER_LIKE.items() if item[1] != "skip n-gram"])
def test_each_planted_head_gets_its_type(head, role):
    types = ht.classify(scores_of(planted_types_model(PAPER_LIKE)))
    assert types[head] == role
    assert [name for name, kind in types.items() if kind == role] == [h for h, r in PAPER_LIKE.items() if r == role]


def test_the_rest_are_multigram_heads():
    types = ht.classify(scores_of(planted_types_model(PAPER_LIKE)))
    named = {head for head, role in PAPER_LIKE.items() if role != "skip n-gram"}
    assert {head for head, kind in types.items() if kind == "multigram"} == set(types) - named


def test_an_untrained_model_has_no_head_of_any_special_type():
    types = ht.classify(scores_of(AttentionOnly(CONFIG).initialise(1)))
    assert set(types.values()) == {"multigram"}


def test_without_its_previous_token_heads_an_induction_head_is_none():
    alone = {head: role for head, role in PAPER_LIKE.items() if role == "induction"}
    assert "induction" not in ht.classify(scores_of(planted_types_model(alone))).values()


def test_a_row_of_attention_equals_a_loop_over_positions():
    config = AttentionOnlyConfig(d_model=16, n_heads=2, d_head=8, n_ctx=9, d_vocab=11, init_std=0.5)
    model = AttentionOnly(config).initialise(3)
    tokens = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(1))
    queries = torch.tensor([8, 5])
    found = ht.attention_rows(model, tokens, queries)
    with torch.no_grad():
        for row, query in enumerate(queries.tolist()):
            resid = model.embed["W_E"][tokens[row]]
            for layer, block in enumerate(model.blocks):
                located, attn = block.ln1(resid) + model.pos_embed["W_pos"], block.attn
                for head in range(2):
                    scores = [
                        (located[query] @ attn.W_Q[head]) @ (located[key] @ attn.W_K[head]) / 8**0.5
                        for key in range(query + 1)
                    ]
                    slow = torch.stack(scores).softmax(0)
                    torch.testing.assert_close(found[row, layer, head, : query + 1], slow, atol=1e-6, rtol=1e-5)
                    assert not found[row, layer, head, query + 1 :].any()
                resid = block(resid[None], model.pos_embed["W_pos"])[0]


def test_closing_ranks_equal_a_loop_over_the_vocabulary():
    model = AttentionOnly(CONFIG).initialise(5)
    found = ht.closing_ranks(model, BRACKETS[:1])[0]
    attn, block = model.blocks[1].attn, model.blocks[1]
    with torch.no_grad():
        value = block.ln1(model.embed["W_E"][OPENERS[0]]) @ attn.W_V[2]
        written = value @ attn.W_O[2]
        logits = (written - written.mean()) @ model.unembed["W_U"]
    below = sum(float(logit) < float(logits[CLOSERS[0]]) for logit in logits)
    assert found[1, 2] == pytest.approx(below / len(logits))


def test_brackets_are_found_in_a_vocabulary_and_only_where_both_are_tokens():
    vocabulary = {text: index for index, text in enumerate(STRINGS)}
    assert ht.bracket_tokens(vocabulary) == ((24, 27), (25, 28), (26, 29))
    assert ht.bracket_tokens({"(": 0, " (": 1}) == ()


def test_a_model_whose_tokenizer_has_no_brackets_has_no_bracket_heads():
    scores = ht.head_type_scores(
        planted_types_model(PAPER_LIKE), ht.ProbeSequences(BOS, sequences=30), torch.Generator().manual_seed(0)
    )
    assert "bracket" not in ht.classify(scores).values()


def test_support_of_clear_heads_is_one():
    support = ht.label_support(scores_of(planted_types_model(PAPER_LIKE)), "induction", 50, np.random.default_rng(0))
    assert support == {"1:6, 1:7": 1.0}


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0, 1), threshold=st.floats(0.01, 0.99))
def test_a_higher_threshold_never_adds_a_previous_token_head(scale, threshold):
    rng = np.random.default_rng(0)
    zero = np.zeros((4, 2, 8))
    scores = ht.HeadTypeScores(rng.random((4, 2, 8)) * scale, zero, zero, zero, np.zeros((1, 2, 8)))
    low, high = (ht.classify(scores, ht.Thresholds(previous=t)) for t in (threshold, min(threshold * 1.1, 1.0)))
    more = {head for head, kind in high.items() if kind == "previous-token"}
    assert more <= {head for head, kind in low.items() if kind == "previous-token"}
    assert all(head.startswith("0:") for head in more)
