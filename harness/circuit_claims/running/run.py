"""One run of the claims: which claims, on which subjects, with which settings, and where its report goes."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from circuit_claims.errors import InputError
from circuit_claims.judging.claims import Claim
from circuit_claims.judging.verdicts import tally
from circuit_claims.keeping.events import EventStream
from circuit_claims.keeping.measure import Context
from circuit_claims.keeping.profiles import Profile
from circuit_claims.keeping.store import Store
from circuit_claims.running.contributions import function_of
from circuit_claims.running.options import refuse_missing, spelled
from circuit_claims.running.papers import Papers
from circuit_claims.running.selection import Selection, parse_subjects

RUN = pytest.StashKey["Run"]()


@dataclass(frozen=True)
class Run:
    """Everything a run of `pytest claims/` knows before it measures. `options` are those that the papers bring.

    >>> def open_run(row: RunRow, run: Run) -> MyRun:  # `open` of a paper's `SubjectKind`
    ...     return MyRun(row.name, run.options["folder"], run.context)
    """

    papers: Papers
    selection: Selection
    profile: Profile
    run_dir: Path
    store_dir: Path
    models_dir: Path | None
    texts_dir: Path | None
    options: Mapping[str, Any]
    device_option: str
    offline: bool
    remeasure: bool
    allow_tf32: bool
    tell: Callable[[str], None]

    @classmethod
    def from_options(cls, option: Any, papers: Papers, run_dir: Path, tell: Callable[[str], None]) -> Run:
        """Settle what `papers` and the options ask; raises with a message for the user where something cannot be used.

        `tell` says a line to the user while a test runs.
        """
        registry, runs = papers.models, papers.runs
        default_rows = sorted((row for row in registry.values() if row.default), key=lambda row: row.parameters)
        defaults = tuple(row.name for row in default_rows)  # smallest first: the quick profile asks the first only
        profile = papers.profile(option.profile)
        wanted = parse_subjects(option.subjects, registry, defaults, runs, papers.own_subjects)
        names = frozenset(registry) | frozenset(runs)
        return cls(
            papers=papers,
            selection=Selection(wanted, defaults, profile, names, frozenset(runs), papers.typed, option.short),
            profile=profile,
            run_dir=run_dir,
            store_dir=_store_folder(option, papers.typed),
            models_dir=refuse_missing(spelled("models_dir", option), option.models_dir),
            texts_dir=refuse_missing(spelled("texts", option), option.texts),
            options=_checked(option, papers),
            device_option=option.device,
            offline=option.offline,
            remeasure=option.remeasure,
            allow_tf32=option.allow_tf32,
            tell=tell,
        )

    @cached_property
    def claims(self) -> dict[str, Claim]:
        """All claims of all papers by id."""
        return self.papers.claims

    @cached_property
    def stream(self) -> EventStream:
        """This run's event stream."""
        return EventStream(self.run_dir)

    @cached_property
    def device(self) -> str:
        """The device this process measures on (torch is imported here, not before)."""
        from circuit_claims.running.machine import choose_device

        worker, typed = os.environ.get("PYTEST_XDIST_WORKER"), self.spelled("device")
        return choose_device(self.device_option, worker=worker, tf32=self.allow_tf32, typed=typed)

    def spelled(self, plain: str) -> str:
        """How an option is typed in this session."""
        return spelled(plain, self.selection)

    @cached_property
    def context(self) -> Context:
        """The store, the device and the memo that measure functions use."""
        store = Store(self.store_dir, on_bad=self._bad_entry)
        return Context(store, self.device, self.remeasure, self.profile, tell=self.tell)

    def _bad_entry(self, path: Path, reason: str) -> None:
        self.stream.write("store", kind="set aside", path=path.name, reason=reason)

    def introduce(self, subject: Any) -> None:
        """Write the subject's card to the event stream, once a process."""
        if subject.name not in self._introduced:
            self._introduced.add(subject.name)
            self.stream.write("subject", name=subject.name, card={**subject.card(), **self.papers.card_lines(subject)})

    @cached_property
    def _introduced(self) -> set[str]:
        return set()

    def asks(self, claim: Claim, subject: str) -> bool:
        """Whether `claim` is reported for `subject` in this run."""
        return any(choice.subject == subject for choice in self.selection.choices(claim))

    def label(self, subject: str) -> str:
        """The subject's name in the report: the registry's, or the last part of a path."""
        return self.selection.label(subject)

    def close(self) -> Sequence[str]:
        """Write the report; the lines to show: counts per scope, where the report is, or why there is none."""
        from circuit_claims.report import write_report

        try:
            paths = write_report(self.run_dir, self.store_dir / "figures", self.papers.figures())
        except OSError as error:
            return [f"no report was written: {error}", f"Type: claims report {self.run_dir}"]
        return [*headline(paths.results), f"report: {paths.index}"]


def headline(results: Path) -> Sequence[str]:
    """One line per scope from `results.json`: counts in the words of the report, worst news first."""
    verdicts = json.loads(Path(results).read_text(encoding="utf-8"))["verdicts"]
    counts = tally([(verdict["scope"], verdict["outcome"]) for verdict in verdicts])
    return [f"{scope}: {count.words()}" for scope, count in counts.items()]


def _checked(option: Any, papers: Papers) -> dict[str, Any]:
    """What was typed for the options that papers bring, by name, each checked as its paper says; None for none."""
    found: dict[str, Any] = {}
    for paper, one in papers.options:
        given = getattr(option, one.plain, one.default)
        if given != one.default and one.check is not None:
            given = function_of(paper, one.check)(spelled(one.plain, option), given)
        found[one.name] = given
    return found


def default_store() -> Path:
    """Where measurements are kept unless `--store` says otherwise: `CIRCUIT_CLAIMS_STORE`, or the user's cache."""
    from platformdirs import user_cache_path

    given = os.environ.get("CIRCUIT_CLAIMS_STORE")
    return Path(given) if given else user_cache_path("circuit-claims") / "store"


def _store_folder(option: Any, typed: str) -> Path:
    path = Path(option.store) if option.store else default_store()
    if path.exists() and not path.is_dir():
        name = spelled("store", option)
        where = name if option.store else "CIRCUIT_CLAIMS_STORE"
        raise InputError(
            f"{where} {path}\n  expected  a folder, there or to be made\n  found     a file\n"
            f"  Type: pytest {typed} {name} ANOTHER_FOLDER"
        )
    return path


def quoted(node: str) -> str:
    """A test's node id for a shell: in double quotes as the papers' tests are read, or whatever strange names need."""
    return f'"{node}"' if re.fullmatch(r"[\w ./:@=,()\[\]+-]+", node) else shlex.quote(node)
