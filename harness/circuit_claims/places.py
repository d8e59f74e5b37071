"""Where the data that ships with the harness lies: in a clone beside `harness/`, in an installed package inside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[1]


def _data(name: str) -> Path:
    inside = PACKAGE / name
    return inside if inside.is_dir() else CHECKOUT / name


FIXTURES = _data("fixtures")
CLAIMS = _data("claims")
