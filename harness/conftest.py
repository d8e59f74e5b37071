"""What holds for all of the harness's own tests: no deadline an example, and no benchmark that was not asked for."""

import pytest
from hypothesis import settings

settings.register_profile("harness", deadline=None)
settings.load_profile("harness")


# Before pytest-benchmark reads its options; a flag in addopts would stop a run without that plugin.
@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "benchmark_disable") and not config.option.benchmark_enable:
        config.option.benchmark_disable = True
