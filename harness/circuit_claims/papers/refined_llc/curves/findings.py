"""What the claims on refined coefficients are judged on: tables of recorded cells, and each quantity's controls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import FEWEST_CLUSTERS, Finding, Measurement, TextUse, kept, one_at_a_time
from circuit_claims.papers.refined_llc.curves import known
from circuit_claims.papers.refined_llc.curves import tables as ct
from circuit_claims.papers.refined_llc.curves.clustering import (
    CLUSTERINGS,
    FEWER,
    clustering_agreement,
    other_types,
)
from circuit_claims.papers.refined_llc.curves.known import CALIBRATION
from circuit_claims.papers.refined_llc.curves.planted import TYPES, planted_counts, planted_table
from circuit_claims.papers.refined_llc.curves.roles import (
    NEXT_TOKEN,
    REFERENCE,
    STANDARD,
    both_texts,
    record_command,
    text_for,
    use_of,
    words_for,
)

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations
    from circuit_claims.papers.refined_llc.recording.cells import Cell, CellTable
    from circuit_claims.papers.refined_llc.recording.compare import CellComparison
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

SIMPLE = ("induction", "bracket")
NO_LOSS = "the sampler without the loss (n_beta = 0)"
CURVATURE = "the Hessian's trace, times n_beta / (2 gamma)"
INSTEAD = (NO_LOSS, CURVATURE)
APART = 1.5  # typical ratio of the texts that are planted as different
FIRST_STAGE = 0.79  # of the held-out loss's whole fall, where the published run's first stage ends
FEWEST = 5  # checkpoints that a peak can be looked for among
_OPENED: dict[tuple[Path, str], Coefficients | AssertionError] = {}


@dataclass(frozen=True)
class Coefficients:
    """A live run's recorded cells, with those that this machine measured again (`live`: it measured all of them).

    `typed` is the same run under other thresholds of head types, where a claim is tried under them.
    """

    run: LiveRun
    cells: CellTable
    again: tuple[CellComparison, ...]
    live: bool = False
    typed: LiveRun | None = None

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The type of each head at the end of training."""
        return (self.typed or self.run).head_types()

    def retyped(self) -> dict[str, Coefficients]:
        """The same under other thresholds of head types that were thought of, by a name for a table."""
        return {name: replace(self, typed=run) for name, run in self.run.other_types().items()}

    def text_use(self, *roles: str) -> TextUse:
        """How the report names the texts that serve as `roles`, and whether one of them only stands in."""
        used = []
        for role in roles:
            facts = self.last(role).facts
            where = f"of Python {facts['recorded'].get('python', 'of the recording')}"
            used.append(use_of(self.run, role, [str(facts["text"])], where))
        return both_texts(*used)

    def data_texts(self) -> TextUse:
        """The data sets that all weights were sampled on; they stand in where none is more than Python's own."""
        found = self.cells.select(checkpoint=str(self.run.steps[-1]), weights="all", loss=NEXT_TOKEN, setting="paper")
        names = sorted(key.text for key in found)
        return TextUse(words_for(names), stand_in=set(names) <= set(STANDARD))

    @property
    def recorded_texts(self) -> list[str]:
        """Texts on which every head was recorded at the end of training, under the paper's setting."""
        return self.texts([str(self.run.steps[-1])], NEXT_TOKEN, "paper")

    @property
    def draws(self) -> int:
        """How often an uncertainty is drawn in this profile."""
        return self.run.context.profile.bootstrap_draws

    def generator(self) -> np.random.Generator:
        """Fresh random numbers, the same for each quantity."""
        return np.random.default_rng(self.run.seed)

    def layer(self, layer: int, *kinds: str) -> list[str]:
        """Heads of a layer that are of one of these kinds (all of them where none is named)."""
        return [head for head, kind in self.types.items() if head[0] == str(layer) and (not kinds or kind in kinds)]

    def texts(self, steps: Sequence[str], loss: str, setting: str, heads: Collection[str] = ()) -> list[str]:
        """Texts on which these heads (every one, unless named) were recorded at all these checkpoints."""
        names = dict.fromkeys(key.text for key in self.cells.select(loss=loss, setting=setting))
        return [name for name in names if all(self._whole(name, step, loss, setting, heads) for step in steps)]

    def _whole(self, text: str, step: str, loss: str, setting: str, heads: Collection[str]) -> bool:
        found = self.cells.select(text=text, checkpoint=step, loss=loss, setting=setting)
        return set(heads or self.types) <= {key.weights for key in found}

    def recorded_steps(self, role: str, heads: Collection[str] = (), loss: str = NEXT_TOKEN) -> list[str]:
        """Trained checkpoints at which these heads were recorded on the text that serves as `role` at the end.

        Raises `RunNotAvailable` where they were not even recorded at the end.
        """
        steps = [str(step) for step in self.run.steps if step > 0]
        text = self._text(role, "", steps[-1:], loss, "paper", heads)
        return [step for step in steps if self._whole(text, step, loss, "paper", heads)]

    def table(
        self,
        role: str,
        checkpoints: Sequence[str] | None = None,
        *,
        loss: str = NEXT_TOKEN,
        setting: str = "paper",
        text: str = "",
        heads: Sequence[str] = (),
        instead: str = "",
    ) -> ct.HeadTable:
        """Coefficients on the text that serves as "training mixture" or "code" (or on `text`), of all heads or `heads`.

        `checkpoints` defaults to all trained ones; `instead` (of `INSTEAD`) puts what the same cells say without the
        instrument in the coefficient's place, without an error of its own. Raises `RunNotAvailable` where they were not
        recorded.
        """
        from circuit_claims.papers.refined_llc.recording.cells import CellKey

        names = list(checkpoints or (str(step) for step in self.run.steps if step > 0))
        chosen, heads = self._text(role, text, names, loss, setting, heads), tuple(heads or self.types)
        grid = [[self.cells.cells[CellKey(name, head, chosen, loss, setting)] for head in heads] for name in names]
        facts = {"text": chosen, "role": role, "loss": loss, "setting": setting}
        return ct.HeadTable(
            steps=tuple(0 if name == "untrained" else int(name) for name in names),
            heads=heads,
            mean=np.array([[self._value(cell, instead) for cell in row] for row in grid]),
            error=np.array([[0.0 if instead else cell.error for cell in row] for row in grid]),
            sound=np.array([[cell.status == "complete" for cell in row] for row in grid]),
            facts={**facts, **self.provenance(grid[-1][0].origin)},
            chains=min(len(cell.per_chain) for row in grid for cell in row),
        )

    def _value(self, cell: Cell, instead: str) -> float:
        if instead == NO_LOSS:
            return cell.numbers["control_llc"]
        if instead == CURVATURE:
            chosen = self.cells.settings[cell.key.setting]
            return chosen.n_beta / (2 * chosen.gamma) * cell.numbers["hessian_trace"]
        return cell.mean

    def _text(
        self, role: str, text: str, names: Sequence[str], loss: str, setting: str, heads: Collection[str] = ()
    ) -> str:
        from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

        at_hand = self.texts(names, loss, setting, heads)
        try:
            return text if text in at_hand else text_for(role, [] if text else at_hand)
        except LookupError:
            reason = f"coefficients on {text or role} ({loss}, {setting} setting) were not recorded at all checkpoints"
            given = "" if loss == NEXT_TOKEN else "with the one-layer run in one_layer beside it: "
            raise RunNotAvailable(self.run.name, reason, given + record_command(self.run, "--texts FOLDER")) from None

    def last(self, role: str, **how: Any) -> ct.HeadTable:
        """The coefficients at the end of training."""
        return self.table(role, [str(self.run.steps[-1])], **how)

    def against_reference(self) -> ct.HeadTable:
        """Those under the one-layer reference loss, at the checkpoints where every head was recorded under it.

        Raises `RunNotAvailable` where these are fewer than `FEWEST` of the run's or the last is not among them.
        """
        whole = self.recorded_steps("training mixture", loss=REFERENCE)
        return self.table("training mixture", whole if len(whole) >= FEWEST else None, loss=REFERENCE)

    def untrained(self, role: str) -> ct.HeadTable:
        """Those of the run's initialisation."""
        return self.table(role, ["untrained"])

    def provenance(self, origin: int) -> dict[str, Any]:
        """On what machine, when and at which commit cells were recorded, and how many were compared with live ones."""
        where = dict(self.cells.recordings[origin])
        again = len(self.cells.cells) if self.live else len(self.again)
        return {"origin": "live" if self.live else "recorded", "recorded": where, "measured again here": again}

    def by_kind(self, **how: Any) -> Finding:
        """Whether multigram heads of layer 1 have a higher wrLLC than simple ones at the end (RL-10)."""
        groups = {"multigram": self.layer(1, "multigram"), "simple": self.layer(1, *SIMPLE)}
        return self._groups(groups, "training mixture", **how)

    def on_code(self, **how: Any) -> Finding:
        """Whether the induction heads lead layer 1 on code (RL-20)."""
        induction = self.layer(1, "induction")
        others = [head for head in self.layer(1) if head not in induction]
        return self._groups({"induction": induction, "others": others}, "code", **how)

    def _groups(self, groups: Mapping[str, Sequence[str]], role: str, **how: Any) -> Finding:
        def order(table: ct.HeadTable) -> Measurement:
            return ct.group_order(table, groups)

        table = self.last(role, **how)
        everybody = [head for heads in groups.values() for head in heads]
        return Finding(
            order(table),
            {"untrained model": lambda: order(self.untrained(role))},
            false={known.HEADS: lambda generator: order(known.shuffled_heads(table.of(everybody), generator))},
            oracles={known.LIFTED: lambda: order(known.lifted(table, groups))},
            without={name: partial(order, self.last(role, instead=name)) for name in self._instead(how)},
        )

    def _instead(self, how: Mapping[str, Any]) -> tuple[str, ...]:
        """What stands in the coefficient's place beside a verdict under the paper's setting."""
        return () if how else tuple(INSTEAD)

    def code_against_mixture(self) -> Finding:
        """Whether the induction heads' wdrLLC rises on code, by more than the other heads' (RL-20b)."""
        induction = self.layer(1, "induction")

        def rise(tables: Sequence[ct.HeadTable]) -> Measurement:
            return ct.rise_between_texts(tables[0], tables[1], induction)

        def both(**how: Any) -> list[ct.HeadTable]:
            return [self.last(role, **how).of(self.layer(1)) for role in ("code", "training mixture")]

        tables = both()
        start = [self.untrained(role).of(self.layer(1)) for role in ("code", "training mixture")]
        return Finding(
            rise(tables),
            {"untrained model": lambda: rise(start)},
            false={known.HEADS: lambda generator: rise(known.shuffled_together(tables, generator))},
            oracles={known.LIFTED: lambda: rise(known.lifted_rise(tables, induction))},
            without={name: partial(rise, both(instead=name)) for name in INSTEAD},
        )

    def separation(self) -> Finding:
        """How much farther apart the two induction heads are on code, among all pairs of the layer (RL-21)."""
        pair, layer = self.layer(1, "induction"), self.layer(1)

        def rank(tables: Sequence[ct.HeadTable], heads: Sequence[str] = pair, draws: int = self.draws) -> Measurement:
            return ct.separation_rank(tables[0], tables[1], heads, draws, self.generator())

        def both(**how: Any) -> list[ct.HeadTable]:
            return [self.last(role, **how).of(layer) for role in ("code", "training mixture")]

        def of_another(generator: np.random.Generator) -> Measurement:
            two = tuple(generator.permutation(layer)[:2].tolist())
            return rank(tables, two if len(pair) == 2 else pair, CALIBRATION)

        tables, start = both(), [self.untrained(role).of(layer) for role in ("code", "training mixture")]
        return Finding(
            rank(tables),
            {"untrained model": lambda: rank(start)},
            false={"any two heads of the layer": of_another},
            oracles={known.PARTED: lambda: rank(tables, known.most_parted(tables) if len(pair) == 2 else pair)},
            without={name: partial(rank, both(instead=name)) for name in INSTEAD},
        )

    def drift(self) -> Finding:
        """How much the heads' coefficients spread from the first checkpoint to the last (RL-13)."""

        def growth(table: ct.HeadTable, draws: int = self.draws) -> Measurement:
            return ct.spread_growth(table, draws, self.generator())

        table = self.table("training mixture")
        return Finding(
            growth(table),
            {
                "planted curves": lambda: growth(planted_table()),
                "planted curves, backwards": lambda: growth(known.backwards(planted_table())),
            },
            false={known.ENDS: lambda generator: growth(known.traded_ends(table, generator), CALIBRATION)},
            oracles={"planted curves of heads that drift apart": lambda: growth(planted_table())},
            without={name: partial(growth, self.table("training mixture", instead=name)) for name in INSTEAD},
        )

    def rise_by_layer(self) -> Finding:
        """Which layer's multigram heads make half of their rise first (RL-14)."""
        return self._layers(self._later(self.table("training mixture")), planted_table(), ct.half_rise)

    def rises(self) -> dict[str, Callable[[], Finding]]:
        """The same under other head types."""
        return {
            "as judged": self.rise_by_layer,
            **{name: one.rise_by_layer for name, one in self.retyped().items()},
        }

    def peaks(self) -> dict[str, Callable[[], Finding]]:
        """Which layer peaks first, under other head types."""
        return {
            "as judged": self.peak_by_layer,
            **{name: one.peak_by_layer for name, one in self.retyped().items()},
        }

    def peak_by_layer(self) -> Finding:
        """Which layer's multigram heads peak first against the one-layer reference (RL-30)."""
        return self._layers(self._later(self.against_reference()), planted_table(peaks=True), ct.peak)

    def _later(self, table: ct.HeadTable) -> ct.HeadTable:
        """The checkpoints from the end of the first stage on, told from the held-out loss; all where none is known.

        Before it a head has learned next to nothing, and its coefficient is that of weights at random.
        """
        columns = self.run.run.losses()
        tested = [(step, loss) for step, loss in zip(columns.get("step", ()), columns.get("test_loss", ()), strict=True)
                  if np.isfinite(loss)]  # fmt: skip
        if not tested:
            return table
        first, least = tested[0][1], min(loss for _, loss in tested)
        end = next(step for step, loss in tested if first - loss >= FIRST_STAGE * (first - least))
        kept = [step for step in table.steps if step >= end]
        return replace(table.at(*kept), facts={**table.facts, "the first stage ends at step": end}) if kept else table

    def _layers(self, table: ct.HeadTable, planted: ct.HeadTable, landmark: ct.StepOf) -> Finding:
        def order(given: ct.HeadTable, types: Mapping[str, str], draws: int = self.draws) -> Measurement:
            multigram = [head for head, kind in types.items() if kind == "multigram" and head in given.heads]
            groups = {f"layer {layer}": [head for head in multigram if head[0] == str(layer)] for layer in (0, 1)}
            return ct.landmark_order(given, groups, landmark, draws, self.generator())

        return Finding(
            order(table, self.types),
            {
                "planted curves": lambda: order(planted, TYPES),
                "planted curves, layers exchanged": lambda: order(known.layers_exchanged(planted), TYPES),
            },
            false={
                known.HEADS: lambda generator: order(known.shuffled_heads(table, generator), self.types, CALIBRATION)
            },
            oracles={"planted curves, layer 0 before layer 1": lambda: order(planted, TYPES)},
        )

    def clusters(self, method: str = "k-means, sklearn", **how: Any) -> Finding:
        """How well clusters of layer 1's curves agree with the head types (RL-11); see `clustering_agreement`."""
        table = self.table("training mixture").of(self.layer(1))

        def agreement(given: ct.HeadTable, types: Mapping[str, str]) -> Measurement:
            clustered = partial(clustering_agreement, **how)
            found = kept(self.run.context.store, clustered, given, types, method, self.generator())
            return replace(found, origin=given.origin)

        planted = planted_table().of([head for head in TYPES if head[0] == "1"])
        measured = agreement(table, self.types)
        return Finding(
            measured,
            {
                "planted curves": lambda: agreement(planted, TYPES),
                "planted curves, types of other heads": lambda: agreement(planted, known.types_of_others(TYPES)),
            },
            false={} if measured.status != "complete" else {
                known.HEADS: lambda generator: other_types(measured, generator.permutation(len(table.heads)))
            },
            oracles={"planted curves of each type": lambda: agreement(planted, TYPES)},
        )  # fmt: skip

    def clusterings(self) -> dict[str, Callable[[], Finding]]:
        """The agreement by every method the authors compared, the judged one first."""
        from circuit_claims.papers.refined_llc.curves.clustering import METHODS

        ways = [(method, scale) for method in METHODS for scale in (False, True)]
        return {
            f"{'as judged: ' if not index else ''}{method}{', scaled' if scale else ''}": partial(
                self.clusters, method, scale=scale, draws=FEWER if index else CLUSTERINGS
            )
            for index, (method, scale) in enumerate(ways)
        }

    def data_refined(self) -> Finding:
        """By what factor the drLLC of two texts differs (RL-22).

        Fewer texts than a claim may generalise over leave it undecided whatever they say: no oracle is made of them.
        """
        from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

        step = str(self.run.steps[-1])
        found = self.cells.select(checkpoint=step, weights="all", loss=NEXT_TOKEN, setting="paper")
        if len(found) < 2:
            reason = "coefficients of all weights were recorded on fewer than two data sets"
            raise RunNotAvailable(self.run.name, reason, record_command(self.run, "--texts FOLDER"))
        cells = sorted(found.values(), key=lambda cell: cell.key.text)
        values, names = np.stack([cell.per_chain for cell in cells]), [cell.key.text for cell in cells]
        measured = ct.text_ratio(values, names)
        spoilt = [cell.key.text for cell in cells if cell.status != "complete"]
        sound = len(spoilt) <= ct.SPOILT * len(cells)
        status = measured.status if sound else "partial"
        facts = {**measured.facts, "fail the gate": spoilt, **self.provenance(cells[0].origin)}
        return Finding(
            replace(measured, status=status, facts=facts, origin="live" if self.live else "recorded"),
            {"shuffled data labels": lambda: ct.text_ratio(known.chains_dealt_out(values, self.generator()), names)},
            false={known.TEXTS: lambda generator: ct.text_ratio(known.chains_dealt_out(values, generator), names)},
            oracles={} if len(names) < FEWEST_CLUSTERS else {
                f"these texts, their coefficients {APART:g} times apart": lambda: ct.text_ratio(
                    known.texts_apart(values, APART), names)
            },
        )  # fmt: skip

    def with_multigrams(self, counts: Mapping[str, int], *, within: bool = True, **how: Any) -> Finding:
        """How the final wrLLC goes with the number of multigrams, heads of a layer among themselves (RL-12)."""
        table = self.last("training mixture", **how)
        x = table.mean[0]
        y = np.array([float(counts[head]) for head in table.heads])
        layers = [head[0] for head in table.heads]

        def goes_with(coefficient: np.ndarray, count: np.ndarray, shuffles: int = self.draws) -> Measurement:
            apart = layers if within else None
            return ct.rank_correlation(coefficient, count, shuffles, self.generator(), apart)

        measured = goes_with(x, y)
        status = measured.status if table.status == "complete" else "partial"
        facts = {**table.facts, "counts": dict(counts), "estimates that fail the gate": int((~table.sound).sum())}
        by_number = planted_counts()
        planted = planted_table()
        numbers = np.array([float(by_number[head]) for head in planted.heads])

        def planted_correlation(count: np.ndarray) -> Measurement:
            apart = [head[0] for head in planted.heads]
            return ct.rank_correlation(planted.mean[-1], count, self.draws, self.generator(), apart)

        return Finding(
            replace(measured, facts=facts, status=status, origin=table.origin),
            {
                "planted curves": lambda: planted_correlation(numbers),
                "planted curves, counts against their order": lambda: planted_correlation(-numbers),
            },
            false={known.WITHIN: lambda generator: goes_with(x, known.shuffled_within(y, layers, generator), 1)},
            oracles={"counts in the order of the coefficients, within each layer": lambda: goes_with(
                x, known.in_the_order_of(x, y, layers))},
            without={name: partial(goes_with, self.last("training mixture", instead=name).mean[0], y)
                     for name in self._instead(how)},
        )  # fmt: skip

    def countings(self, ablations: PathAblations) -> dict[str, Callable[[], Finding]]:
        """The correlation under other ways to count multigrams, the judged one first."""
        from circuit_claims.papers.refined_llc.multigrams.labels import Rules

        def counted(rules: Rules, rule: str = "by_context", **how: Any) -> Callable[[], Finding]:
            return lambda: self.with_multigrams(ablations.counts(rules, rule), **how)

        return {
            "as judged: 0.3 nats, by context, within layers": counted(Rules()),
            "0.3 nats, by source": counted(Rules(), "by_source"),
            "1 nat, by context": counted(Rules(at_least=1.0)),
            "0.3 nats, the 2,000 strongest tokens of a head": counted(Rules(most=2_000)),
            "0.3 nats, the 200 strongest tokens of a head": counted(Rules(most=200)),
            "second setting of the sampler": counted(Rules(), setting="second"),
            "layers not held apart": counted(Rules(), within=False),
        }


