"""What every test here starts from: no garbage is looked for among what is imported, one store of planted figures."""

import gc
import os

import pytest
from circuit_claims.keeping.store import Store


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_garbage():
    """Set what is alive apart from the garbage collector's work, at the start of each file.

    A sweep collects garbage after each cell, to give gigabytes back. Beside the objects of a whole session (a thousand
    modules, three thousand tests) that takes a second, for cells that take hundredths.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory) -> Store:
    """Figures of planted subjects, measured once a session, by whichever worker asks first."""
    base = tmp_path_factory.getbasetemp()
    # Under xdist each worker's folder lies in the session's.
    return Store((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "planted figures")
