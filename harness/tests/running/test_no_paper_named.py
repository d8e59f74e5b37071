"""The general rooms know no paper: their sources name none, and import none."""

from __future__ import annotations

import re
from pathlib import Path

import circuit_claims
import pytest
from circuit_claims.judging.claims import load_papers
from circuit_claims.places import CLAIMS, FIXTURES

PACKAGE = Path(circuit_claims.__file__).parent
# The papers themselves, and the map of the package, which says where they stand.
APART = ("papers", "claims", "fixtures", "__init__.py")
SOURCES = [
    path
    for path in (*PACKAGE.rglob("*"), *FIXTURES.glob("*.toml"))
    if path.suffix in {".py", ".j2", ".css", ".toml"}
    if not (path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in APART)
]
PAPERS = load_papers(CLAIMS)


def forbidden() -> list[re.Pattern[str]]:
    """Ids of papers and of their claims, names of their runs, and what can only be meant by counting papers."""
    ids = "|".join(paper.id for paper in PAPERS)
    prefixes = "|".join(sorted({claim.id.partition("-")[0] for paper in PAPERS for claim in paper.claims}))
    runs = "|".join(re.findall(r'^name = "(.*)"', "".join(p.read_text() for p in CLAIMS.glob("*/runs.toml")), re.M))
    # `refined_llc` is a function of the llc room as well: a paper's folder, module or text is what must not be named.
    return [
        re.compile(rf"(papers|claims)[./]({ids})|[\"'/]({ids})[\"'/:]|successor_heads"),
        re.compile(rf"\b({prefixes})-\d"),
        re.compile(rf"\b({runs})\b"),
        re.compile(r"\bthe (first|second) paper\b(?!\.)|\b(both|the two) papers\b", re.I),
    ]


def names_in(text: str) -> list[str]:
    """What of a source names a paper. Citing an equation's source by its authors and year is no naming."""
    return [line.strip() for line in text.splitlines() if any(pattern.search(line) for pattern in forbidden())]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("from circuit_claims.papers.refined_llc.runs import live", True),
        ('command = "pytest claims/refined_llc --claims-recorded DIR"', True),
        ("import circuit_claims.papers.successor_heads", True),
        ('"""as SH-10b asks"""', True),
        ("the authors of the second paper report them", True),
        ('if subject == "own-run":', True),
        ("def refined_llc(weights):", False),
        ("the effective OV circuit (Gould et al. 2024, eq. 2)", False),
        ("the first paper.toml beside a second one", False),
    ],
)
def test_what_counts_as_naming_a_paper(line, named):
    assert bool(names_in(line)) is named


def test_the_general_rooms_name_no_paper():
    assert len(SOURCES) > 60
    named = {str(path): lines for path in SOURCES if (lines := names_in(path.read_text(encoding="utf-8")))}
    assert not named
