"""The first paper's claims on counting as findings: each quantity with the controls that stand beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from circuit_claims.api import FEWEST_CLUSTERS, LEVEL, Finding, Interval, Measurement, Profile
from circuit_claims.heads.whole_model import one_booted_model
from circuit_claims.papers.successor_heads.amounts import ProfileAmounts, amounts_of
from circuit_claims.papers.successor_heads.counting import known, moduli, swapped
from circuit_claims.papers.successor_heads.counting.measures import (
    NamedHead,
    factoring_table,
    greater_than_table,
    leader_by_score,
    mod_ten_features_table,
    other_head,
    steering_tables,
)
from circuit_claims.papers.successor_heads.counting.measures_probes import (
    in_context_table,
    last_digit_residuals,
    last_digit_table,
    neuron_table,
    probe_table,
)
from circuit_claims.papers.successor_heads.counting.moduli import DRAWS
from circuit_claims.papers.successor_heads.counting.planted.plan import CounterPlan
from circuit_claims.papers.successor_heads.counting.planted.subject import CounterSubject
from circuit_claims.papers.successor_heads.dataset import splits_numbers
from circuit_claims.papers.successor_heads.steering import known as known_bias
from circuit_claims.papers.successor_heads.steering import quantities

PLANTED_RUNS = 6
CALIBRATING = 400
"""Bootstrap draws of a data set whose answer is known."""
RIGHT = 94 / 102
"""The paper's share of tokens that its mod-10 probe gets right out of distribution."""
COVERAGE = 0.585
"""The mean modal coverage of the notes on the paper."""
OfModuli = Callable[[Measurement, np.ndarray, np.random.Generator, int], Measurement]
SUCCESS = {"numbers": 0.89, "months": 0.53}
"""The paper's success rates of edits."""
FALSE_PERIOD = 7
USUAL_TASKS = ("numbers", "number words", "ordinal words")
AMBIGUOUS = (1, 5, 10)
"""Numerals that are letters too: the paper's own exceptions."""


