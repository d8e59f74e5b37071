"""What every test here starts from: no garbage is looked for among what is imported and collected."""

import gc

import pytest


@pytest.fixture(scope="module", autouse=True)
def nothing_old_is_garbage():
    """Set what is alive apart from the garbage collector's work, at the start of each file.

    A sweep collects garbage after each cell, to give gigabytes back. Beside the objects of a whole session (a thousand
    modules, three thousand tests) that takes a second, for cells that take hundredths.
    """
    gc.collect()
    gc.freeze()
