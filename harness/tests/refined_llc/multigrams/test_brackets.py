"""Nested-bracket probes on a model built to close the innermost bracket's kind, and on one that knows nothing."""

import pytest
import torch
from circuit_claims.heads.head_types_planted import BOS, STRINGS, planted_types_model
from circuit_claims.papers.refined_llc.multigrams.brackets import (
    closing_pairs,
    head_margin_loss,
    margins,
    nested_probes,
    path_margin_loss,
    word_tokens,
)
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

PAIRS = ((24, 27), (25, 28), (26, 29))


def probes(count=6):
    return nested_probes(PAIRS, range(24), BOS, count, torch.Generator().manual_seed(0))


def test_rows_nest_one_pair_in_another_and_ask_for_the_one_that_is_open():
    made = probes()
    assert made.rows.shape == (36, 12)
    for row, right, wrong, outer in zip(made.rows.tolist(), made.right, made.wrong, made.outer, strict=True):
        closes, stack = dict(PAIRS), []
        for token in row:
            if token in closes:
                stack.append(closes[token])
            elif stack and token == stack[-1]:
                stack.pop()
        assert stack[-1] == right != wrong
        assert len(stack) == (1 if outer else 2)


def test_pairs_and_words_are_read_off_the_vocabulary():
    assert closing_pairs({"(": 0, ")": 1, " (": 2, "[": 3, '"': 4}) == ((2, 1), (4, 4))
    assert word_tokens(STRINGS) == ()
    assert word_tokens([" word", " Word", " wo", "word"]) == (0,)


def test_without_two_kinds_of_brackets_there_is_nothing_to_nest():
    with pytest.raises(ValueError, match="found 1 kinds"):
        nested_probes(PAIRS[:1], range(24), BOS, 2, torch.Generator())


def test_margins_equal_the_models_own_logits():
    config = AttentionOnlyConfig(d_model=16, n_heads=2, d_head=8, n_ctx=12, d_vocab=32, init_std=0.5)
    model, made = AttentionOnly(config).initialise(1), probes(2)
    with torch.no_grad():
        logits = model(made.rows)[:, -1]
    each = torch.arange(len(logits))
    torch.testing.assert_close(margins(model, made), logits[each, made.right] - logits[each, made.wrong])


def test_a_planted_bracket_head_carries_the_margin_and_no_other_head_or_path_does():
    model, made = planted_types_model({"0:3": "bracket"}), probes()
    inner = ~made.outer
    loss = head_margin_loss(model, made).abs().mean(2)
    assert float(loss[0, 3]) > 5 * float(loss.flatten().sort().values[-2])
    assert float(path_margin_loss(model, made).abs().mean()) < 0.05
    # A head that attends to both open brackets alike cannot tell which one is the inner one.
    assert float(margins(model, made)[inner].mean().abs()) < 0.1