@dataclass(frozen=True)
class Counting:
    """How one head of one subject counts. Every method gives a finding; nothing is measured before it is asked for."""

    subject: Any

    @cached_property
    def head(self) -> NamedHead:
        """The leading successor head."""
        return leader_by_score(self.subject)

    @property
    def _profile(self) -> Profile:
        return self.subject.context.profile

    @property
    def _amounts(self) -> ProfileAmounts:
        return amounts_of(self.subject.context)

    def _runs(self, subject: Any) -> dict[str, Any]:
        """Which features: those of the leading head, from so many autoencoders and probes as the profile asks.

        Planted counters get their own number in every profile: with three a true period comes out inconclusive.
        """
        runs = self._amounts.autoencoders
        runs = PLANTED_RUNS if isinstance(subject, CounterSubject) else runs
        return {"head": list(leader_by_score(subject).pair), "runs": runs, "probes": self._probe_seeds(subject)}

    def _probe_seeds(self, subject: Any) -> int:
        """How many probes of MLP_0 are trained: over fewer than `FEWEST_CLUSTERS` nothing would be decided.

        A model that splits numbers has none to train them on, and keeps the profile's number.
        """
        seeds = self._amounts.probe_seeds
        return seeds if splits_numbers(subject.tokens) else max(seeds, FEWEST_CLUSTERS)

    def _planted(self, **plan: Any) -> CounterSubject:
        return CounterSubject(self.subject.context, CounterPlan(**plan))

    def _with_planted(
        self, measured: Callable[..., Measurement], **controls: Callable[[], Measurement]
    ) -> dict[str, Callable[[], Measurement]]:
        """Controls by their names, and the planted counters of a true and a false period."""
        return {
            **{name.replace("_", " "): control for name, control in controls.items()},
            "planted counter": lambda: measured(self._planted()),
            "planted counter of period 7": lambda: measured(self._planted(period=FALSE_PERIOD)),
        }

    # Features

    def features(self, subject: Any = None) -> Measurement:
        """The stored table of mod-10 features."""
        return mod_ten_features_table(subject or self.subject, **self._runs(subject or self.subject))

    def modal_coverage(self) -> Finding:
        """How many tokens of a residue share their most important feature (SH-14)."""

        def shuffled() -> Measurement:
            return _derived(self.features(), "mean modal coverage", self.features().facts["shuffled"])

        table = self.features()
        return Finding(
            table,
            self._with_planted(self.features, shuffled_index=shuffled),
            false={"residues shuffled among the strings": partial(known.residues_shuffled, table)},
            oracles={
                f"{COVERAGE:.1%} of the same strings have their residue's own feature": lambda: (
                    known.own_feature_of_each(table, COVERAGE, _seeded())
                )
            },
        )

    def rows_and_features(self) -> Finding:
        """Mean cosine of probe rows and features (SH-11)."""

        def cosine(subject: Any = None, which: str = "own") -> Measurement:
            table = self.features(subject)
            stated = table.facts["rows"][which]
            found = _derived(table, "mean cosine of P_i and f_i", stated, "cosine")
            return replace(found, facts={"as found": stated["as found"]})

        return Finding(
            cosine(),
            self._with_planted(cosine, features_of_other_residues=lambda: cosine(which="other")),
            false={"features handed to other residues": partial(known.features_exchanged, self.features())},
            oracles={"features turned to the paper's cosine with the rows": lambda: cosine(which="planted")},
        )

    # Probes and neurons

    def probes(self, subject: Any = None, **changes: str) -> Measurement:
        """The stored table of probes."""
        asked = subject or self.subject
        return probe_table(asked, seeds=self._probe_seeds(asked), **changes)

    def _of_probes(self, read: Callable[[Measurement], Measurement]) -> Finding:
        def measured(subject: Any = None, **changes: str) -> Measurement:
            return read(self.probes(subject, **changes))

        return Finding(
            measured(),
            self._with_planted(
                measured,
                shuffled_index=lambda: measured(index="shuffled"),
                untrained_weights=lambda: measured(weights="untrained"),
                answers_known=lambda: _answers(measured()),
            ),
        )

    def _of_moduli(self, quantity: OfModuli, finding: Finding, table: Measurement, share: float) -> Finding:
        """False: indices shuffled within each task; true: probes of mod 10 that get this share right."""
        quick = moduli.QUICK
        return replace(
            finding,
            false={
                "indices shuffled within each task": lambda generator: quantity(
                    table, moduli.shuffled_within_tasks(table, generator), generator, quick
                )
            },
            oracles={
                f"a mod-10 probe right on {share:.0%} of the same tokens": lambda: quantity(
                    table, moduli.with_modulus_right(table, share, _seeded()), _seeded(), quick
                )
            },
        )

    def _probed(self, quantity: OfModuli, share: float) -> Finding:
        finding = self._of_probes(lambda table: quantity(table, moduli.right_of(table), _seeded(), DRAWS))
        return self._of_moduli(quantity, finding, self.probes(), share)

    def right_out_of_distribution(self) -> Finding:
        """Share of the other tasks' tokens whose residue the mod-10 probe gets right (SH-10)."""
        return self._probed(moduli.share_right, RIGHT)

    def best_modulus(self) -> Finding:
        """The modulus whose probe knows most beyond its chance on other tasks (SH-12)."""
        return self._probed(moduli.best_modulus, RIGHT)

    def least_drop(self) -> Finding:
        """The modulus that drops least from numbers left out to other tasks (SH-12e)."""
        return self._probed(moduli.least_drop, 1.0)

    def right_in(self, task: str) -> Finding:
        """How many days the mod-7 probe (SH-12b), and how many months the mod-12 probe gets right (SH-12c).

        False: that probe knows them as well as the paper's mod-10 probe knows other tasks; true: the paper's count.
        """
        table, paper = self.probes(), {"days": 0, "months": 8}[task]

        def knowing(generator: np.random.Generator) -> Measurement:
            return moduli.count_in_task(table, moduli.with_task_known(table, task, RIGHT, generator), task)

        def as_in_the_paper() -> Measurement:
            return moduli.count_in_task(table, moduli.with_so_many_right(table, task, paper), task)

        return replace(
            self._of_probes(lambda one: moduli.count_in_task(one, moduli.right_of(one), task)),
            false={f"a probe right on {RIGHT:.0%} of the same {task}": knowing},
            oracles={f"a probe right on {paper} of the same {task}": as_in_the_paper},
        )

    def commonest_period(self) -> Finding:
        """The commonest period among the most important neurons (SH-13)."""

        def measured(subject: Any = None, **changes: str) -> Measurement:
            head = list(leader_by_score(subject or self.subject).pair)
            return neuron_table(subject or self.subject, head=head, shuffles=self._profile.shuffles, **changes)

        shuffled, table = {"shuffled_index": lambda: measured(index="shuffled")}, measured()
        return Finding(
            table,
            self._with_planted(measured, **shuffled),
            false={"indices shuffled among the strings": partial(known.indices_shuffled, table)},
            oracles={
                "the same neurons as functions of the index mod 10": lambda: known.functions_of_the_index(
                    table, _seeded()
                )
            },
        )

    def last_digit(self, **changes: str) -> Measurement:
        """The adapted measure for models that split numbers: probes below the head's layer, at the last digit."""
        return last_digit_table(self.subject, seeds=self._amounts.probe_seeds, **self._last_digits(), **changes)

    def what_last_digits_hold(self) -> str:
        """Which residual was read, in words: below layer 0 there is no context in it."""
        layer = self.head.layer
        read = f"Residual below layer {layer}, the leading head's"
        return f"{read}: the last digit's embedding alone, without what stands before it." if not layer else f"{read}."

    def _last_digits(self) -> dict[str, int]:
        return {"layer": self.head.layer, "step": self._amounts.numbers_step}

    def right_from_the_last_digit(self) -> Finding:
        """SH-10 adapted to models that split numbers."""

        return self._of_last_digits(moduli.share_right)

    def _of_last_digits(self, quantity: OfModuli) -> Finding:
        def measured(**changes: str) -> Measurement:
            table = self.last_digit(**changes)
            return quantity(table, moduli.right_of(table), _seeded(), DRAWS)

        finding = Finding(measured(), {"shuffled index": lambda: measured(index="shuffled")})
        return self._of_moduli(quantity, finding, self.last_digit(), RIGHT)

    def best_modulus_of_the_last_digit(self) -> Finding:
        """SH-12 adapted to models that split numbers."""
        return self._of_last_digits(moduli.best_modulus)

    # Factoring

    def factored(self, subject: Any = None, **changes: str) -> Measurement:
        """The stored table of the index and domain maps."""
        asked = subject or self.subject
        amounts = {"pairs": self._amounts.swapped_pairs, "draws": self._profile.bootstrap_draws}
        return factoring_table(asked, head=list(leader_by_score(asked).pair), **amounts, **changes)

    def swapped_pairs(self, space: str) -> Finding:
        """Left-out pairs that decode in output space ("decoded") or are counted on by the head ("counted")."""

        def measured(subject: Any = None, which: str = "held out", **changes: str) -> Measurement:
            table = self.factored(subject, **changes)
            found = _shares(table, f"swapped pairs {space}", table.facts[which][space])
            return replace(found, redrawn=own.redrawn)

        own = swapped.share_of(self.factored(), "held out", space, swapped.passed(self.factored(), "held out", space))
        return self._of_pairs(
            "held out",
            space,
            Finding(
                measured(),
                self._with_planted(
                    measured,
                    domain_map_alone=lambda: measured(which="domain only"),
                    shuffled_index=lambda: measured(index="shuffled"),
                ),
            ),
            {"decoded": 1.0, "counted": 0.95}[space],
        )

    def _of_pairs(self, group: str, space: str, finding: Finding, rate: float) -> Finding:
        """False: indices shuffled within each domain; true: this share of the same pairs passes."""
        table = self.factored()

        def read(right: np.ndarray) -> Measurement:
            return swapped.share_of(table, group, space, right)

        asked = len(swapped.passed(table, group, space))
        return replace(
            finding,
            false={"indices shuffled within each domain": lambda g: read(swapped.passed(table, group, space, g))},
            oracles={f"{rate:.0%} of the same pairs pass": lambda: read(_seeded().random(asked) < rate)},
        )

    def numerals(self) -> Finding:
        """Roman numerals but I, V and X whose index most swapped pairs give (SH-19)."""

        def measured(subject: Any = None, **changes: str) -> Measurement:
            table = self.factored(subject, **changes)
            return swapped.numerals_of(table, swapped.passed(table, "roman", "decoded"), AMBIGUOUS)

        shuffled = {"shuffled_index": lambda: measured(index="shuffled")}
        table = self.factored()

        def read(right: np.ndarray) -> Measurement:
            return swapped.numerals_of(table, right, AMBIGUOUS)

        everything = np.ones(len(swapped.passed(table, "roman", "decoded")), dtype=bool)
        return Finding(
            measured(),
            self._with_planted(measured, **shuffled),
            false={"indices shuffled within each domain": lambda g: read(swapped.passed(table, "roman", "decoded", g))},
            oracles={"all numerals decode": lambda: read(everything)},
        )

    def numerals_counted_on(self) -> Finding:
        """Swapped pairs with a Roman numeral that the head counts on (SH-20)."""

        def measured(subject: Any = None) -> Measurement:
            table = self.factored(subject)
            found = _shares(table, "numerals counted on", table.facts["roman"]["counted"])
            return replace(found, redrawn=own.redrawn)

        own = swapped.share_of(self.factored(), "roman", "counted", swapped.passed(self.factored(), "roman", "counted"))
        finding = self._of_pairs("roman", "counted", Finding(measured(), self._with_planted(measured)), 1 / 8)

        def as_often_as_others(generator: np.random.Generator) -> Measurement:
            table, rate = self.factored(), self.factored().facts["held out"]["counted"]["value"]
            right = generator.random(len(swapped.passed(table, "roman", "counted"))) < rate
            return swapped.share_of(table, "roman", "counted", right)

        return replace(finding, false={"numerals counted on as often as other pairs": as_often_as_others})

    # Vector arithmetic

    def tables(self, subject: Any = None, reader: NamedHead | None = None, vectors: str = "own") -> Measurement:
        """The stored steering tables."""
        asked = subject or self.subject
        chosen = self._runs(asked)
        read = chosen["head"] if reader is None else list(reader.pair)
        return steering_tables(asked, reader=read, vectors=vectors, length="contrast", **chosen)

    def at_length(self, length: str) -> Measurement:
        """The steering tables with features of another length (see `steering_tables`)."""
        chosen = self._runs(self.subject)
        return steering_tables(self.subject, reader=chosen["head"], length=length, **chosen)

    def _of_tables(self, read: Callable[[Measurement], Measurement], rate_of: dict[str, float] | None = None,
                   best_at: dict[str, float] | None = None) -> Finding:  # fmt: skip
        """A finding on steering tables; false: what cells should land on shuffled within each task; true: as planned.

        The plan of the oracle says by task how many cells land as they should, and at which scale.
        """

        def measured(subject: Any = None, **changes: Any) -> Measurement:
            return read(self.tables(subject, **changes))

        return Finding(
            measured(),
            self._with_planted(
                measured,
                random_features=lambda: measured(vectors="random"),
                shuffled_index=lambda: measured(vectors="shuffled"),
                random_head=lambda: measured(reader=other_head(self.subject)),
            ),
            false={
                "successor map shuffled within each task": lambda generator: read(
                    quantities.with_places_shuffled(self.tables(), generator)
                )
            },
            oracles={
                "edits that succeed as the claim says": lambda: read(
                    quantities.with_perfect_edits(self.tables(), np.random.default_rng(0), rate_of or {}, best_at or {})
                )
            },
        )

    def success(self, task: str) -> Finding:
        """Success rate of a task's table (SH-15)."""
        read = partial(quantities.success_rate, task=task, draws=CALIBRATING)
        own = quantities.success_rate(self.tables(), task, self._profile.bootstrap_draws)
        return replace(self._of_tables(read, rate_of=SUCCESS), measurement=own)

    def best_scale(self, *tasks: str) -> Finding:
        """The scale at which most edited cells succeed (SH-16), in these of the tasks that the subject has."""

        def read(table: Measurement, draws: int = CALIBRATING) -> Measurement:
            return quantities.best_scale_of(table, [one for one in quantities.tasks_of(table) if one in tasks], draws)

        at = {task: quantities.SCALE_OF.get(task, quantities.USUAL) for task in tasks}
        return replace(
            self._of_tables(read, best_at=at), measurement=read(self.tables(), self._profile.bootstrap_draws)
        )

    def lead_over_days_and_letters(self) -> Finding:
        """How much more often edits succeed in the other tasks than in days and letters (SH-17)."""
        read = partial(quantities.lead_over_days_and_letters, draws=CALIBRATING)
        own = quantities.lead_over_days_and_letters(self.tables(), self._profile.bootstrap_draws)
        return replace(self._of_tables(read, rate_of=dict.fromkeys(quantities.FAILING, 0.05)), measurement=own)

    def in_context(self) -> Measurement | None:
        """The edits made in the whole model; None in a profile that leaves them out.

        What SH-10b asks of the whole model is read while it is open.
        """
        scales = list(self._amounts.context_scales)
        if not scales:
            return None
        with one_booted_model():
            if splits_numbers(self.subject.tokens):
                last_digit_residuals(self.subject, **self._last_digits())
            return in_context_table(self.subject, scales=scales, **self._runs(self.subject))

    # Greater-than bias

    def _bias(self, subject: Any, head: NamedHead | None, source: str, **changes: str) -> Measurement:
        chosen = self._runs(subject) if source == "features" else None
        read = head or leader_by_score(subject)
        amounts = {"draws": self._profile.bootstrap_draws, "vectors": chosen}
        return greater_than_table(subject, head=list(read.pair), source=source, **amounts, **changes)

    def bias_of_the_head(self) -> Finding:
        """The greater-than bias of the head's OV circuit (SH-18)."""

        def measured(subject: Any = None, **changes: str) -> Measurement:
            return self._bias(subject or self.subject, None, "head", **changes)

        table = measured()
        return Finding(
            table,
            {
                "shuffled order": lambda: measured(order="shuffled"),
                "untrained weights": lambda: measured(weights="untrained"),
                "planted counter": lambda: measured(self._planted()),
                "planted counter without the bias": lambda: measured(self._planted(greater_than=False)),
            },
            false={"the values of each task in a random order": partial(known_bias.values_in_another_order, table)},
            oracles={"logits that rise with the value": lambda: known_bias.rising_logits(table, _seeded())},
        )

    def bias_of_the_features(self) -> Finding:
        """The greater-than bias of the mod-10 features (SH-18); the control is the planted head, which has one."""

        def measured(subject: Any = None) -> Measurement:
            return self._bias(subject or self.subject, None, "features")

        table = measured()
        return Finding(
            table,
            {
                "planted counter": lambda: measured(self._planted()),
                "planted head": lambda: self._bias(self._planted(), None, "head"),
            },
            false={
                "logits dealt out anew, and a preference for greater values as strong as they are": lambda generator: (
                    known_bias.features_dealt(table, generator, slope=1.0)
                )
            },
            oracles={"each feature's logits dealt out anew": lambda: known_bias.features_dealt(table, _seeded())},
        )


