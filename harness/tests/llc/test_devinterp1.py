"""devinterp 1.3.2 as an oracle: the version that still takes any loss."""

import warnings

import numpy as np
import pytest
import torch
from circuit_claims.llc import exact
from circuit_claims.llc.losses import NextToken
from circuit_claims.llc.refined import refined_llc
from circuit_claims.llc.sgld import RMSProp
from circuit_claims.llc.slices import Piece, weight_slice

from tests.llc import oracles

pytestmark = oracles.needs("1.3.2")
DATA = torch.randint(0, 31, (32, 12), generator=torch.Generator().manual_seed(4))


def reference(model, loader, evaluate, *, init_loss, masks=None, method="sgld", kwargs=None, **settings):
    """devinterp 1.3.2's values of the chains."""
    from devinterp.optim.sgmcmc import SGMCMC
    from devinterp.slt.sampler import estimate_learning_coeff_with_summary

    if masks is not None:
        masks = {n: masks.get(n, torch.zeros(p.shape, dtype=torch.bool)) for n, p in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = estimate_learning_coeff_with_summary(
            model, loader=loader, evaluate=evaluate, sampling_method=getattr(SGMCMC, method), optimizer_kwargs=kwargs,
            init_loss=init_loss, verbose=False, optimize_over_per_model_param=masks, seed=11, **settings)  # fmt: skip
    return np.array([found[f"llc-chain/{chain}"] for chain in range(settings["num_chains"])])


@pytest.mark.parametrize(("method", "rmsprop"), [("sgld", None), ("rmsprop_sgld", RMSProp(alpha=0.99, eps=0.1))])
def test_equal_on_a_toy_with_a_loss_of_its_own(method, rmsprop):
    """Linear regression, squared loss, full batch, 48 chains of 100 draws; false-alarm probability 6e-5 (|z| < 4)."""
    source = torch.Generator().manual_seed(6)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    inputs = torch.randn(32, 3, generator=source)
    outputs = model(inputs).detach() + 0.3 * torch.randn(32, 2, generator=source)
    with torch.no_grad():
        model[0].weight.copy_(torch.linalg.lstsq(inputs, outputs).solution.T)

    def squared(forward, batch):
        return ((forward(batch[0]) - batch[1]) ** 2).sum(1) / 2

    start = float(squared(model, (inputs, outputs)).mean().detach())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(inputs, outputs), batch_size=32)
    kwargs, run = {"lr": 2e-3, "nbeta": 40.0, "localization": 10.0}, {"num_chains": 48, "num_draws": 100}
    theirs = reference(model, loader, lambda m, batch: squared(m, batch).mean(), init_loss=start, method=method,
                       kwargs=kwargs, **run)  # fmt: skip
    mine = refined_llc(model, (inputs, outputs), weights=[Piece("0.weight")], loss=squared, n_beta=40.0, gamma=10.0,
                       eps=2e-3, rmsprop=rmsprop, mala_every=0, control_draws=0, **run)  # fmt: skip
    oracles.check_equal_means(mine.per_chain, theirs)
    if rmsprop is None:
        h = np.repeat(torch.linalg.eigvalsh(inputs.T @ inputs / 32).numpy(), 2)
        value = exact.quadratic_sgld(h, n_beta=40.0, gamma=10.0, eps=2e-3, num_draws=100)
        assert abs(theirs.mean() - value) < 4.5 * theirs.std(ddof=1) / np.sqrt(48)


@pytest.mark.parametrize("weights", ["1:2", "0:1"])
def test_equal_on_a_small_attention_only_model(weights):
    """16 chains of 80 draws; false-alarm probability 6e-5 a case (|z| < 4). Its initial loss is that of all rows."""
    model, settings = oracles.trained_model(DATA), {"num_chains": 16, "num_draws": 80}
    loss = NextToken()
    start = float(loss(model, DATA).mean().detach())
    loader = torch.utils.data.DataLoader(
        DATA, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3))  # fmt: skip
    theirs = reference(model, loader, lambda m, batch: loss(m, batch).mean(), init_loss=start,
                       masks=oracles.masks_of(model, weight_slice(model, weights)),
                       kwargs={"lr": 1e-3, "nbeta": 30.0, "localization": 50.0}, **settings)  # fmt: skip
    mine = refined_llc(model, DATA, weights=weights, n_beta=30.0, gamma=50.0, eps=1e-3, batch_size=8, mala_every=0,
                       **settings)  # fmt: skip
    oracles.check_equal_means(mine.per_chain, theirs)
