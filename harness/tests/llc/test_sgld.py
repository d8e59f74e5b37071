"""The sampler against exact values, and what must hold of any run.

Each test of a mean compares it with the exact value by the spread over independent chains: |z| < 4.5, a false alarm
in about 1 of 70,000 for 100 chains or more (Student, two-sided); with a dozen such comparisons, 1 of 5,000 runs of
this file. Seeds are fixed, so an alarm here is an alarm everywhere.
"""

import math

import numpy as np
import pytest
import torch
from circuit_claims.llc import exact
from circuit_claims.llc.sample import sample_llc
from circuit_claims.llc.sgld import RMSProp, SGLDSettings, reflect

FALSE_ALARM_Z = 4.5


def check(found, value):
    """The mean over chains lies within 4.5 standard errors (from the spread over chains) of `value`."""
    chains = found.per_chain
    assert np.isfinite(chains).all()
    assert len(chains) >= 100
    error = chains.std(ddof=1) / math.sqrt(len(chains))
    assert error < 0.03 * abs(value) + 1e-3, "the test has no power"
    assert abs(chains.mean() - value) < FALSE_ALARM_Z * error, (chains.mean(), value, error)


def bowl(h):
    return lambda w: (h * w**2).sum(-1) / 2


CURVATURE = torch.tensor([0.0, 0.05, 1.0, 6.0, 30.0], dtype=torch.float64)
COMMON = {"n_beta": 30.0, "eps": 1e-3, "num_draws": 400, "mala_every": 0, "control_draws": 0}


@pytest.mark.parametrize("gamma", [0.0, 200.0])
@pytest.mark.parametrize("burnin", [0, 50])
def test_quadratics_in_discrete_time(gamma, burnin):
    found = sample_llc(bowl(CURVATURE), torch.zeros(5, dtype=torch.float64), gamma=gamma, num_chains=800,
                       num_burnin_steps=burnin, **COMMON)  # fmt: skip
    h = CURVATURE.numpy()
    check(found, exact.quadratic_sgld(h, n_beta=30.0, gamma=gamma, eps=1e-3, num_draws=400, burnin=burnin))


def test_quadratics_with_minibatch_noise():
    """Each row adds a linear term b.w to the loss; the rows' mean is 0, so the noise of a batch has variance c/m."""
    rows = torch.randn(400, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 20
    rows -= rows.mean(0)

    def loss(w, batch):
        return bowl(CURVATURE)(w) + (batch.mean(1) * w).sum(-1)

    found = sample_llc(
        loss, torch.zeros(5, dtype=torch.float64), data=rows, batch_size=4, gamma=20.0, num_chains=600, **COMMON
    )
    variance = rows.numpy().var(0) / 4 * (400 - 4) / (400 - 1)
    settings = {"n_beta": 30.0, "gamma": 20.0, "eps": 1e-3, "num_draws": 400}
    value = exact.quadratic_sgld(CURVATURE.numpy(), noise=variance, **settings)
    noiseless = exact.quadratic_sgld(CURVATURE.numpy(), **settings)
    assert value > 1.2 * noiseless, "the noise must matter"
    check(found, value)


def test_paired_batches_take_the_noise_of_the_data_out():
    """A loss that is the same at every w: the batches differ, the estimate is exactly 0."""
    rows = torch.randn(64, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 100
    found = sample_llc(lambda w, batch: batch.mean(1) + 0 * w.sum(-1), torch.zeros(3, dtype=torch.float64), data=rows,
                       batch_size=4, n_beta=30.0, gamma=200.0, eps=1e-3)  # fmt: skip
    assert found.mean == 0.0
    assert np.ptp(found.traces.loss) > 10


@pytest.mark.parametrize(("k", "eps", "n_beta"), [(1, 2e-4, 100.0), (2, 1e-3, 100.0)])
def test_powers_of_w(k, eps, n_beta):
    """w^(2k) with gamma = 0 from a chain that has forgotten its start; the step's own bias is below the error."""
    settings = {"n_beta": n_beta, "gamma": 0.0, "eps": eps, "num_draws": 2500, "num_burnin_steps": 1500}
    found = sample_llc(lambda w: (w ** (2 * k)).sum(-1), torch.zeros(1, dtype=torch.float64), num_chains=400,
                       mala_every=0, control_draws=0, **settings)  # fmt: skip
    check(found, exact.monomial(k))


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 2), (2, 2)])
def test_normal_crossings_in_a_box_at_finite_n_beta(k1, k2):
    """The limit for infinite n_beta would be 0.5, 0.25, 0.25: far outside the error."""
    found = sample_llc(lambda w: w[:, 0] ** (2 * k1) * w[:, 1] ** (2 * k2), torch.zeros(2, dtype=torch.float64),
                       n_beta=30.0, gamma=0.0, eps=1e-3, box=1.0, num_chains=300, num_draws=1500, thin=4,
                       num_burnin_steps=2500, mala_every=0, control_draws=0)  # fmt: skip
    check(found, exact.normal_crossing(k1, k2, 30.0))


