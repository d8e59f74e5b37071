"""One thread for every test here, and the marker of tests that need the reference implementation."""

import pytest
import torch


def pytest_configure(config):
    config.addinivalue_line("markers", "devinterp: compares with devinterp, in a tox environment of its own")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
