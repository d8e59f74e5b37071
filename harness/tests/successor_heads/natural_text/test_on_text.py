"""A planted head that adds one, reading made-up lists: its cases are found, other heads' are not taken for its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_claims.judging.calibration import MOST_FALSE_ALARMS
from circuit_claims.judging.claims import load_paper
from circuit_claims.judging.findings import Finding
from circuit_claims.judging.verdicts import apply_rule
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.store import Store
from circuit_claims.papers.successor_heads.amounts import profile_of
from circuit_claims.papers.successor_heads.natural_text import quantities
from circuit_claims.papers.successor_heads.natural_text.behaviours import BEHAVIOURS, VARIANTS
from circuit_claims.papers.successor_heads.natural_text.evidence import (
    behaviour_bars,
    ceilings,
    heads_by_wins,
    heads_on_listings,
    loss_bars,
    paper_shares,
    passages,
    rules_agree,
    shares_by_kind,
    spread_bars,
)
from circuit_claims.papers.successor_heads.natural_text.known import Redealt
from circuit_claims.papers.successor_heads.natural_text.natural import (
    EFFECT_ROWS,
    Amounts,
    Reading,
    head_cases,
    matched_rows,
)
from circuit_claims.papers.successor_heads.natural_text.on_text import HeadOnText, leading_head
from circuit_claims.papers.successor_heads.natural_text.planted_reader import HEAD, PlantedReader, planted_text
from circuit_claims.running.subjects import Subject

FOLDER = Path(__file__).resolve().parents[4] / "claims" / "successor_heads"
CLAIMS = {claim.id: claim for claim in load_paper(FOLDER / "paper.toml").claims}
SHARES = shares_by_kind(paper_shares(FOLDER / "test_natural_text.py"))
WON = SHARES["winning"]
AMOUNTS = Amounts(contexts=10, loss_contexts=6, others=3, length=48)


@pytest.fixture(scope="module")
def context(shared_store) -> Context:
    return Context(shared_store, profile=profile_of("quick", listings=64))


@pytest.fixture(scope="module")
def reading(context) -> Reading:
    return Reading(PlantedReader(context), planted_text())


@pytest.fixture(scope="module")
def found(reading) -> HeadOnText:
    return HeadOnText(reading, HEAD, AMOUNTS)


@pytest.fixture(scope="module")
def other(reading) -> HeadOnText:
    return HeadOnText(reading, (1, 0), AMOUNTS)


def outcome(claim: str, measurement) -> str:
    return apply_rule(CLAIMS[claim], measurement).outcome


def test_the_planted_head_wins_on_succession_and_another_head_does_not(found, other):
    assert found.winning_share("successorship", claimed=WON).measurement.value > 0.6
    assert outcome("SH-21b", found.winning_leads(WON).measurement) == "reproduced"
    assert other.winning_share("successorship", claimed=WON).measurement.value < 0.2
    assert outcome("SH-21b", other.winning_leads(WON).measurement) != "reproduced"


def test_the_controls_of_the_planted_head_fail_and_pass_as_they_must(found):
    controls = found.winning_leads(WON).controls
    assert outcome("SH-21b", controls["matched random heads"]()) != "reproduced"
    assert outcome("SH-21b", controls["planted reader"]()) == "reproduced"
    share = found.winning_share("successorship", claimed=WON)
    assert share.controls["random earlier tokens"]().value < share.measurement.value / 2
    assert outcome("SH-21d", found.spread().controls["a head of one behaviour"]()) != "reproduced"


def test_its_loss_reducing_cases_are_succession_in_every_effect_that_holds_its_own_write(found):
    leads = found.reducing_leads("direct", "total", claimed=SHARES)
    assert outcome("SH-22e", leads.measurement) == "reproduced"
    assert outcome("SH-22f", found.reducing_leads("indirect", claimed=SHARES).measurement) == "contradicted"
    direct, total = (found.reducing_share(effect, "mean", WON) for effect in ("direct", "total"))
    assert set(direct.controls) == {"random earlier tokens", "a matched random head"}
    assert set(total.controls) == {"random earlier tokens"}
    assert outcome("SH-22b", direct.controls["a matched random head"]()) != "reproduced"


def findings(found: HeadOnText) -> dict[str, Finding]:
    return {
        "SH-21": found.winning_share("successorship", claimed=WON),
        "SH-21b": found.winning_leads(WON),
        "SH-21c": found.winning_share(claimed=WON),
        "SH-21d": found.spread(),
        "SH-22": found.reducing_share("direct", "resample", SHARES["direct, resample"]),
        "SH-22e": found.reducing_leads("direct", "total", claimed=SHARES),
        "SH-22f": found.reducing_leads("indirect", claimed=SHARES),
        "SH-23": found.listings().won(),
        "SH-23b": found.saves_on_succession(),
    }


@pytest.mark.parametrize(
    "claim", ["SH-21", "SH-21b", "SH-21c", "SH-21d", "SH-22", "SH-22e", "SH-22f", "SH-23", "SH-23b"]
)
def test_no_rule_calls_false_data_true_in_more_than_one_case_of_ten(found, claim):
    finding = findings(found)[claim]
    calibration = finding.calibration_for(CLAIMS[claim])
    assert {alarm.draws for alarm in calibration.false_alarms} == {200}
    assert calibration.worst is not None
    assert calibration.worst.rate <= MOST_FALSE_ALARMS
    assert set(CLAIMS[claim].over) <= set(finding.measurement.redrawn)


@pytest.mark.parametrize("claim", ["SH-21b", "SH-22e", "SH-23b"])
def test_where_the_text_has_enough_the_oracle_is_reproduced(found, claim):
    """The made-up lists are succession throughout: ten documents of them decide an order."""
    assert not findings(found)[claim].calibration_for(CLAIMS[claim], draws=1).blind


def test_the_rules_stand_beside_each_other_the_claims_own_first(found):
    settings = found.by_other_rules(lambda one: one.winning_share("successorship", claimed=WON))
    values = {name: finding.measurement.value for name, finding in settings.items()}
    assert list(values) == [
        "by the token it promotes most, top 5 attended",
        "by the correct token, top 5 attended",
        "by the token it promotes most, top 1 attended",
        "by the correct token, top 1 attended",
    ]
    labels = found.cases.arrays["label_correct"][1][found.cases.arrays["won"][0]]
    assert values["by the correct token, top 1 attended"] == pytest.approx(np.mean(labels == 0))


def test_promoted_tokens_in_their_own_places_give_the_labels_of_the_table(found):
    for rows in ((None,), (0, 1, 4, 5)):
        redealt = Redealt.of(found.cases, found.reading.strings, rows)
        again, dealt = redealt.counted(redealt.targets), redealt.draw(np.random.default_rng(0))
        for row, same, other in zip(rows, again, dealt, strict=True):
            assert (same.counts == quantities.counted(found.cases, row).counts).all()
            assert other.n == same.n
            assert other.shares[0] < same.shares[0] / 2


def test_it_saves_loss_on_succession_and_a_head_that_saves_everywhere_alike_is_not_called_so(found):
    finding = found.saves_on_succession()
    assert outcome("SH-23b", finding.measurement) == "reproduced"
    assert outcome("SH-23b", finding.controls["a head that saves all cases alike"]()) == "inconclusive"


def test_it_wins_on_lists_whose_next_item_it_adds(found):
    controls = found.listings().won().controls
    planted = controls["planted reader"]()
    assert (planted.value, planted.n) == (1.0, 64)
    assert outcome("SH-23", planted) == "reproduced"
    assert outcome("SH-23", controls["matched random heads"]()) != "reproduced"


def test_a_smaller_reading_sees_the_same_cases(reading, found):
    """The first contexts of a larger reading are the smaller one's; their direct effects differ by the means alone."""
    small = head_cases(reading, head=list(HEAD), amounts=replace(AMOUNTS, contexts=6).parameters())
    assert (small.arrays["tokens"] == found.cases.arrays["tokens"][:6]).all()
    assert (small.arrays["attended"][0] == found.cases.arrays["attended"][0, :6]).all()
    assert (small.arrays["label"][:, 0] == found.cases.arrays["label"][:, 0, :6]).all()
    assert np.corrcoef(small.arrays["drop"][0].ravel(), found.cases.arrays["drop"][0, :6].ravel())[0, 1] > 0.95