def linear_network(inputs, outputs):
    """y = b a x with x white: L = |b a^T|^2 / 2, with w = (a, b)."""
    return lambda w: (w[:, :inputs] ** 2).sum(1) * (w[:, inputs:] ** 2).sum(1) / 2


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (2, 3)])
def test_reduced_rank_regression_at_its_singular_point(inputs, outputs):
    found = sample_llc(linear_network(inputs, outputs), torch.zeros(inputs + outputs, dtype=torch.float64), n_beta=20.0,
                       gamma=5.0, eps=1e-3, num_chains=400, num_draws=2500, num_burnin_steps=1500, mala_every=0,
                       control_draws=0)  # fmt: skip
    check(found, exact.rank_regression_at_zero(inputs, outputs, 20.0, 5.0))


def product_loss(shapes, target):
    """Population loss of a deep linear network on white inputs: |W_k ... W_1 - target|^2 / 2."""
    cuts = np.cumsum([0, *[a * b for a, b in shapes]])

    def loss(w):
        product = torch.eye(shapes[0][1], dtype=w.dtype).expand(len(w), -1, -1)
        for (rows, columns), low, high in zip(shapes, cuts, cuts[1:], strict=False):
            product = w[:, low:high].reshape(-1, rows, columns) @ product
        return ((product - target) ** 2).sum((1, 2)) / 2

    return loss


@pytest.mark.parametrize("sizes", [(3, 2, 4), (2, 2, 3, 2)])
def test_deep_linear_networks_of_full_hidden_rank(sizes):
    """At w* of full rank the minimum is a smooth surface, and Aoyagi's value is half its codimension.

    The step's own bias is that of the quadratic with the Hessian of w*; what is left beyond it is below 2 %.
    """
    shapes = list(zip(sizes[1:], sizes, strict=False))
    factors = [torch.eye(a, b, dtype=torch.float64) for a, b in shapes]
    target = factors[0]
    for factor in factors[1:]:
        target = factor @ target
    w0, loss = torch.cat([f.flatten() for f in factors]), product_loss(shapes, target)
    settings = {"n_beta": 3e4, "gamma": 1.0, "eps": 1e-6, "num_draws": 800, "num_burnin_steps": 400}
    found = sample_llc(loss, w0, num_chains=200, mala_every=0, control_draws=0, **settings)
    h = torch.linalg.eigvalsh(torch.autograd.functional.hessian(lambda w: loss(w[None])[0], w0)).clip(min=0).numpy()
    h[h < 1e-9] = 0
    value = exact.quadratic_sgld(h, n_beta=3e4, gamma=1.0, eps=1e-6, num_draws=800, burnin=400)
    assert value == pytest.approx(float(exact.deep_linear(sizes, min(sizes)).value), rel=0.03)
    chains = found.per_chain
    error = chains.std(ddof=1) / math.sqrt(len(chains))
    assert error < 0.02 * value
    assert abs(chains.mean() - value) < FALSE_ALARM_Z * error + 0.02 * value


@pytest.mark.parametrize(("frozen", "spread"), [("outer", (1.0, 1.0, 1.0)), ("inner", (1.0, 1.0, 0.0))])
def test_the_refined_coefficient_of_one_factor_of_a_linear_network(frozen, spread):
    """y = BAx with one factor held: a quadratic whose continuous-time limit is half a product of ranks."""
    sigma = torch.diag(torch.tensor(spread, dtype=torch.float64))
    outer = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0]], dtype=torch.float64)  # 3 x 2, rank 1
    inner = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)  # 2 x 3, rank 2

    def loss(w):
        a = w.reshape(-1, 2, 3) if frozen == "outer" else inner
        b = outer if frozen == "outer" else w.reshape(-1, 3, 2)
        miss = b @ a - outer @ inner
        return torch.einsum("cij,jk,cik->c", miss, sigma, miss) / 2

    held = outer.numpy() if frozen == "outer" else inner.numpy()
    if frozen == "outer":
        limit = exact.frozen_outer(held, sigma.numpy())
        hessian = np.kron(held.T @ held, sigma.numpy())
    else:
        limit = exact.frozen_inner(held, sigma.numpy(), outputs=3)
        hessian = np.kron(np.eye(3), held @ sigma.numpy() @ held.T)
    h = np.linalg.eigvalsh(hessian).clip(min=0)
    w0 = (inner if frozen == "outer" else outer).flatten()
    settings = {"n_beta": 1000.0, "gamma": 1.0, "eps": 4e-5, "num_draws": 600, "num_burnin_steps": 400}
    found = sample_llc(loss, w0, num_chains=300, mala_every=0, control_draws=0, **settings)
    value = exact.quadratic_sgld(h, n_beta=1000.0, gamma=1.0, eps=4e-5, num_draws=600, burnin=400)
    assert value == pytest.approx(limit, rel=0.05)
    check(found, value)


