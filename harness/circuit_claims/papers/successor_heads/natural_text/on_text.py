"""What SH-21 to SH-23 ask of a head on real text: findings, each with its controls measured the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from circuit_claims.api import Evidence, Finding, Judge, Measurement, TextUse
from circuit_claims.heads.effects.results import Head
from circuit_claims.papers.successor_heads.amounts import amounts_of
from circuit_claims.papers.successor_heads.natural_text import known, quantities
from circuit_claims.papers.successor_heads.natural_text.behaviours import NAMED, VARIANTS
from circuit_claims.papers.successor_heads.natural_text.listed import listing_effects
from circuit_claims.papers.successor_heads.natural_text.listings import WANTED
from circuit_claims.papers.successor_heads.natural_text.natural import (
    OTHERS,
    Amounts,
    Reading,
    head_cases,
    matched_rows,
)
from circuit_claims.papers.successor_heads.natural_text.planted_reader import HEAD as PLANTED_HEAD
from circuit_claims.papers.successor_heads.natural_text.planted_reader import PlantedReader, planted_text
from circuit_claims.papers.successor_heads.succession.measures import Settings, SuccessorScoreTable
from circuit_claims.papers.successor_heads.succession.quantities import ranking
from circuit_claims.texts import Text

PAPER_HEADS: Mapping[str, tuple[int, int]] = {"pythia-1.4b": (12, 0)}
PLANTED_AMOUNTS = Amounts(contexts=24, loss_contexts=12, others=3, length=64)
CALIBRATION_DRAWS = 400
DRAWN = "random earlier tokens"
RANDOM = "matched random heads"
REDEALT = "the tokens it promotes dealt out anew among its cases"
RENAMED = "the behaviours' names exchanged at random within each document"
ORACLE = "a head with the paper's shares on these cases"
OWN_VARIANT = next(iter(VARIANTS))
Shares = Mapping[str, float]


def sweep_settings(subject: Any) -> Settings:
    """The path on which a subject's leading head is looked for: what heads read in the running model.

    On the residual at the head's own layer, behind the token that the model expects in front (or its end-of-text
    token), with the input token itself left out, a head that copies and increments shows up as well.
    """
    first = "model's own" if subject.tokens.bos_id is not None else "end of text"
    return Settings(path="residual", exclude_self=True, first=first)


def leading_head(subject: Any) -> Head:
    """The head that is asked about: the paper's where it names one, else the sweep's leader by `sweep_settings`."""
    row = getattr(subject.model, "row", None)
    if row is not None and row.subject in PAPER_HEADS:
        return PAPER_HEADS[row.subject]
    table = SuccessorScoreTable(subject, sweep_settings(subject)).table
    layer, head = table.arrays["heads"][ranking(table, "score")[0]]
    return int(layer), int(head)


@dataclass(frozen=True)
class HeadOnText:
    """One head of one subject on one text: its cases, ready to be asked for quantities with their controls."""

    reading: Reading
    head: Head
    amounts: Amounts
    relabelled: Measurement | None = None

    @property
    def name(self) -> str:
        """The head as the paper writes it."""
        return f"L{self.head[0]}H{self.head[1]}"

    @property
    def draws(self) -> int:
        """Bootstrap draws of the run's profile."""
        return self.reading.context.profile.bootstrap_draws

    @property
    def cases(self) -> Measurement:
        """The stored table of cases, or the one with other labels that was made of it."""
        if self.relabelled is not None:
            return self.relabelled
        return head_cases(self.reading, head=list(self.head), amounts=self.amounts.parameters())

    def planted(self) -> HeadOnText:
        """The positive control: a planted head that adds one, reading made-up lists."""
        reading = Reading(PlantedReader(self.reading.context), planted_text())
        return HeadOnText(reading, PLANTED_HEAD, PLANTED_AMOUNTS)

    @cached_property
    def _ready(self) -> dict[tuple[int | None, ...], known.Redealt]:
        return {}

    def _redealt(self, *rows: int | None) -> known.Redealt:
        if rows not in self._ready:
            self._ready[rows] = known.Redealt.of(self.cases, self.reading.strings, rows)
        return self._ready[rows]

    def winning_share(self, *behaviours: str, claimed: Shares) -> Finding:
        """Share of the winning cases that show one of `behaviours` (SH-21), or any of the four where none is named.

        `claimed` are the paper's shares by behaviour: those of the head that is planted as the oracle.
        """
        names, of = behaviours or NAMED, "winning cases"

        def share(counted: quantities.BehaviourCounts) -> Measurement:
            return quantities.behaviour_share(self.cases, counted, names, of)

        return Finding(
            share(quantities.counted(self.cases)),
            {
                RANDOM: lambda: share(quantities.winning(self.cases, others=True)),
                DRAWN: lambda: share(quantities.counted(self.cases, labels="label_drawn")),
            },
            false={REDEALT: lambda generator: share(self._redealt(None).draw(generator)[0])},
            oracles={ORACLE: lambda: share(known.planted(self.cases, None, claimed))},
        )

    def winning_leads(self, claimed: Shares) -> Finding:
        """Which of the four behaviours is the commonest among the winning cases (SH-21b)."""
        finding = self._leads((None,), [claimed], "winning cases")

        def others() -> Measurement:
            return quantities.leads(
                self.cases, [quantities.winning(self.cases, others=True)], self.draws, "winning cases"
            )

        return replace(finding, controls={**finding.controls, RANDOM: others})

    def _leads(self, rows: Sequence[int | None], claimed: Sequence[Shares], of: str) -> Finding:
        def leads(table: Measurement, counted: list[quantities.BehaviourCounts], draws: int = 0) -> Measurement:
            return quantities.leads(table, counted, draws or self.draws, of)

        def counts(table: Measurement, labels: str = "label") -> list[quantities.BehaviourCounts]:
            return [quantities.counted(table, row, labels) for row in rows]

        own = counts(self.cases)
        fewer = min(self.draws, CALIBRATION_DRAWS)

        def planted() -> Measurement:
            table = self.planted().cases
            return leads(table, counts(table))

        return Finding(
            leads(self.cases, own),
            {DRAWN: lambda: leads(self.cases, counts(self.cases, "label_drawn")), "planted reader": planted},
            false={
                REDEALT: lambda generator: leads(self.cases, self._redealt(*rows).draw(generator), fewer),
                RENAMED: lambda generator: leads(self.cases, known.renamed(own, generator), fewer),
            },
            oracles={
                ORACLE: lambda: leads(
                    self.cases,
                    [known.planted(self.cases, row, one) for row, one in zip(rows, claimed, strict=True)],
                )
            },
        )

    def spread(self) -> Finding:
        """Whether the head's winning cases spread over more of the four behaviours than a random head's (SH-21d)."""
        counts, fewer = quantities.named_counts(self.cases), min(self.draws, CALIBRATION_DRAWS)

        def order(counted: np.ndarray, draws: int = 0) -> Measurement:
            return quantities.spread_order(self.cases, counted, draws or self.draws)

        def alone() -> Measurement:
            """A head that does one thing: all its cases show what most of them do."""
            most = np.zeros_like(counts[0])
            most[:, counts[0].sum(0).argmax()] = counts[0].sum(1)
            return order(np.concatenate([most[None], counts[1:]]))

        return Finding(
            order(counts),
            {"a head of one behaviour": alone},
            false={
                "a random head in its place": lambda generator: order(
                    known.in_its_place(counts, quantities.FEWEST, generator), fewer
                )
            },
            oracles={"its cases dealt out evenly over the four behaviours": lambda: order(known.even(counts))},
        )

    def reducing_share(self, effect: str, ablation: str, claimed: Shares, behaviour: str = "successorship") -> Finding:
        """Share of the loss-reducing cases of one effect and ablation that show `behaviour` (SH-22)."""
        row, of = quantities.EFFECTS.index((effect, ablation)), f"cases whose loss {effect} {ablation} ablation raises"

        def share(counted: quantities.BehaviourCounts) -> Measurement:
            return quantities.behaviour_share(self.cases, counted, (behaviour,), of)

        controls: dict[str, Callable[[], Measurement]] = {
            DRAWN: lambda: share(quantities.counted(self.cases, row, "label_drawn"))
        }
        if effect == "direct":
            controls["a matched random head"] = lambda: share(quantities.reducing_of_other(self.cases, row))
        return Finding(
            share(quantities.counted(self.cases, row)),
            controls,
            false={REDEALT: lambda generator: share(self._redealt(row).draw(generator)[0])},
            oracles={ORACLE: lambda: share(known.planted(self.cases, row, claimed))},
        )

    def reducing_leads(self, *effects: str, claimed: Mapping[str, Shares]) -> Finding:
        """Which of the four behaviours is the commonest in every row of these effects, mean and resample (SH-22).

        `claimed` are the paper's shares by row ("direct, mean").
        """
        rows = [row for row, (effect, _) in enumerate(quantities.EFFECTS) if effect in effects]
        shares = [claimed[", ".join(quantities.EFFECTS[row])] for row in rows]
        return self._leads(rows, shares, f"loss-reducing cases, {', '.join(effects)}")

    def by_other_rules(self, asked: Callable[[HeadOnText], Finding]) -> dict[str, Finding]:
        """A question asked by every rule that labels the head's cases, the claims' own first."""
        own = self.cases
        settings = {f"by the token it promotes most, {OWN_VARIANT}": asked(self)}
        for variant, name in enumerate(VARIANTS):
            promoted, correct = own.arrays["label"][variant, :1], own.arrays["label_correct"][variant, None]
            if variant:
                settings[f"by the token it promotes most, {name}"] = asked(self._labelled(promoted))
            settings[f"by the correct token, {name}"] = asked(self._labelled(correct))
        return settings

    def _labelled(self, label: np.ndarray) -> HeadOnText:
        """The head with these labels of its own cases, (1, context, case), in place of the first variant's."""
        table = self.cases
        labels = table.arrays["label"].copy()
        labels[0, :1] = label
        return replace(self, relabelled=replace(table, arrays={**table.arrays, "label": labels}))

    def saves_on_succession(self) -> Finding:
        """Whether the head saves more loss on cases that involve succession than on matched ones (SH-23b)."""
        table, row = self.cases, quantities.EFFECTS.index(("total", "mean"))
        fewer = min(self.draws, CALIBRATION_DRAWS)

        def saves(of: Measurement, change: np.ndarray | None = None) -> Measurement:
            found = quantities.saved(of, of.arrays["change"][row] if change is None else change, self.draws)
            return quantities.saves_on_succession(of, found)

        def dealt(generator: np.random.Generator) -> Measurement:
            marks = known.marks_dealt(table, generator)
            found = quantities.saved(table, table.arrays["change"][row], fewer, marks)
            return quantities.saves_on_succession(table, found)

        def nothing() -> Measurement:
            """A head whose ablation costs every case alike."""
            return saves(table, np.full_like(table.arrays["change"][row], known.SAVED_NATS))

        return Finding(
            saves(table),
            {"a head that saves all cases alike": nothing, "planted reader": lambda: saves(self.planted().cases)},
            false={"succession marks dealt out anew among cases of a kind": dealt},
            oracles={
                f"a head that saves {known.SAVED_NATS:g} nat wherever there is succession": lambda: saves(
                    table, known.saves_only_there(table)
                )
            },
        )

    def listings(self) -> HeadOnListings:
        """The head on numbered lists."""
        return HeadOnListings(self)


