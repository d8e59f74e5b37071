"""Clusterings of eight short curves, in tslearn's own Python: to compile it takes each worker a minute."""

import numba
import pytest


@pytest.fixture(scope="session", autouse=True)
def clusterings_are_interpreted():
    """Import tslearn while numba compiles nothing. The harness's own compiled kernels are left as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        import tslearn.clustering  # noqa: F401