def _derived(table: Measurement, quantity: str, stated: dict[str, Any], unit: str = "share of tokens") -> Measurement:
    interval = Interval(stated["low"], stated["high"], LEVEL, stated["method"])
    n, redrawn = int(stated.get("n", table.n)), stated.get("redrawn", {})
    return table.derive(quantity, stated["value"], interval=interval, unit=unit, n=n, redrawn=redrawn)


def _shares(table: Measurement, quantity: str, stated: dict[str, Any]) -> Measurement:
    method = "bootstrap over the tokens of a pair, or exact binomial over pairs where wider"
    return _derived(table, quantity, {**stated, "method": method}, "share of pairs")


def _seeded() -> np.random.Generator:
    return np.random.default_rng(0)


def _answers(found: Measurement) -> Measurement:
    """What a probe that knew all answers would give: the control of a claim that something is not got right."""
    value = float(found.n)
    return replace(found, value=value, interval=Interval(value, value, LEVEL, "by construction"))


def counting(subject: Any) -> Counting:
    """How the subject's leading head counts."""
    return Counting(subject)


def not_counted_on(subject: Any) -> tuple[str, Measurement] | None:
    """Why nothing follows from numerals that `subject` does not count on: it hardly counts on other pairs; else None.

    Most of the swapped pairs left out of learning must be counted on (SH-20): the interval's low end above a half.
    """
    measured = counting(subject).swapped_pairs("counted").measurement
    interval = measured.interval
    if interval is not None and interval.low > 0.5:
        return None
    return f"of the other pairs the head counts on {measured.value:.2f}, not shown to be most of them", measured
