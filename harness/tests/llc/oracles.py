"""The reference implementation, where one is installed, and how to get one where none is."""

import contextlib
import importlib.metadata
import io
import math
import warnings

import numpy as np
import pytest
import torch
from circuit_claims.llc.losses import NextToken

TOX = {"2.0.1": "tox -e devinterp2", "1.3.2": "tox -e devinterp13"}


def installed() -> str | None:
    """The version of devinterp here, None where there is none."""
    try:
        return importlib.metadata.version("devinterp")
    except importlib.metadata.PackageNotFoundError:
        return None


def needs(version: str) -> pytest.MarkDecorator:
    """The mark of a test that runs only beside this version of devinterp."""
    found = installed()
    reason = (
        f"needs devinterp {version}, found {found or 'none'}; it has an environment of its own. Type: {TOX[version]}"
    )
    return pytest.mark.skipif(found != version, reason=reason)


def dataset(tokens: torch.Tensor):
    """Rows of tokens as devinterp 2 wants them."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": tokens.tolist()}).with_format("torch")


def llc(model, tokens, **options):
    """devinterp 2.0.1's estimate, quietly, without observables."""
    from devinterp.slt.llc import llc as reference

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        warnings.simplefilter("ignore")
        return reference(model, dataset(tokens), {}, device="cpu", **options)


def trained_model(tokens: torch.Tensor) -> torch.nn.Module:
    """The small model after 300 steps of Adam on these rows: near a minimum, where its heads matter."""
    from tests.toy.test_potentials import small_model

    model = small_model()
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        optimiser.zero_grad(set_to_none=True)
        NextToken()(model, tokens).mean().backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return model


def masks_of(model, where) -> dict:
    """Our slice as devinterp's parameter masks."""
    tensors, masks = dict(model.named_parameters()), {}
    for piece in where.pieces:
        mask = masks.setdefault(piece.name, torch.zeros(tensors[piece.name].shape, dtype=torch.bool))
        piece.of(mask).fill_(True)
    return masks


def check_equal_means(first, second, sigmas: float = 4.0) -> None:
    """Two samples of chain values have equal means (Welch); the false-alarm probability is that of `sigmas`."""
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    error = math.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second))
    assert error < 0.15 * abs(second.mean()), "the comparison has no power"
    assert abs(first.mean() - second.mean()) < sigmas * error, (first.mean(), second.mean(), error)
