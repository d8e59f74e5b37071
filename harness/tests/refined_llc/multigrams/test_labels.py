"""Multigram counting on planted heads, whose samples have a known kind, and its rules on hand-made contexts."""

from collections import Counter
from dataclasses import asdict, replace

import pytest
import torch
from circuit_claims.heads.composition import head_loss_changes
from circuit_claims.heads.head_types_planted import BOS, CLOSERS, OPENERS, PAPER_LIKE, STRINGS, planted_types_model
from circuit_claims.judging.measurement import Measurement
from circuit_claims.papers.refined_llc.multigrams import labels as mg
from circuit_claims.papers.refined_llc.multigrams.measures import RULES, counts_of, sample_arrays
from circuit_claims.toy.model import AttentionOnly, AttentionOnlyConfig

HEADS = [f"{layer}:{head}" for layer in range(2) for head in range(8)]


def random_rows(count=24, length=40, seed=0):
    words = torch.randint(0, 24, (count, length), generator=torch.Generator().manual_seed(seed))
    words[:, 0] = BOS
    return words


def planted_rows(kind):
    """Rows whose last token is what a head of that kind predicts."""
    rows = random_rows()
    if kind == "bracket":
        for row in range(len(rows)):
            rows[row, 30], rows[row, -1] = OPENERS[row % 3], CLOSERS[row % 3]
    elif kind == "induction":
        rows = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(r)) for r in range(24)])
        rows = torch.cat([rows, rows], 1)
    else:  # a token looks for the one with the next id, and says the one five further on
        gap = 1 if kind == "n-gram" else 20
        rows[:, -1], rows[:, -2] = 9, 3
        rows[(rows == 4) | (rows == 9)] = 0
        rows[:, -1], rows[:, -2 - gap] = 9, 4
    return rows


@pytest.mark.parametrize(
    ("kind", "head"), [("bracket", "0:3"), ("induction", "1:6"), ("n-gram", "0:2"), ("skip n-gram", "0:2")]
)
def test_samples_of_a_planted_head_get_the_label_of_what_it_does(kind, head):
    roles = {name: role for name, role in PAPER_LIKE.items() if name != "1:7"}  # one induction head: no understudy
    samples = mg.label_samples(planted_types_model(roles), planted_rows(kind), STRINGS, mg.Rules(at_least=0.2))
    own = [sample for sample in samples if sample.head == head]
    last = [sample for sample in own if kind == "induction" or sample.position == planted_rows(kind).shape[1] - 2]
    assert len(last) >= 20
    for rule in ("by_context", "by_source"):
        label, count = Counter(getattr(sample, rule) for sample in last).most_common(1)[0]
        assert (label, count >= 0.9 * len(last)) == (kind, True)


def test_one_pattern_said_in_many_places_is_one_multigram():
    rows = planted_rows("n-gram")
    samples = mg.label_samples(planted_types_model({"0:2": "skip n-gram"}), rows, STRINGS, mg.Rules(at_least=0.5))
    ends = [sample for sample in samples if sample.position == rows.shape[1] - 2]
    assert len(ends) == len(rows)
    assert mg.count_multigrams(ends, rows, HEADS)["0:2"] == 1
    assert sum(mg.count_multigrams(samples, rows, HEADS).values()) >= 1