def test_everything_is_measured_over_from_the_cells_alike(found, context):
    first = found.cases
    context.memo.clear()
    for key in [first.facts["key"]]:
        path = context.store.path(key)
        for file in sorted(path.iterdir()):
            file.unlink()
        path.rmdir()
    again = found.cases
    assert again.origin == "live"
    assert all(np.array_equal(again.arrays[name], first.arrays[name]) for name in first.arrays)


class Dying(Store):
    """A store that is killed at its seventh entry."""

    left = 6

    def save(self, key, measurement, *, anew=False):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        super().save(key, measurement, anew=anew)


@pytest.mark.parametrize("threads", [1, 2])
def test_interrupted_and_resumed_on_one_thread_or_two_the_same_counts(tmp_path, found, threads):
    def measured(store: Store):
        reader = PlantedReader(Context(store, profile=profile_of("quick")))
        return head_cases(Reading(reader, planted_text()), head=list(HEAD), amounts=AMOUNTS.parameters())

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.raises(KeyboardInterrupt):
            measured(Dying(tmp_path))
        kept = len(list(tmp_path.rglob("measurement.json")))
        again = measured(Store(tmp_path))
    finally:
        torch.set_num_threads(before)
    assert kept == 6
    assert all(np.array_equal(again.arrays[name], array) for name, array in found.cases.arrays.items())