@dataclass(frozen=True)
class HeadOnListings:
    """One head on prompts cut from numbered lists (SH-23)."""

    on_text: HeadOnText

    @property
    def table(self) -> Measurement:
        """The stored table of effects."""
        wanted = amounts_of(self.on_text.reading.context).listings
        return listing_effects(self.on_text.reading, wanted=wanted, seed=self.on_text.amounts.seed)

    @property
    def row(self) -> int:
        """The head's place among all heads."""
        return row_of(self.table, self.on_text.head)

    @property
    def text(self) -> TextUse:
        """Which text the prompts were cut from, and whether it stands in for the paper's."""
        reading, facts = self.on_text.reading, self.table.facts
        return TextUse(str(facts["text"]), stand_in=bool(reading.text.stands_for) or not facts["own text"])

    def won(self) -> Finding:
        """Share of the prompts in which the head costs the right number most of all heads."""
        table = self.table

        def others() -> Measurement:
            rows = matched_rows(table.arrays["size"], self.row, OTHERS, np.random.default_rng(0))
            return quantities.prompts_won(table, quantities.wins_of(table, rows))

        def planted() -> Measurement:
            control = self.on_text.planted()
            # As many as the paper's: with fewer, even a head that always wins is not known to.
            made = listing_effects(control.reading, wanted=WANTED, seed=0, planted=True)
            return quantities.prompts_won(made, quantities.wins_of(made, [row_of(made, control.head)]))

        return Finding(
            quantities.prompts_won(table, quantities.wins_of(table, [self.row])),
            {RANDOM: others, "planted reader": planted},
            false={
                "the winner of each prompt drawn from all heads": lambda generator: quantities.prompts_won(
                    table, known.winners_dealt(table, generator)
                )
            },
            oracles={
                "a head that wins every prompt": lambda: quantities.prompts_won(
                    table, np.ones(len(table.arrays["drop"]))
                )
            },
        )


