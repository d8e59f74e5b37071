"""Which subjects each claim is asked of: the claim's own, and the ones a run was started for. Pure and light."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from circuit_claims.errors import ClaimsError
from circuit_claims.judging.claims import Claim
from circuit_claims.keeping.profiles import Profile
from circuit_claims.running.options import spelled


class SelectionError(ClaimsError, ValueError):
    """A subject nobody knows; the text lists the near ones and what to type."""


@dataclass(frozen=True)
class Choice:
    """One subject of one claim: `asked` is False where the run was started without it, and `reason` says so."""

    subject: str
    asked: bool
    fetch: bool
    reason: str = ""
    command: str = ""


@dataclass(frozen=True)
class Selection:
    """What `--subjects` and `--profile` ask for. `wanted` is empty when the option was not given; `names` are all
    models of the registry and all runs, `runs` those that are no models, which only claims that list them ask. `typed`
    is what follows `pytest` to run the claims, `short` are the options that this session knows by their short names."""

    wanted: tuple[str, ...]
    defaults: tuple[str, ...]
    profile: Profile
    names: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    typed: str = "claims/"
    short: frozenset[str] = frozenset()

    def label(self, subject: str) -> str:
        """The subject's name in the report: see `label_of`."""
        return label_of(subject, self.names)

    def choices(self, claim: Claim) -> tuple[Choice, ...]:
        """Every subject `claim` is reported for, first those it lists, so that none drops out silently."""
        asked = self.wanted or self._quick_or_all_defaults()
        models = [name for name in asked if name not in self.runs]
        others = (*models, *(() if self.wanted else self.defaults)) if claim.others else ()
        names = dict.fromkeys([*claim.listed, *others])
        return tuple(self._choice(claim, name, asked) for name in names)

    def _quick_or_all_defaults(self) -> tuple[str, ...]:
        return self.defaults[: self.profile.default_subjects]

    def _choice(self, claim: Claim, name: str, asked: Sequence[str]) -> Choice:
        if name in asked:
            return Choice(name, asked=True, fetch=True)
        if self.wanted:
            option = spelled("subjects", self)
            command = f"pytest {self.typed} {option} {name}"
            return Choice(name, False, False, f"not among {option} {','.join(self.wanted)}", command)
        if name in self.defaults:
            reason = f"the {self.profile.name} profile asks {', '.join(asked)} only"
            return Choice(name, False, False, reason, f"pytest {self.typed} {spelled('profile', self)} standard")
        return Choice(name, asked=True, fetch=False)


def label_of(subject: str, names: Collection[str]) -> str:
    """The subject's name in the report: the registry's, or the last part of a path.

    A path never gets a name of the registry (`names`): whatever lies there must not count as the paper's own model.
    """
    if subject in names:
        return subject
    last = Path(subject).resolve().name
    return f"{last} (local)" if last in names else last


def parse_subjects(
    text: str,
    registry: Mapping[str, Any],
    defaults: Sequence[str],
    runs: Mapping[str, Any] = MappingProxyType({}),
    own: Collection[str] = (),
) -> tuple[str, ...]:
    """The subjects named by `--subjects`: models, runs, paths, `default`, `paper`, `runs` or `all`, split at commas.

    `own` are the subjects on which the claims of some paper are reproduced: `paper` asks those with weights.
    Raises `SelectionError` for a name that is none of these, and for two subjects the report could not tell apart.
    """
    known = {**registry, **runs}
    paper = [name for name, row in known.items() if name in own and getattr(row, "format", "") != "tokenizer"]
    weighty = [name for name, row in registry.items() if row.format != "tokenizer"]
    groups: dict[str, Sequence[str]] = {"default": defaults, "paper": paper, "runs": list(runs), "all": weighty}
    names: list[str] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word in groups:
            names += groups[word]
        elif word in known or Path(word).exists():
            names.append(word)
        else:
            raise SelectionError(_unknown(word, known))
    wanted = tuple(dict.fromkeys(names))
    _refuse_doubles(wanted, known)
    return wanted


def _refuse_doubles(wanted: Sequence[str], registry: Mapping[str, Any]) -> None:
    seen: dict[str, str] = {}
    for subject in wanted:
        label = label_of(subject, registry)
        if label in seen:
            raise SelectionError(
                "--subjects: two subjects would have one name in the report\n  expected  a name of its own for each\n"
                f"  found     {seen[label]} and {subject}, both called {label}\n  Rename one of them, and run again."
            )
        seen[label] = subject


def _unknown(word: str, registry: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, registry, n=3, cutoff=0.5)
    hint = f"  nearest   {', '.join(near)}\n" if near else ""
    return (
        f"unknown subject {word!r}\n  expected  a registry name, a path to a GGUF file or Hugging Face folder, "
        f"or one of default, paper, runs, all\n{hint}  Type: claims list --subjects"
    )
