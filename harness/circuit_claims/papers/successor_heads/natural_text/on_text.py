"""What SH-21 to SH-23 ask of a head on real text: findings, each with its controls measured the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from circuit_claims.api import Finding, Measurement
from circuit_claims.heads.effects.results import Head
from circuit_claims.papers.successor_heads.amounts import amounts_of
from circuit_claims.papers.successor_heads.natural_text import quantities
from circuit_claims.papers.successor_heads.natural_text.behaviours import NAMED
from circuit_claims.papers.successor_heads.natural_text.listed import listing_effects
from circuit_claims.papers.successor_heads.natural_text.listings import WANTED
from circuit_claims.papers.successor_heads.natural_text.natural import Amounts, Reading, head_cases, matched_rows
from circuit_claims.papers.successor_heads.natural_text.planted_reader import HEAD as PLANTED_HEAD
from circuit_claims.papers.successor_heads.natural_text.planted_reader import PlantedReader, planted_text
from circuit_claims.papers.successor_heads.succession.measures import Settings, SuccessorScoreTable
from circuit_claims.papers.successor_heads.succession.quantities import ranking
from circuit_claims.running.judge import TextUse
from circuit_claims.texts import Text

PAPER_HEADS: Mapping[str, tuple[int, int]] = {"pythia-1.4b": (12, 0)}
PLANTED_AMOUNTS = Amounts(contexts=24, loss_contexts=12, others=3, length=64)
SHUFFLES = 20
OTHERS = 4
DRAWN = "random earlier tokens"
RANDOM = "matched random heads"


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
        """The stored table of cases."""
        return head_cases(self.reading, head=list(self.head), amounts=self.amounts.parameters())

    def planted(self) -> HeadOnText:
        """The positive control: a planted head that adds one, reading made-up lists."""
        reading = Reading(PlantedReader(self.reading.context), planted_text())
        return HeadOnText(reading, PLANTED_HEAD, PLANTED_AMOUNTS)

    def winning_share(self, *behaviours: str) -> Finding:
        """Share of the winning cases that show one of `behaviours` (SH-21), or any of the four where none is named."""
        names, of = behaviours or NAMED, "winning cases"

        def share(counted: quantities.BehaviourCounts) -> Measurement:
            return quantities.behaviour_share(self.cases, counted, names, self.draws, of)

        return Finding(
            share(quantities.winning(self.cases)),
            {
                RANDOM: lambda: share(quantities.winning(self.cases, others=True)),
                DRAWN: lambda: share(quantities.winning_with(self.cases, "label_drawn")),
            },
        )

    def winning_leads(self, behaviour: str) -> Finding:
        """Whether `behaviour` is the commonest of the four among the winning cases (SH-21b)."""

        def leads(table: Measurement, counted: quantities.BehaviourCounts) -> Measurement:
            return quantities.leads(table, [counted], behaviour, self.draws, "winning cases")

        def planted() -> Measurement:
            table = self.planted().cases
            return leads(table, quantities.winning(table))

        return Finding(
            leads(self.cases, quantities.winning(self.cases)),
            {
                RANDOM: lambda: leads(self.cases, quantities.winning(self.cases, others=True)),
                DRAWN: lambda: leads(self.cases, quantities.winning_with(self.cases, "label_drawn")),
                "planted reader": planted,
            },
        )

    def spread(self) -> Finding:
        """Whether the head's winning cases spread over more behaviours than those of matched random heads (SH-21d)."""
        controls = {"matched random heads in its place": lambda: self._spread(None)}
        return Finding(self._spread(0), controls)

    def _spread(self, place: int | None) -> Measurement:
        return quantities.spread_order(self.cases, self.draws, place)

    def reducing_share(self, effect: str, ablation: str, behaviour: str = "successorship") -> Finding:
        """Share of the loss-reducing cases of one effect and ablation that show `behaviour` (SH-22)."""
        row, of = quantities.EFFECTS.index((effect, ablation)), f"cases whose loss {effect} {ablation} ablation raises"

        def share(counted: quantities.BehaviourCounts) -> Measurement:
            return quantities.behaviour_share(self.cases, counted, (behaviour,), self.draws, of)

        controls: dict[str, Callable[[], Measurement]] = {
            DRAWN: lambda: share(quantities.reducing(self.cases, row, labels="label_drawn"))
        }
        if effect == "direct":
            controls["a matched random head"] = lambda: share(quantities.reducing(self.cases, row, other=True))
        return Finding(share(quantities.reducing(self.cases, row)), controls)

    def reducing_leads(self, behaviour: str, *effects: str) -> Finding:
        """Whether `behaviour` is the commonest of the four in every row of these effects, mean and resample (SH-22)."""
        rows = [row for row, (effect, _) in enumerate(quantities.EFFECTS) if effect in effects]

        def leads(table: Measurement, labels: str = "") -> Measurement:
            counted = [quantities.reducing(table, row, labels=labels) for row in rows]
            return quantities.leads(table, counted, behaviour, self.draws, f"loss-reducing cases, {', '.join(effects)}")

        controls = {
            DRAWN: lambda: leads(self.cases, "label_drawn"),
            "planted reader": lambda: leads(self.planted().cases),
        }
        return Finding(leads(self.cases), controls)

    def saves_on_succession(self) -> Finding:
        """Whether the head saves more loss on cases that involve succession than on matched ones (SH-23b)."""
        row = quantities.EFFECTS.index(("total", "mean"))

        def saves(table: Measurement) -> Measurement:
            return quantities.saves_on_succession(table, row, self.draws)

        controls = {
            "succession marks shuffled": self._shuffled,
            "planted reader": lambda: saves(self.planted().cases),
        }
        return Finding(saves(self.cases), controls)

    def _shuffled(self) -> Measurement:
        """The same with succession marks dealt out anew among the cases of each kind; support pooled over shuffles."""
        table, generator = self.cases, np.random.default_rng(0)
        row, found = quantities.EFFECTS.index(("total", "mean")), []
        for _ in range(SHUFFLES):
            marks = table.arrays["succession"].copy()
            for kind in np.unique(table.arrays["kind"]):
                here = table.arrays["kind"] == kind
                marks[here] = generator.permutation(marks[here])
            one = replace(table, arrays={**table.arrays, "succession": marks})
            found.append(quantities.saves_on_succession(one, row, self.draws))
        support = {order: float(np.mean([one.support[order] for one in found])) for order in found[0].support}
        best = max(support, key=lambda order: support[order])
        return found[0].derive(f"{found[0].quantity}, {SHUFFLES} shuffles", best, support=support, n=found[0].n)

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
        draws = self.on_text.draws

        def others() -> Measurement:
            rows = matched_rows(self.table.arrays["size"], self.row, OTHERS, np.random.default_rng(0))
            return quantities.prompts_won(self.table, rows, draws)

        def planted() -> Measurement:
            control = self.on_text.planted()
            # As many as the paper's: with fewer, even a head that always wins is not known to.
            table = listing_effects(control.reading, wanted=WANTED, seed=0, planted=True)
            return quantities.prompts_won(table, [row_of(table, control.head)], draws)

        controls = {RANDOM: others, "planted reader": planted}
        return Finding(quantities.prompts_won(self.table, [self.row], draws), controls)


def row_of(table: Measurement, head: Head) -> int:
    """The row of a head among all heads of a table."""
    return int(np.flatnonzero((table.arrays["all_heads"] == np.asarray(head)).all(1))[0])


def head_on_text(subject: Any, text: Text) -> HeadOnText:
    """The subject's leading head on a text, as much of it as the run's profile reads."""
    asked = amounts_of(subject.context)
    amounts = Amounts(asked.contexts, asked.loss_contexts, others=OTHERS)
    return HeadOnText(Reading(subject, text), leading_head(subject), amounts)
