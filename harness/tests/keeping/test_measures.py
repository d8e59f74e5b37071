"""Measures on a model whose answer is known: the store behind them, the findings with their controls, the quantities
that are read off a table of scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from circuit_claims.errors import ClaimsError
from circuit_claims.judging.claims import load_papers
from circuit_claims.judging.measurement import Measurement, Rival
from circuit_claims.judging.verdicts import apply_rule, judge
from circuit_claims.keeping import measure as measuring
from circuit_claims.keeping.cells import MemoryStore
from circuit_claims.keeping.keys import closure, closure_of_measure
from circuit_claims.keeping.measure import Context, ProfileInMeasure, measure
from circuit_claims.keeping.store import Store, to_json
from circuit_claims.papers.successor_heads.amounts import profile_of
from circuit_claims.papers.successor_heads.beyond.evidence import numerals_null
from circuit_claims.papers.successor_heads.beyond.held_out import roman_numerals
from circuit_claims.papers.successor_heads.dataset import PAPER_TASKS, spell
from circuit_claims.papers.successor_heads.succession import quantities
from circuit_claims.papers.successor_heads.succession.evidence import path_table
from circuit_claims.papers.successor_heads.succession.measures import (
    Settings,
    across_settings,
    head_scores,
    succession_dataset,
    successor_scores,
)
from circuit_claims.papers.successor_heads.succession.paths import input_paths
from circuit_claims.papers.successor_heads.succession.planted_subject import PlantedSubject, WordTokens
from circuit_claims.texts import Document, Text

CLAIMS = {
    claim.id: claim for paper in load_papers(Path(__file__).resolve().parents[3] / "claims") for claim in paper.claims
}
NEGATIVE = ("shuffled successor map", "untrained weights")


@pytest.fixture(scope="module")
def context(shared_store) -> Context:
    return Context(shared_store, profile=profile_of("quick"))


@pytest.fixture(scope="module")
def planted(context) -> PlantedSubject:
    return PlantedSubject(context)


@dataclass(frozen=True)
class Untrained:
    """The planted model before anything was planted in it."""

    context: Context

    def __getattr__(self, name):
        return getattr(PlantedSubject(self.context, grown=0.0), name)


# A measure that counts how often it was made.


@dataclass(frozen=True)
class Thing:
    """A subject of its own identity, with nothing to it."""

    context: Context
    name: str = "thing"

    def identity(self):
        return {"thing": self.name}


MADE: list[tuple[str, int]] = []


@measure
def counted(subject, *, seed: int = 0, scale: float = 1.0) -> Measurement:
    """Some numbers from a seed."""
    MADE.append((subject.name, seed))
    drawn = np.random.default_rng(seed).normal(size=4)
    return Measurement("numbers", scale * float(drawn[0]), arrays={"drawn": drawn}, seed=seed, facts={"as": "said"})


@pytest.fixture
def fresh(tmp_path):
    MADE.clear()
    return lambda **changes: Context(Store(tmp_path), **changes)


def test_what_is_stored_equals_what_was_measured(fresh):
    first, second = counted(Thing(fresh()), seed=3), counted(Thing(fresh()), seed=3)
    assert MADE == [("thing", 3)]
    assert (first.origin, second.origin) == ("live", "store")
    assert to_json(first) == to_json(second)
    assert np.array_equal(first.arrays["drawn"], second.arrays["drawn"])
    assert second.cost == first.cost
    assert len(first.facts["key"]) == 64


def test_a_measure_is_made_once_a_run_and_again_when_asked_to(fresh):
    context = fresh()
    assert counted(Thing(context)) is counted(Thing(context), seed=0, scale=1.0)
    assert len(MADE) == 1
    again = fresh(remeasure=True)
    assert counted(Thing(again)).origin == "live"
    assert counted(Thing(again)).origin == "live"
    assert len(MADE) == 2, "measured again once, then remembered for the rest of the run"


@measure
def as_much_as_the_run(subject) -> Measurement:
    """Reads how much to measure off the run, where its key does not see it."""
    return Measurement("rows", float(subject.context.profile.shuffles))


def test_a_measure_cannot_read_what_its_key_does_not_hold(fresh):
    """Kept once, its figure would be that of one profile under the name of another."""
    with pytest.raises(ProfileInMeasure, match=r"as_much_as_the_run read context\.profile: expected how much"):
        as_much_as_the_run(Thing(fresh()))
    context = fresh()
    assert context.profile.shuffles > 0, "outside a measure it is read as ever"
    counted(Thing(context))
    assert context.profile.shuffles > 0


def key(context, *, name="thing", **parameters) -> str:
    return counted(Thing(context, name), **parameters).facts["key"]


def test_the_key_tells_parameters_and_subjects_apart(fresh):
    context = fresh()
    keys = [key(context), key(context, seed=1), key(context, scale=2.0), key(context, name="other")]
    assert len(set(keys)) == len(MADE) == 4
    assert key(context, seed=0) == keys[0]


def test_the_key_changes_with_what_measures(fresh, monkeypatch):
    context = fresh()
    before = key(context)
    monkeypatch.setattr(measuring, "closure_of_measure", lambda function, subject: closure(key))
    assert key(context) != before
    assert len(MADE) == 2


def test_the_key_changes_with_the_kind_of_device_and_not_its_number(fresh):
    keys = [key(fresh(device=device)) for device in ("cpu", "cuda:0", "cuda:1")]
    assert keys[0] != keys[1] == keys[2]


# A measure that is given a text, or what no key can hold.


@measure
def lengths(subject, *, text, scale: float = 1.0) -> Measurement:
    """How long a text is."""
    MADE.append((subject.name, len(text.joined)))
    return Measurement("characters", scale * len(text.joined))


def text_of(*documents: str, name: str = "logs") -> Text:
    return Text(name, "a text", tuple(Document(str(at), text) for at, text in enumerate(documents)), {})


def test_a_text_that_is_a_parameter_counts_by_its_digest(fresh):
    context = fresh()
    first = lengths(Thing(context), text=text_of("ab", "c"))
    assert lengths(Thing(fresh()), text=text_of("ab", "c", name="the same elsewhere")).origin == "store"
    other = lengths(Thing(context), text=text_of("a", "bc"))
    assert (first.value, len(MADE)) == (5.0, 2)
    assert first.facts["key"] != other.facts["key"]


def test_the_code_of_a_text_that_is_a_parameter_is_in_the_key():
    function, thing = lengths.__wrapped__, Thing(Context(MemoryStore()))
    with_text, without = closure_of_measure(function, thing, text_of("a")), closure_of_measure(function, thing)
    assert set(with_text.definitions) - set(without.definitions) >= {"circuit_claims.texts.sources:Text"}


@pytest.mark.parametrize("value", [Path("here"), np.zeros(2), float("nan"), [text_of("in a list")]])
def test_a_parameter_that_no_key_can_hold_is_named_with_the_way_out(fresh, value):
    with pytest.raises(ClaimsError) as error:
        counted(Thing(fresh()), scale=value)
    told = ("counted: its parameter `scale`", "a JSON value", f"found     {type(value).__name__}", "`identity()`")
    assert all(words in str(error.value) for words in told), error.value
    assert MADE == []


# Findings on the planted model, its controls, and the same model without the plant.


@pytest.mark.parametrize("claim_id", ["SH-05", "SH-06", "SH-07"])
def test_the_controls_of_the_score_come_out_as_they_must(planted, claim_id):
    scores = successor_scores(planted)
    finding = scores.lead_over_runner_up() if claim_id == "SH-05" else scores.best_head()
    verdict = judge(CLAIMS[claim_id], finding.measurement, finding.controls_for(CLAIMS[claim_id]))
    assert all(item.as_it_must_be for item in verdict.controls)
    assert verdict.outcome == ("contradicted" if claim_id == "SH-06" else "reproduced")


def test_the_planted_head_leads_with_a_score_of_one(planted):
    scores = successor_scores(planted)
    best, leader, lead = scores.best_head(), scores.leader("L1H2"), scores.lead_over_runner_up()
    assert (best.measurement.value, best.measurement.facts["head"]) == (1.0, "L1H2")
    assert best.measurement.p_value < 0.01
    assert leader.measurement.value == "L1H2"
    assert leader.measurement.support == {"L1H2": 1.0}
    assert lead.measurement.value > 5
    for name in NEGATIVE:
        assert leader.controls[name]().support.get("L1H2", 0.0) < 0.95
        assert best.controls[name]().value < 0.3
        assert best.controls[name]().p_value > 0.01
        assert lead.controls[name]().interval.low < 2


def test_without_the_plant_no_head_stands_out(context):
    scores = successor_scores(Untrained(context))
    assert scores.best_head().measurement.value < 0.3
    assert scores.best_head().measurement.p_value > 0.01
    assert apply_rule(CLAIMS["SH-07"], scores.best_head().measurement).outcome == "contradicted"
    assert apply_rule(CLAIMS["SH-05"], scores.lead_over_runner_up().measurement).outcome == "contradicted"


def test_every_day_is_counted_and_a_planted_pair_is_seen(planted):
    scores = successor_scores(planted)
    days, others = scores.heads_with_every_day(), scores.days_of_the_runner_up()
    assert days.measurement.value == "L1H2"
    assert [days.controls[name]().value for name in NEGATIVE] == ["none", "none"]
    assert others.measurement.value <= 3
    pair = others.controls["planted pair of successor heads"]()
    assert (pair.value, pair.interval.low) == (7.0, 7.0)
    claim = CLAIMS["SH-27b"]
    assert judge(claim, others.measurement, others.controls_for(claim)).outcome == "reproduced"


def test_roman_numerals_are_read_off_the_leading_head(planted):
    finding = roman_numerals(planted).score()
    verdict = judge(CLAIMS["SH-24"], finding.measurement, finding.controls_for(CLAIMS["SH-24"]))
    assert (finding.measurement.value, finding.measurement.facts["head"]) == (1.0, "L1H2")
    assert verdict.outcome == "reproduced"
    assert {item.control.name for item in verdict.controls} == {"untrained weights", "planted successor head"}
    assert numerals_null(roman_numerals(planted)).observed == 1.0


def test_the_path_of_the_plant_scores_higher_and_untrained_weights_have_no_order(planted):
    finding = input_paths(planted).order_of("mlp0", "embed")
    assert finding.measurement.support["mlp0 > embed"] == 1.0
    verdict = judge(CLAIMS["SH-09"], finding.measurement, finding.controls_for(CLAIMS["SH-09"]))
    assert verdict.outcome == "reproduced"
    for control in verdict.controls:
        assert control.control.measurement.support["mlp0 > embed"] < 0.95
    rows = path_table(input_paths(planted), "mlp0", "embed").rows
    assert rows[0] == ("mlp0", "1.000", "1.000")


def test_the_settings_are_all_different_and_the_first_is_the_paper_s(planted):
    settings = list(across_settings(planted))
    assert settings[0][1] == successor_scores(planted)
    assert len({name for name, _ in settings}) == len(settings) >= 10
    assert len({(str(one.settings), one.metric) for _, one in settings}) == len(settings)
    keys = {one.table.facts["key"] for _, one in settings}
    assert len(keys) == len(settings) - 1, "the mean over tasks is read off the same table"


def test_a_table_from_the_store_is_the_one_that_was_measured(planted, context):
    parameters = {"settings": Settings().parameters(), "draws": 500, "shuffles": 200}
    stored = head_scores(replace(planted, context=replace(context, memo={})), **parameters)
    live = head_scores(replace(planted, context=replace(context, memo={}, remeasure=True)), **parameters)
    assert (stored.origin, live.origin) == ("store", "live")
    assert to_json(stored) == to_json(live)
    assert all(np.array_equal(stored.arrays[name], live.arrays[name]) for name in live.arrays)


def test_the_dataset_is_counted_against_tokenizers_that_know_less(context):
    texts = dict.fromkeys(spell(item, form) for task in PAPER_TASKS for form in task.forms for item in task.items)
    whole = replace(Worded(context), tokens=WordTokens({text: index for index, text in enumerate(texts)}))
    found = succession_dataset(whole)
    entries, share = found.entries(), found.share_of_numbers()
    assert entries.measurement.value == len(found.dataset.entries) > 800
    assert entries.controls["byte-level tokenizer"]().value < 100
    numbers = sum(entry.task == "numbers" for entry in found.dataset.entries)
    assert share.measurement.value == pytest.approx(numbers / len(found.dataset.entries))
    assert share.controls["equal weight for each task"]().value == pytest.approx(1 / 8)


@dataclass(frozen=True)
class Worded:
    """A subject that is only a tokenizer."""

    context: Context
    tokens: WordTokens | None = None


# Quantities, against values worked out by hand.

TABLE = Measurement(
    "successor scores of all heads", "L0H1", n=50, seed=4,
    arrays={
        "heads": np.array([[0, 0], [0, 1], [1, 0]]),
        "score": np.array([0.2, 0.8, 0.4]), "macro_score": np.array([0.9, 0.95, 0.1]),
        "score_support": np.array([0.0, 0.75, 0.25]), "macro_score_support": np.array([1.0, 0.0, 0.0]),
        "score_rival": np.array([1, 2, 1]), "macro_score_rival": np.array([1, 0, 0]),
        "score_ahead": np.array([1.0, 0.25, 0.75]), "macro_score_ahead": np.array([0.0, 1.0, 1.0]),
        "day_hits": np.array([7, 3, 7]),
    },
    facts={
        "draws": 1000, "days": 7,
        "score": {"half_width": 0.3, "p_value": 0.02, "lead": [2.0, 1.1, 3.5]},
        "macro_score": {"half_width": 0.01, "p_value": 0.5, "lead": [1.1, 0.9, 1.2]},
    },
)  # fmt: skip


def test_quantities_are_read_off_the_table():
    leader = quantities.leader(TABLE)
    assert (leader.value, dict(leader.support), leader.seed, leader.n) == ("L0H1", {"L0H1": 0.75, "L1H0": 0.25}, 4, 50)
    assert leader.rivals["L1H0"] == Rival("L0H1", 0.75)
    assert dict(quantities.leader(TABLE, "macro_score").support) == {"L0H0": 1.0}
    best = quantities.best_head(TABLE)
    assert (best.value, best.p_value, best.facts["head"], best.facts["mean over tasks"]) == (0.8, 0.02, "L0H1", 0.95)
    assert (best.interval.low, best.interval.high) == (0.5, 1.0), "0.8 + 0.3 is cut at 1, the highest score there is"
    assert "simultaneous" in best.interval.method
    lead = quantities.lead_over_runner_up(TABLE)
    assert (lead.value, lead.interval.low, lead.interval.high) == (2.0, 1.1, 3.5)
    assert quantities.lead_over_runner_up(TABLE, "macro_score").value == 1.1
    assert quantities.heads_with_every_day(TABLE).value == "L0H0,L1H0"
    assert quantities.days_of_the_runner_up(TABLE).value == 7.0
    assert list(quantities.ranking(TABLE, "score")) == [1, 2, 0]


def test_equal_scores_rank_in_model_order_and_no_full_week_is_none():
    table = replace(TABLE, arrays={**TABLE.arrays, "score": np.full(3, 0.5), "day_hits": np.array([0, 3, 2])})
    assert list(quantities.ranking(table, "score")) == [0, 1, 2]
    assert quantities.heads_with_every_day(table).value == "none"
    assert quantities.days_of_the_runner_up(table).value == 2.0
