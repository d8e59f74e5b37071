"""The whole model is booted once for measures made together, and for each where they are not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from circuit_claims.heads.whole_model import one_booted_model, whole_model
from circuit_claims.models import bridge


@pytest.fixture
def booted(monkeypatch) -> list[str]:
    names: list[str] = []

    def boot(model, device, text):
        names.append(model.digest)
        return object()

    monkeypatch.setattr(bridge, "boot", boot)
    return names


def subject(digest: str, device: str = "cpu") -> SimpleNamespace:
    return SimpleNamespace(model=SimpleNamespace(digest=digest), context=SimpleNamespace(device=device))


def test_it_is_booted_once_for_the_measures_of_one_block(booted):
    with one_booted_model():
        first = whole_model(subject("a"))
        assert whole_model(subject("a")) is first
        assert whole_model(subject("b")) is not first
        assert whole_model(subject("a", "cuda")) is not first
    assert booted == ["a", "b", "a"]


def test_nothing_is_kept_outside_or_afterwards(booted):
    one, another = whole_model(subject("a")), whole_model(subject("a"))
    assert one is not another
    with pytest.raises(RuntimeError):
        broken_off()
    whole_model(subject("a"))
    assert booted == ["a"] * 4


def broken_off() -> None:
    with one_booted_model():
        whole_model(subject("a"))
        raise RuntimeError