def test_the_data_refined_coefficient_of_data_in_a_subspace():
    """Linear regression, 3 outputs, inputs that span 2 of 4 dimensions: 3 x 2 / 2, whatever the other directions do."""
    source = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(4, 2, generator=source, dtype=torch.float64))[0]
    white = torch.linalg.qr(torch.randn(64, 2, generator=source, dtype=torch.float64))[0] * 8
    inputs = white @ basis.T

    def loss(w, batch):
        return ((w.reshape(-1, 1, 3, 4) @ batch[..., None])[..., 0] ** 2).sum(-1).mean(1) / 2

    settings = {"n_beta": 1000.0, "gamma": 0.0, "eps": 4e-5, "num_draws": 600, "num_burnin_steps": 400}
    found = sample_llc(loss, torch.zeros(12, dtype=torch.float64), data=inputs, num_chains=200, mala_every=0,
                       control_draws=0, **settings)  # fmt: skip
    covariance = (inputs.T @ inputs / 64).numpy()
    h = np.repeat(np.linalg.eigvalsh(covariance).clip(min=0), 3)
    value = exact.quadratic_sgld(
        np.where(h < 1e-9, 0, h), n_beta=1000.0, gamma=0.0, eps=4e-5, num_draws=600, burnin=400
    )
    assert value == pytest.approx(exact.data_subspace(covariance, outputs=3), rel=0.02)
    check(found, value)


def test_small_curvature_gives_the_trace():
    """Curvatures far below gamma / n_beta = 6.67: the estimate is 0.075 times the trace, up to the start from w*."""
    h = torch.rand(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 0.05
    found = sample_llc(bowl(h), torch.zeros(300, dtype=torch.float64), n_beta=30.0, gamma=200.0, eps=1e-3,
                       num_chains=100, num_draws=200, num_burnin_steps=60, trace_probes=4, mala_every=0)  # fmt: skip
    assert found.surroundings.hessian_trace == pytest.approx(float(h.sum()), rel=1e-6)
    assert found.small_curvature_limit == pytest.approx(0.075 * float(h.sum()), rel=1e-6)
    check(found, exact.quadratic_sgld(h.numpy(), n_beta=30.0, gamma=200.0, eps=1e-3, num_draws=200, burnin=60))
    assert found.mean == pytest.approx(found.small_curvature_limit, rel=0.06)


def test_rmsprop_is_a_step_size_for_each_direction():
    """With a slow V the posterior stays what it was, up to the step's own bias: the coefficient within 5 %."""
    h = torch.tensor([1.0, 10.0], dtype=torch.float64)
    found = sample_llc(bowl(h), torch.zeros(2, dtype=torch.float64), n_beta=100.0, gamma=1.0, eps=2e-4, num_chains=200,
                       num_draws=1500, num_burnin_steps=1000, rmsprop=RMSProp(alpha=0.999, eps=0.5), mala_every=0,
                       control_draws=0)  # fmt: skip
    value = exact.quadratic(h.numpy(), 100.0, 1.0)
    chains = found.per_chain
    error = chains.std(ddof=1) / math.sqrt(len(chains))
    assert abs(chains.mean() - value) < FALSE_ALARM_Z * error + 0.05 * value


def settings_of(**changes):
    return {"n_beta": 20.0, "gamma": 10.0, "eps": 1e-3, "num_chains": 7, "num_draws": 30, "batch_size": 3, **changes}


def noisy(w, batch):
    return ((w[:, None] - batch) ** 2).sum(-1).mean(1)


ROWS = torch.randn(10, 4, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_results_do_not_depend_on_how_chains_are_batched(size):
    whole = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of())
    parts = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(chains_per_call=size))
    np.testing.assert_allclose(parts.traces.loss, whole.traces.loss, rtol=1e-6)
    assert parts.mean == pytest.approx(whole.mean, rel=1e-6)


def test_a_chain_does_not_depend_on_how_many_there_are_nor_on_later_draws():
    few = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(num_chains=2))
    many = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(num_draws=45))
    np.testing.assert_allclose(few.traces.loss, many.traces.loss[:2, :30], rtol=1e-6)


def test_one_seed_one_result_and_no_touch_of_the_global_generator():
    state = torch.random.get_rng_state()
    runs = [sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(seed=seed)) for seed in (4, 4, 5)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(runs[0].traces.loss, runs[1].traces.loss)
    assert not np.array_equal(runs[0].traces.loss, runs[2].traces.loss)