def test_every_share_that_the_paper_gives_has_a_claim():
    expected: dict[str, list[object]] = {}
    for claim in CLAIMS.values():
        expected.setdefault(claim.quantity, []).append(claim.expected)
    for kind, shares in SHARES.items():
        of = f"loss-reducing cases, {kind.replace(', ', ' effect and ')} ablation,"
        of = "the head's winning cases (direct effect, mean ablation)" if kind == "winning" else of
        for name, share in shares.items():
            words = f"share of {of} that show {'an acronym' if name == 'acronym' else name}"
            assert expected[words] == [pytest.approx(share)]


def test_the_sweep_finds_the_planted_head(context, reading):
    subject = Subject("reader", reading.subject.model, context)
    assert leading_head(subject) == HEAD


def test_matched_heads_are_others_of_about_the_same_size():
    sizes = np.linspace(1, 0, 30)
    chosen = matched_rows(sizes, 10, 4, np.random.default_rng(0))
    assert len(set(chosen)) == 4
    assert 10 not in chosen
    assert all(abs(row - 10) <= 4 for row in chosen)
    assert matched_rows(sizes, 0, 4, np.random.default_rng(0)) == sorted(
        matched_rows(sizes, 0, 4, np.random.default_rng(0))
    )
    assert len(matched_rows(sizes[:3], 1, 4, np.random.default_rng(0))) == 2


def test_evidence_holds_what_the_tables_hold(found):
    paper = paper_shares(FOLDER / "test_natural_text.py")
    bars = behaviour_bars(found, paper)
    labels = [row.label.strip() for row in bars.rows]
    assert labels[0] == "winning"
    assert sum(label.startswith("paper") for label in labels) == len(paper) == 1 + len(EFFECT_ROWS)
    for row in bars.rows:
        assert row.paper or sum(row.values) == pytest.approx(1)
    shown = passages(found).examples
    assert {example.label for example in shown} <= set(BEHAVIOURS)
    for example in shown:
        ranks = [token.rank for token in example.tokens if token.rank]
        assert sorted(ranks) == sorted(set(ranks))
        assert set(ranks) <= set(range(1, max(VARIANTS.values()) + 1))
    assert len(rules_agree(found).rows) == 1 + len(EFFECT_ROWS)
    assert [row[0] for row in ceilings(found).rows] == ["winning", *map(", ".join, EFFECT_ROWS)]
    assert heads_by_wins(found).mark_rows == (0,)
    assert len(spread_bars(found).labels) >= 2
    assert all("succession cases" in item.caption for item in loss_bars(found))
    table = heads_on_listings(found.listings())
    assert len(table.rows) == 8
