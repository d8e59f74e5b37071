"""A claim under several settings: what was thought of, less what was not recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from circuit_claims.api import Finding


def settings_of(build: Mapping[str, Callable[[], Finding]]) -> dict[str, Finding]:
    """Findings under several settings by name, those that were not recorded left out.

    Raises the first one's `RunNotAvailable` where none was.
    """
    from circuit_claims.papers.refined_llc.runs.training_run import RunNotAvailable

    found, missing = {}, []
    for name, make in build.items():
        try:
            found[name] = make()
        except RunNotAvailable as error:
            missing.append(error)
    if missing and not found:
        raise missing[0]
    return found


def under_settings(make: Callable[..., Finding], texts: Sequence[str] = ()) -> dict[str, Finding]:
    """A finding under the paper's setting, the second one, and on each of `texts` that it was recorded on."""
    return settings_of(
        {
            "as judged: the paper's setting": make,
            "second setting, chosen by the gate": partial(make, setting="second"),
            **{f"on {text}": partial(make, text=text) for text in texts},
        }
    )