def coefficients(run: LiveRun) -> Coefficients:
    """The coefficients of a run, a random few of its cells measured again first, once for this code and store.

    Raises `RunNotAvailable` where none were recorded, `CellsError` where they are damaged, `RecordedCellDiffers` where
    a cell measured again differs. With `--remeasure` all are measured, and how long that takes is said beforehand.
    """
    from circuit_claims.papers.refined_llc.recording import recorded as cr
    from circuit_claims.papers.refined_llc.recording.compare import RecordedCellDiffers

    place = cr.cells_folder(run), run.identity()["checkpoints"]
    if place not in _OPENED:
        try:
            _OPENED[place] = _opened(run)
        except RecordedCellDiffers as error:
            # For every claim: the next two cells drawn might agree, and what differs would be forgotten.
            _OPENED[place] = error
    found = _OPENED[place]
    if isinstance(found, AssertionError):
        raise found
    return found


def _opened(run: LiveRun) -> Coefficients:
    from circuit_claims.papers.refined_llc.recording import recorded as cr

    table, device = cr.open_cells(run), run.context.device
    if run.context.remeasure:
        return Coefficients(run, cr.remeasure(run, table, run.context.tell, device=device), (), live=True)
    with one_at_a_time(run.context.store, "comparison"):
        generator = np.random.default_rng(cr.comparison_seed(run, table))
        again = cr.measure_again(run, table, generator, device=device, store=run.context.store)
    return Coefficients(run, table, again)
