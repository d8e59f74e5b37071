"""What the report's tests share: one sample run, collected and rendered once."""

from __future__ import annotations

import html5lib
import pytest
from circuit_claims.report.collect import Collected, collect
from circuit_claims.report.render import render_index

from tests.report.sample import sample_events


@pytest.fixture(scope="session")
def collected() -> Collected:
    """The synthetic sample run."""
    return collect(sample_events())


@pytest.fixture(scope="session")
def page(collected: Collected) -> str:
    """Its page."""
    return render_index(collected)


@pytest.fixture(scope="session")
def tree(page: str):
    """Its page as a browser would parse it; names carry no namespace."""
    return html5lib.parse(page, treebuilder="etree", namespaceHTMLElements=False)
