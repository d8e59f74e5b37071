"""Means and donors: of other contexts, by position or not, the same whatever else is measured."""

from __future__ import annotations

import pytest
import torch
from circuit_claims.heads.effects.reference import reference_of
from circuit_claims.heads.effects.settings import Ablations, HeadSettings


@pytest.fixture
def bench(bench_of):
    return bench_of("qwen2")


def test_the_mean_is_the_mean(bench):
    stacked = torch.stack([run.z[1] for run in bench.runs[1:]])
    for means, expected in (("over positions", stacked.mean((0, 1))[None]), ("by position", stacked.mean(0))):
        found = bench.reference(means=means).replacement(bench.runs[0], 1, "mean")
        torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("means", ["over positions", "by position"])
def test_a_context_of_the_reference_is_left_out_of_its_own_mean(bench, means):
    everyone = reference_of(bench.runs, Ablations(means=means))
    others = bench.reference(means=means)
    in_sample = reference_of(bench.runs, Ablations(means=means, in_sample=True))
    own = bench.runs[0]
    found, expected = (reference.replacement(own, 0, "mean") for reference in (everyone, others))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert (in_sample.replacement(own, 0, "mean") - expected).abs().max() > 1e-3


def test_donors_are_other_contexts_at_the_same_position(bench):
    reference = reference_of(bench.runs, Ablations(repeats=5))
    found = reference.replacement(bench.runs[2], 1, "resample")
    others = [run.z[1] for run in bench.runs if run is not bench.runs[2]]
    assert len(found) == 5
    assert all(any(torch.equal(output, other) for other in others) for output in found)
    assert len({output.sum().item() for output in found}) == 5


def holds(z, item):
    """Whether some position of z is just this item."""
    return bool((z == item).all((1, 2)).any())


def test_donors_at_any_position_come_from_one_context_a_repeat(bench):
    reference = reference_of(bench.runs, Ablations(repeats=3, donors="any position"))
    found = reference.replacement(bench.runs[2], 1, "resample")
    for output in found:
        homes = [
            row for row, run in enumerate(bench.runs) if all((run.z[1] == item).all((1, 2)).any() for item in output)
        ]
        assert len(homes) == 1
        assert homes != [2]
        assert not torch.equal(output, bench.runs[homes[0]].z[1])


def test_draws_hang_on_the_seed_and_the_context_alone(bench):
    first, again, other = (bench.reference(seed=seed) for seed in (0, 0, 1))
    draws = [[reference.replacement(run, 0, "resample") for run in bench.runs] for reference in (first, again, other)]
    assert all(torch.equal(*pair) for pair in zip(draws[0], draws[1], strict=True))
    assert not all(torch.equal(*pair) for pair in zip(draws[0], draws[2], strict=True))


def test_only_so_many_donors_are_kept(bench):
    reference = bench.reference(most_donors=2)
    assert [len(bank) for bank in reference.bank] == [2, 2]
    with pytest.raises(ValueError, match="expected at least 3 other contexts"):
        bench.reference(most_donors=2, repeats=3).replacement(bench.runs[0], 0, "resample")


def test_what_cannot_be_replaced_is_refused(bench):
    alone = reference_of(bench.runs[:1], Ablations())
    with pytest.raises(ValueError, match="besides the one that is ablated"):
        alone.replacement(bench.runs[0], 0, "mean")
    with pytest.raises(ValueError, match="at least one context"):
        reference_of([], Ablations())
    shorter = reference_of(bench.model.run(bench.contexts[:, :10]), Ablations())
    with pytest.raises(ValueError, match="at least 20 tokens, found 10"):
        shorter.replacement(bench.runs[0], 0, "mean")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"means": "median"}, "'over positions' or 'by position'"),
        ({"donors": "friends"}, "found 'friends'"),
        ({"final_norm": "molten"}, "found 'molten'"),
        ({"repeats": 0}, "repeats of ablations: expected 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Ablations(**wrong)


def test_questions_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="expected some of direct, indirect, total"):
        HeadSettings(effects=("sideways",))
    with pytest.raises(ValueError, match="expected 0 or more, found -1, 10"):
        HeadSettings(attended=-1)