@pytest.mark.parametrize("changes", [{}, {"at_least": 2.0}, {"most": 3}, {"at_least": 1.0, "most": 10}], ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_stored_samples_count_under_stricter_rules_as_if_labelled_anew(changes, rule):
    model, rows, rules = (
        planted_types_model({"0:2": "skip n-gram", "0:3": "bracket"}),
        planted_rows("n-gram"),
        mg.Rules(),
    )
    found = mg.label_samples(model, rows, STRINGS, rules)
    facts = {"rules": asdict(rules), "heads": HEADS}
    stored = Measurement("samples", None, arrays=sample_arrays(found, rows, HEADS), facts=facts)
    anew = mg.label_samples(model, rows, STRINGS, replace(rules, **changes))
    counts = counts_of(stored, replace(rules, **changes), rule)
    assert counts == mg.count_multigrams(anew, rows, HEADS, rule=rule)
    assert counts["0:2"] > 0


def test_stored_samples_do_not_answer_for_laxer_rules():
    stored = Measurement("samples", None, arrays=sample_arrays([], None, HEADS), facts={"rules": asdict(mg.Rules())})
    with pytest.raises(ValueError, match="as strict as"):
        counts_of(stored, mg.Rules(at_least=0.1), "by_context")


def test_heads_of_a_model_that_knows_nothing_have_no_affected_tokens():
    config = AttentionOnlyConfig(d_model=128, n_heads=8, d_head=16, n_ctx=40, d_vocab=32, init_std=0.02)
    assert mg.label_samples(AttentionOnly(config).initialise(0), random_rows(), STRINGS) == ()


def test_the_source_equals_a_loop_over_positions():
    config = AttentionOnlyConfig(d_model=32, n_heads=4, d_head=8, n_ctx=40, d_vocab=32, init_std=0.4)
    model, rows = AttentionOnly(config).initialise(1), random_rows(4, 12)
    found = mg.sources(model, rows, (1, 2), torch.tensor([0, 3]), torch.tensor([10, 6]))
    with torch.no_grad():
        for index, (row, at) in enumerate(((0, 10), (3, 6))):
            resid = model.blocks[0](model.embed["W_E"][rows[[row], :-1]], model.positions(11))[0]
            block, attn = model.blocks[1], model.blocks[1].attn
            normed = block.ln1(resid)
            keys = (normed + model.positions(11)) @ attn.W_K[2]
            query = (normed[at] + model.positions(11)[at]) @ attn.W_Q[2]
            looks = (keys[: at + 1] @ query / 8**0.5).softmax(0)
            written = looks[:, None] * (normed[: at + 1] @ attn.W_V[2] @ attn.W_O[2])
            gains = (written - written.mean(-1, keepdim=True)) @ model.unembed["W_U"][:, rows[row, at + 1]]
            assert int(found[index]) == int(gains.argmax())


@pytest.mark.parametrize(
    ("text", "open_at_the_end"),
    [("f(a[0], ", "("), ("(a) ", ""), ('say "', '"'), ('say "a" ', ""), ("f(]", "("), ('("(', "("), ("", "")],
)
def test_what_is_still_open(text, open_at_the_end):
    assert mg.still_open(text) == open_at_the_end


def test_rules_on_hand_made_contexts():
    strings = ["the", " cat", "(", ")", " sat"]
    assert mg.context_label([0, 2, 1], 3, strings, local=True) == "bracket"
    assert mg.context_label([0, 2, 3, 1], 3, strings, local=True) == "n-gram"  # closed already
    assert mg.context_label([0, 1], 4, strings, local=False) == "skip n-gram"
    assert mg.context_label([0, 1, 4, 0], 1, strings, local=True) == "induction"
    assert mg.source_label([0, 2, 1], 3, strings, source=1, window=1) == "bracket"
    assert mg.source_label([0, 1, 4, 0], 1, strings, source=1, window=3) == "induction"
    assert mg.source_label([0, 1, 4, 0], 1, strings, source=2, window=3) == "n-gram"
    assert mg.source_label([0, 1, 4, 0], 4, strings, source=0, window=3) == "skip n-gram"


def test_affected_tokens_are_the_strongest_first_and_none_below_the_threshold():
    effects = torch.tensor([[0.1, 0.9], [0.4, -2.0]])
    assert mg.affected(effects, mg.Rules(at_least=0.3)) == [(0, 1), (1, 0)]
    assert mg.affected(effects, mg.Rules(at_least=0.3, most=1)) == [(0, 1)]


def test_agreement_is_one_for_equal_labels_and_kappa_zero_for_independent_ones():
    def made(first, second):
        return mg.Sample("0:0", 0, 0, 1.0, 0, 0, first, second)

    same = [made(label, label) for label in ("n-gram", "bracket")]
    assert mg.label_agreement(same) == (1.0, 1.0)
    crossed = [made(a, b) for a in ("n-gram", "bracket") for b in ("n-gram", "bracket")]
    assert mg.label_agreement(crossed) == (0.5, 0.0)


def test_effects_given_are_those_that_would_be_measured():
    model, rows = planted_types_model({"0:2": "skip n-gram"}), planted_rows("n-gram")
    assert mg.label_samples(model, rows, STRINGS) == mg.label_samples(
        model, rows, STRINGS, effects=head_loss_changes(model, rows)
    )
