"""What the claims on refined coefficients are judged on: tables of recorded cells, and each quantity's controls."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_claims.api import Finding, Measurement
from circuit_claims.papers.refined_llc.curves import tables as ct
from circuit_claims.papers.refined_llc.curves.clustering import CLUSTERINGS, FEWER, clustering_agreement
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
from circuit_claims.running.judge import TextUse

if TYPE_CHECKING:
    from circuit_claims.papers.refined_llc.curves.cells import CellTable
    from circuit_claims.papers.refined_llc.curves.compare import CellComparison
    from circuit_claims.papers.refined_llc.multigrams.findings import PathAblations
    from circuit_claims.papers.refined_llc.runs.live import LiveRun

SIMPLE = ("induction", "bracket")
FEWEST = 5  # checkpoints that a peak can be looked for among
_OPENED: dict[tuple[Path, str], Coefficients | AssertionError] = {}


@dataclass(frozen=True)
class Coefficients:
    """A live run's recorded cells, with those that this session measured again (`live`: it measured all of them).

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
    ) -> ct.HeadTable:
        """Coefficients on the text that serves as "training mixture" or "code" (or on `text`), of all heads or `heads`.

        `checkpoints` defaults to all trained ones. Raises `RunNotAvailable` where they were not recorded.
        """
        from circuit_claims.papers.refined_llc.curves.cells import CellKey

        names = list(checkpoints or (str(step) for step in self.run.steps if step > 0))
        chosen, heads = self._text(role, text, names, loss, setting, heads), tuple(heads or self.types)
        grid = [[self.cells.cells[CellKey(name, head, chosen, loss, setting)] for head in heads] for name in names]
        facts = {"text": chosen, "role": role, "loss": loss, "setting": setting}
        return ct.HeadTable(
            steps=tuple(0 if name == "untrained" else int(name) for name in names),
            heads=heads,
            mean=np.array([[cell.mean for cell in row] for row in grid]),
            error=np.array([[cell.error for cell in row] for row in grid]),
            sound=np.array([[cell.status == "complete" for cell in row] for row in grid]),
            facts={**facts, **self.provenance(grid[-1][0].origin)},
        )

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
        return {"origin": "live" if self.live else "recorded", "recorded": where, "measured again in this run": again}

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
        def order(table: ct.HeadTable, **more: Any) -> Measurement:
            return ct.group_order(table, groups, self.draws, self.generator(), **more)

        table = self.last(role, **how)
        return Finding(
            order(table),
            {
                # No head of an untrained model has a type: types are dealt out anew in each draw.
                "untrained model": lambda: order(self.untrained(role), shuffle=True),
                "shuffled head labels": lambda: order(table, shuffle=True),
            },
        )

    def code_against_mixture(self) -> Finding:
        """Whether the induction heads' wdrLLC is higher on code than on the training mixture (RL-20b)."""
        induction = self.layer(1, "induction")

        def order(tables: Mapping[str, ct.HeadTable], among: Sequence[str] = ()) -> Measurement:
            return ct.text_order(tables, induction, self.draws, self.generator(), among=among)

        roles = ("code", "training mixture")
        return Finding(
            order({role: self.last(role) for role in roles}),
            {"untrained model": lambda: order({role: self.untrained(role) for role in roles}, self.layer(1))},
        )

    def separation(self) -> Finding:
        """How much farther apart the two induction heads are on code (RL-21)."""
        pair = self.layer(1, "induction")

        def ratio(code: ct.HeadTable, mixture: ct.HeadTable) -> Measurement:
            return ct.separation_ratio(code, mixture, pair, self.draws, self.generator())

        return Finding(
            ratio(self.last("code"), self.last("training mixture")),
            {"untrained model": lambda: ratio(self.untrained("code"), self.untrained("training mixture"))},
        )

    def drift(self) -> Finding:
        """How much the heads' coefficients spread from the first checkpoint to the last (RL-13)."""

        def growth(table: ct.HeadTable, **more: Any) -> Measurement:
            return ct.spread_growth(table, self.draws, self.generator(), **more)

        table = self.table("training mixture")
        return Finding(
            growth(table),
            {
                "shuffled steps": lambda: growth(table, shuffle=True),
                "planted curves": lambda: growth(planted_table()),
            },
        )

    def rise_by_layer(self) -> Finding:
        """Which layer's multigram heads make half of their rise first (RL-14)."""
        return self._layers(self.table("training mixture"), planted_table(), ct.first_half_rise)

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
        return self._layers(self.against_reference(), planted_table(peaks=True), ct.peak)

    def _layers(self, table: ct.HeadTable, planted: ct.HeadTable, landmark: ct.StepOf) -> Finding:
        def order(given: ct.HeadTable, types: Mapping[str, str], **more: Any) -> Measurement:
            groups = {
                f"layer {layer}": [
                    head for head, kind in types.items() if head[0] == str(layer) and kind == "multigram"
                ]
                for layer in (0, 1)
            }
            return ct.landmark_order(given, groups, landmark, self.draws, self.generator(), **more)

        return Finding(
            order(table, self.types),
            {
                "shuffled steps": lambda: order(table, self.types, shuffle=True),
                "planted curves": lambda: order(planted, TYPES),
            },
        )

    def clusters(self, method: str = "k-means, sklearn", **how: Any) -> Finding:
        """How well clusters of layer 1's curves agree with the head types (RL-11); see `clustering_agreement`."""
        table = self.table("training mixture").of(self.layer(1))

        def agreement(given: ct.HeadTable, types: Mapping[str, str], **more: Any) -> Measurement:
            return clustering_agreement(given, types, method, self.generator(), **how, **more)

        planted = planted_table().of([head for head in TYPES if head[0] == "1"])
        return Finding(
            agreement(table, self.types),
            {
                "shuffled head labels": lambda: agreement(table, self.types, shuffle=True),
                "planted curves": lambda: agreement(planted, TYPES),
            },
        )

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
        """How much of the drLLC's variance lies between data sets (RL-22)."""
        from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

        step = str(self.run.steps[-1])
        found = self.cells.select(checkpoint=step, weights="all", loss=NEXT_TOKEN, setting="paper")
        if len(found) < 2:
            reason = "coefficients of all weights were recorded on fewer than two data sets"
            raise RunNotAvailable(self.run.name, reason, record_command(self.run, "--texts FOLDER"))
        cells = sorted(found.values(), key=lambda cell: cell.key.text)
        values, names = np.stack([cell.per_chain for cell in cells]), [cell.key.text for cell in cells]
        measured = ct.between_share(values, names)
        spoilt = [cell.key.text for cell in cells if cell.status != "complete"]
        status = "complete" if len(spoilt) <= ct.SPOILT * len(cells) else "partial"
        facts = {**measured.facts, "fail the gate": spoilt, **self.provenance(cells[0].origin)}
        return Finding(
            replace(measured, status=status, facts=facts, origin="live" if self.live else "recorded"),
            {"shuffled data labels": lambda: ct.between_share(values, names, self.generator())},
        )

    def with_multigrams(self, counts: Mapping[str, int], **how: Any) -> Finding:
        """How the final wrLLC goes with the number of multigrams, over all heads (RL-12)."""
        table = self.last("training mixture", **how)
        x = table.mean[0]
        y = np.array([float(counts[head]) for head in table.heads])
        planted, known = planted_table(), planted_counts()
        found = ct.rank_correlation(x, y, self.draws, self.generator())
        status = found.status if table.status == "complete" else "partial"
        facts = {**table.facts, "counts": dict(counts), "estimates that fail the gate": int((~table.sound).sum())}
        return Finding(
            replace(found, facts=facts, status=status, origin=table.origin),
            {
                "shuffled head labels": lambda: ct.shuffled_correlation(x, y, self.draws, self.generator()),
                "planted curves": lambda: ct.rank_correlation(
                    planted.mean[-1],
                    np.array([float(known[head]) for head in planted.heads]),
                    self.draws,
                    self.generator(),
                ),
            },
        )

    def countings(self, ablations: PathAblations) -> dict[str, Callable[[], Finding]]:
        """The correlation under other ways to count multigrams, the judged one first."""
        from circuit_claims.papers.refined_llc.multigrams.labels import Rules

        def counted(rules: Rules, rule: str = "by_context", **how: Any) -> Callable[[], Finding]:
            return lambda: self.with_multigrams(ablations.counts(rules, rule), **how)

        return {
            "as judged: 0.3 nats, by context": counted(Rules()),
            "0.3 nats, by source": counted(Rules(), "by_source"),
            "1 nat, by context": counted(Rules(at_least=1.0)),
            "0.3 nats, the 2,000 strongest tokens of a head": counted(Rules(most=2_000)),
            "0.3 nats, the 200 strongest tokens of a head": counted(Rules(most=200)),
            "second setting of the sampler": counted(Rules(), setting="second"),
        }


def coefficients(run: LiveRun) -> Coefficients:
    """The coefficients of a run, a random few of its cells measured again first, once a session.

    Raises `RunNotAvailable` where none were recorded, `CellsError` where they are damaged, `RecordedCellDiffers` where
    a cell measured again differs. With `--remeasure` all are measured, and how long that takes is said beforehand.
    """
    from circuit_claims.papers.refined_llc.curves import recorded as cr
    from circuit_claims.papers.refined_llc.curves.compare import RecordedCellDiffers

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
    from circuit_claims.papers.refined_llc.curves import recorded as cr

    table, device = cr.open_cells(run), run.context.device
    if run.context.remeasure:
        return Coefficients(run, cr.remeasure(run, table, run.context.tell, device=device), (), live=True)
    return Coefficients(run, table, cr.measure_again(run, table, np.random.default_rng(), device=device))