def test_chains_have_their_own_batches_unless_told_to_share():
    own = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of())
    shared = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(shared_batches=True))
    assert np.ptp(own.traces.start_loss, axis=0).max() > 0
    assert np.ptp(shared.traces.start_loss, axis=0).max() == 0


def test_burnin_is_left_out_and_thinning_skips():
    full = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(num_draws=40))
    late = sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(num_draws=10, num_burnin_steps=7, thin=3))
    np.testing.assert_allclose(late.traces.loss, full.traces.loss[:, 7:37:3], rtol=1e-6)


def test_metropolis_acceptance_is_one_for_small_steps_and_falls_for_large_ones():
    h = torch.tensor([1.0, 2.0])
    rates = [sample_llc(bowl(h), torch.zeros(2), n_beta=100.0, gamma=1.0, eps=eps, mala_every=2).acceptance
             for eps in (1e-6, 5e-3, 1.5e-2)]  # fmt: skip
    assert rates[0] > 0.999
    assert rates[0] > rates[1] > rates[2]


def test_the_step_from_the_mode_is_no_sample_of_the_acceptance():
    """In many dimensions the step from w* itself is all but sure to be refused; steps of a settled chain are not."""
    w0 = torch.zeros(2000)
    first = sample_llc(lambda w: 0 * w.sum(1), w0, n_beta=1.0, gamma=200.0, eps=1e-3, num_draws=1, mala_every=1)
    settled = sample_llc(lambda w: 0 * w.sum(1), w0, n_beta=1.0, gamma=200.0, eps=1e-3, num_draws=100)
    assert first.acceptance < 0.01
    assert settled.acceptance > 0.2
    assert settled.traces.acceptance.shape == (4, 4)


def test_metropolis_acceptance_is_that_of_a_written_out_step():
    """One dimension, one step from w* = 0 on L = w^2/2: U = (n_beta + gamma) w^2 / 2, q Gaussian with variance eps."""
    n_beta, gamma, eps = 40.0, 3.0, 0.02
    found = sample_llc(bowl(torch.ones(1, dtype=torch.float64)), torch.zeros(1, dtype=torch.float64), n_beta=n_beta,
                       gamma=gamma, eps=eps, num_draws=2, num_chains=50, mala_every=1, control_draws=0)  # fmt: skip
    w, a = found.traces.displacement[:, 1], n_beta + gamma
    back = -((0 - w + eps / 2 * a * w) ** 2) / (2 * eps)
    there = -(w**2) / (2 * eps)
    np.testing.assert_allclose(
        found.traces.acceptance[:, 0], np.minimum(1, np.exp(-a * w**2 / 2 + back - there)), rtol=1e-9
    )


@pytest.mark.parametrize("offset", [0.3, 1.2, -1.7, 3.4, -9.1])
def test_reflection_bounces_like_a_ball(offset):
    position, velocity = 0.0, math.copysign(1e-3, offset)
    for _ in range(round(abs(offset) / 1e-3)):
        velocity = -velocity if abs(position + velocity) > 1 else velocity
        position += velocity
    assert float(reflect(torch.tensor(offset), 1.0)) == pytest.approx(position, abs=0.02)


def test_the_control_with_no_pull_is_the_mean_loss_of_the_prior():
    """On a quadratic the n_beta = 0 chain has the variance of gamma alone."""
    h = torch.full((2000,), 3.0, dtype=torch.float64)
    found = sample_llc(bowl(h), torch.zeros(2000, dtype=torch.float64), n_beta=30.0, gamma=200.0, eps=1e-3,
                       control_draws=64, num_chains=1)  # fmt: skip
    steps = (np.arange(64) + 0.5) / 64 * 200
    variance = exact.displacement_variance(np.zeros(1), steps, n_beta=30.0, gamma=200.0, eps=1e-3)
    assert found.surroundings.control_llc == pytest.approx(30 * 3 / 2 * 2000 * variance.mean(), rel=0.02)
    assert found.surroundings.control_displacement == pytest.approx(np.sqrt(2000 * variance).mean(), rel=0.02)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("eps", 0.0, "step size above 0"), ("num_draws", 0, "at least 1"), ("gamma", -1.0, "at least 0"),
     ("n_beta", math.inf, "finite")],
)  # fmt: skip
def test_settings_that_cannot_run_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        SGLDSettings(**{"n_beta": 1.0, "gamma": 1.0, "eps": 1e-3, name: value})


def test_a_batch_larger_than_the_data_and_a_loss_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="expected 1 to 10"):
        sample_llc(noisy, torch.zeros(4), data=ROWS, **settings_of(batch_size=11))
    with pytest.raises(ValueError, match="one number a chain"):
        sample_llc(lambda w: w.sum(), torch.zeros(4), n_beta=1.0, gamma=1.0, eps=1e-3)
