"""Recipes fixed beforehand: drafts train pilots only, final ones judged seeds; and the rule for what ships."""

from __future__ import annotations

from dataclasses import replace

import pytest
from circuit_claims.heads.landmarks import (
    Landmark,
    Scored,
    curve_lines,
    landmark_steps,
    read_scores,
    scored_run,
    scores_text,
)
from circuit_claims.toy.checkpoints import RunError
from circuit_claims.toy.recipes import FIXTURES, FixedRecipe, fixed_recipe, load_recipes
from circuit_claims.toy.training import Recipe
from hypothesis import given
from hypothesis import strategies as st

RECIPE = load_recipes()["small-batch"]


def with_status(status: str, **change) -> FixedRecipe:
    return FixedRecipe.model_validate({**RECIPE.model_dump(), "status": status, **change})


def test_every_recipe_can_be_trained_and_names_a_mixture_that_is_there():
    for recipe in load_recipes().values():
        for layers, seeds in recipe.pilot.items():
            assert recipe.for_run(layers, seeds[0]).n_layers == layers
        assert recipe.mixture_path.is_file()
        assert recipe.tokenizer_path.is_file()
        assert 8 <= len(recipe.ships) <= 11


def test_a_draft_trains_pilot_seeds_only():
    draft = with_status("draft")
    assert draft.for_run(2, 901).seed == 901
    with pytest.raises(RunError, match="draft") as caught:
        draft.for_run(2, 11)
    assert "Type: --recipe small-batch --layers 2 --seed 901" in str(caught.value)


def test_a_final_recipe_trains_the_seeds_it_names():
    final = with_status("final")
    assert final.for_run(2, 12) == replace(final.for_run(2, 901), seed=12)
    assert final.for_run(1, 11) == replace(final.for_run(2, 11), n_layers=1)
    with pytest.raises(RunError, match="expected  one of 901, 902, 11, 12, 13"):
        final.for_run(2, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reasons": {"lr": "because"}}, "one for each setting"),
        ({"pilot": {2: (11,)}}, "never judged, found in both"),
        ({"ships": ()}, "at least 1 item"),
    ],
)
def test_a_recipe_that_is_not_whole_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        with_status("draft", **change)


def test_an_unknown_recipe_and_settings_beside_it_are_refused(tmp_path):
    with pytest.raises(RunError, match="expected  one of small-batch"):
        fixed_recipe("large-batch", Recipe())
    with pytest.raises(RunError, match="Type: --recipe small-batch --layers 2 --seed 901"):
        fixed_recipe("small-batch", Recipe(batch=4, seed=901))
    with pytest.raises(RunError, match="other settings too"):
        fixed_recipe("small-batch", Recipe(seed=901), tmp_path / "mixture.toml")
    assert fixed_recipe("small-batch", Recipe(seed=901)) is RECIPE
    with pytest.raises(RunError, match="tables"):
        load_recipes(tmp_path / "none.toml")
    twice = (FIXTURES / "recipes.toml").read_text(encoding="utf-8")
    (tmp_path / "twice.toml").write_text(twice + twice, encoding="utf-8")
    with pytest.raises(RunError, match="two recipes have one name"):
        load_recipes(tmp_path / "twice.toml")


def curve(losses, previous, prefix):
    pairs = zip(losses, previous, prefix, strict=True)
    return [Scored(100 * at, loss, (0.01, one), (0.0, two)) for at, (loss, one, two) in enumerate(pairs)]


GROWN = curve(
    [8.5, 6.0, 4.5, 4.2, 3.9, 3.7, 3.6, 3.5, 3.5], [0.0, 0.0, 0.3, 0.0, 0.15, 0.25, 0.3, 0.3, 0.3],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.06, 0.06, 0.06],
)  # fmt: skip


def test_landmarks_are_the_first_checkpoints_that_stay_beyond():
    rule = (
        Landmark(name="begun", quantity="fall", at=0.5),
        Landmark(name="previous", quantity="previous", at=0.1),
        Landmark(name="induction", quantity="prefix", at=0.05),
        Landmark(name="second", quantity="prefix", at=0.05, rank=2),
        Landmark(name="third", quantity="prefix", at=0.05, rank=3),
        Landmark(name="halfway", quantity="after"),
        Landmark(name="first", quantity="first"),
        Landmark(name="end", quantity="last"),
    )
    # fall: 2.5 of 5 at step 100. previous: the 0.3 at 200 does not stay. second, third: no other head has a score, or
    # there is none. halfway: between 600 and 800.
    assert landmark_steps(GROWN, rule) == {
        "begun": 100, "previous": 400, "induction": 600, "halfway": 700, "first": 0, "end": 800,
    }  # fmt: skip
    with pytest.raises(RunError, match="found none"):
        landmark_steps([], rule)


def test_a_curve_is_told_a_line_a_checkpoint_with_its_landmarks():
    lines = curve_lines(GROWN, 4096, {"begun": 100, "half of it": 100})
    assert len(lines) == len(GROWN)
    assert lines[1] == (
        "step 100: 0.4 million tokens, held-out loss 6.000, previous-token 0.010 0.000, prefix 0.000 0.000; "
        "begun, half of it"
    )


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=30), st.floats(0.0, 1.0))
def test_a_higher_landmark_is_never_reached_before_a_lower_one(scores, at):
    grown = curve([1.0] * len(scores), scores, [0.0] * len(scores))
    rule = [Landmark(name=name, quantity="previous", at=level) for name, level in (("low", at / 2), ("high", at))]
    found = landmark_steps(grown, rule)
    assert found.get("low", -1) <= found.get("high", 10**9)
    assert ("high" in found) <= ("low" in found)


def test_scores_are_kept_beside_the_run_and_measured_once(tmp_path, monkeypatch):
    from circuit_claims.heads import landmarks
    from circuit_claims.toy import fast
    from circuit_claims.toy.checkpoints import RunFolder

    from tests.toy.test_training import SMALL, train

    monkeypatch.setattr(fast, "_compiled", lambda kernel: kernel)
    recipe = replace(SMALL, n_ctx=16, steps=2)
    train(tmp_path, recipe)
    monkeypatch.setattr(landmarks, "_scores", lambda run, step: ((0.25, step / 4), (0.5,)))
    found = scored_run(RunFolder.open(tmp_path))
    assert [one.step for one in found] == [0, 1, 2]
    assert found[2].previous == (0.25, 0.5)
    assert found[0].loss > 8
    monkeypatch.setattr(landmarks, "_scores", lambda run, step: pytest.fail("measured again"))
    assert scored_run(RunFolder.open(tmp_path)) == found
    kept = read_scores((tmp_path / "heads.csv").read_text())
    assert read_scores(scores_text(kept)) == kept
