"""What holds for all of the harness's own tests: their time, the cores they use, and no benchmark not asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).resolve().parent
TIMEOUT = 900.0
CORES = 2  # each worker imports torch: with more of them the imports cost what the cores gain

settings.register_profile("harness", deadline=None)
settings.load_profile("harness")


# Before pytest-xdist reads its options. A flag in addopts would stop a run without that plugin.
@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`pytest harness/` uses two cores, where pytest-xdist is there and nobody said how many."""
    option = config.option
    folders = [config.invocation_params.dir / word for word in config.args]
    whole = all(path.is_dir() and HERE in (path.resolve(), *path.resolve().parents) for path in folders)
    asked = getattr(option, "numprocesses", 0) is None and getattr(option, "tx", None) in (None, [])
    alone = hasattr(config, "workerinput") or option.usepdb or option.collectonly
    alone = alone or getattr(option, "benchmark_enable", False)
    if whole and asked and not alone:
        option.numprocesses = min(CORES, os.cpu_count() or 1)
        # The slow tests lie side by side in their files: who is done takes over from the other's rest.
        option.dist = "worksteal" if option.dist == "no" else option.dist
    if getattr(option, "numprocesses", None):
        # Workers share the cores already: threads of each would wait for those of the others.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


# Before pytest-timeout and pytest-benchmark read theirs.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A quarter of an hour a test, unless told otherwise; benchmarks are timed only with --benchmark-enable."""
    if config.pluginmanager.hasplugin("timeout") and config.option.timeout is None:
        config.option.timeout = None if os.environ.get("PYTEST_TIMEOUT") else TIMEOUT
    if hasattr(config.option, "benchmark_disable") and not config.option.benchmark_enable:
        config.option.benchmark_disable = True


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Without pytest-benchmark its tests are skipped, not broken."""
    if not pluginmanager.hasplugin("benchmark"):
        pluginmanager.register(WithoutBenchmark())


class WithoutBenchmark:
    """Stands in for pytest-benchmark's fixture."""

    @pytest.fixture
    def benchmark(self) -> None:
        """Skip: there is nothing to time with."""
        pytest.skip("needs pytest-benchmark: pip install -e '.[tests]'")
