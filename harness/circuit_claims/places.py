"""Where the data that ships with the harness lies: in a clone beside `harness/`, in an installed package inside it."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[1]


def shipped(folder: str, *below: str) -> Path:
    """Something that ships with the harness, by where it lies in a clone: in `claims` or in `fixtures`.

    >>> shipped("fixtures", "models.toml").is_file()
    True
    """
    inside = PACKAGE / folder
    return (inside if inside.is_dir() else CHECKOUT / folder).joinpath(*below)


FIXTURES = shipped("fixtures")
CLAIMS = shipped("claims")