def row_of(table: Measurement, head: Head) -> int:
    """The row of a head among all heads of a table."""
    return int(np.flatnonzero((table.arrays["all_heads"] == np.asarray(head)).all(1))[0])


def head_on_text(subject: Any, text: Text) -> HeadOnText:
    """The subject's leading head on a text, as much of it as the run's profile reads."""
    asked = amounts_of(subject.context)
    amounts = Amounts(asked.contexts, asked.loss_contexts)
    return HeadOnText(Reading(subject, text), leading_head(subject), amounts)


def by_every_rule(
    judge: Judge,
    claim_id: str,
    head: HeadOnText,
    asked: Callable[[HeadOnText], Finding],
    evidence: Sequence[Evidence],
) -> None:
    """Judge a claim on what is `asked` of the head, with what the other rules that tell behaviours say shown first."""
    settings = judge.under(claim_id, head.by_other_rules(asked))
    judge(claim_id, asked(head), evidence=[settings, *evidence])


def judge_share(
    judge: Judge,
    head: HeadOnText,
    claimed: Mapping[str, Shares],
    claim_id: str,
    kind: str,
    behaviour: str,
    evidence: Sequence[Evidence],
) -> None:
    """Judge a claim on the share of `behaviour` among one kind of case: "winning", or "direct, mean" and its like.

    `claimed` are the paper's shares by kind.
    """

    def share(one: HeadOnText) -> Finding:
        if kind == "winning":
            return one.winning_share(behaviour, claimed=claimed[kind])
        effect, ablation = kind.split(", ")
        return one.reducing_share(effect, ablation, claimed[kind], behaviour)

    by_every_rule(judge, claim_id, head, share, evidence)
