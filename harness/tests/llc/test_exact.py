"""The closed forms against each other, against quadrature, and against brute-force recursions."""

from itertools import pairwise

import numpy as np
import pytest
from circuit_claims.llc import exact
from hypothesis import given
from hypothesis import strategies as st

WIDTH = st.integers(1, 7)


@given(m=WIDTH, h=WIDTH, n=WIDTH, data=st.data())
def test_deep_linear_networks_of_two_factors_are_reduced_rank_regression(m, h, n, data):
    rank = data.draw(st.integers(0, min(m, h, n)))
    assert exact.deep_linear((m, h, n), rank).value == exact.rank_regression(m, h, n, rank)


def test_all_shapes_up_to_seven_agree_with_reduced_rank_regression():
    shapes = [
        (m, h, n, r) for m in range(1, 8) for h in range(1, 8) for n in range(1, 8) for r in range(min(m, h, n) + 1)
    ]
    assert len(shapes) == 1127
    wrong = [s for s in shapes if exact.deep_linear(s[:3], s[3]).value != exact.rank_regression(*s)]
    assert wrong == []


@given(sizes=st.lists(WIDTH, min_size=2, max_size=6), data=st.data())
def test_a_deep_linear_network_does_not_care_about_the_order_of_hidden_layers_nor_exceeds_half_its_parameters(
    sizes, data
):
    rank = data.draw(st.integers(0, min(sizes)))
    found = exact.deep_linear(sizes, rank)
    shuffled = [sizes[0], *data.draw(st.permutations(sizes[1:-1])), sizes[-1]]
    assert exact.deep_linear(shuffled, rank) == found
    assert 0 <= found.value <= sum(a * b for a, b in pairwise(sizes)) / 2
    assert found.multiplicity >= 1


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_a_product_of_scalars_has_threshold_one_half_and_multiplicity_its_depth(depth):
    found = exact.deep_linear((1,) * (depth + 1), rank=0)
    assert (found.value, found.multiplicity) == (0.5, depth)


@pytest.mark.parametrize(("m", "n"), [(1, 2), (1, 3), (2, 3), (3, 2), (4, 1)])
def test_the_finite_temperature_integral_tends_to_reduced_rank_regression(m, n):
    limit = float(exact.rank_regression(m, 1, n, 0))
    assert exact.rank_regression_at_zero(m, n, n_beta=1e14, gamma=1.0) == pytest.approx(limit, abs=2e-6)


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("n_beta", [30.0, 144.8])
def test_normal_crossings_agree_with_a_grid_of_gauss_and_legendre(k1, k2, n_beta):
    nodes, weights = np.polynomial.legendre.leggauss(600)
    w = (nodes + 1) / 2
    level = n_beta * w[:, None] ** (2 * k1) * w[None, :] ** (2 * k2)
    mass = np.exp(-level) * weights[:, None] * weights[None, :]
    assert exact.normal_crossing(k1, k2, n_beta) == pytest.approx(float((level * mass).sum() / mass.sum()), rel=1e-8)


@pytest.mark.parametrize(
    ("k1", "k2", "values"),
    [(1, 1, (0.3137, 0.3559, 0.3873, 0.4258)), (1, 2, (0.1841, 0.2090, 0.2262, 0.2429)),
     (2, 2, (0.1190, 0.1414, 0.1602, 0.1865))],
)  # fmt: skip
def test_normal_crossings_agree_with_the_table_at_finite_n_beta(k1, k2, values):
    found = [exact.normal_crossing(k1, k2, n_beta) for n_beta in (30.0, 144.8, 1e3, 1e5)]
    assert found == pytest.approx(values, abs=1.5e-4)


def test_the_variance_of_sgld_on_a_quadratic_is_its_own_recursion():
    h, n_beta, gamma, eps, noise = np.array([0.0, 0.5, 3.0]), 20.0, 5.0, 0.03, np.array([0.1, 2.0, 0.0])
    variance, found = np.zeros(3), []
    for _ in range(40):
        found.append(variance)
        decay = 1 - eps * (n_beta * h + gamma) / 2
        variance = decay**2 * variance + eps + (eps * n_beta / 2) ** 2 * noise
    closed = exact.displacement_variance(h, np.arange(40), n_beta=n_beta, gamma=gamma, eps=eps, noise=noise)
    np.testing.assert_allclose(closed, np.stack(found), rtol=1e-10, atol=1e-15)


def test_discrete_time_tends_to_continuous_time():
    h = np.array([0.1, 1.0, 4.0])
    fine = exact.quadratic_sgld(h, n_beta=30.0, gamma=10.0, eps=1e-5, num_draws=1000, burnin=10**6)
    assert fine == pytest.approx(exact.quadratic(h, 30.0, 10.0), rel=1e-3)


def test_small_curvature_is_the_limit_of_the_quadratic():
    h = np.array([1e-4, 3e-4])
    assert exact.quadratic(h, 30.0, 200.0) == pytest.approx(exact.small_curvature(h.sum(), 30.0, 200.0), rel=1e-4)


def test_an_unstable_step_size_is_refused_with_one_that_is_stable():
    with pytest.raises(ValueError, match=r"eps below 0\.04"):
        exact.quadratic_sgld(np.array([1.0]), n_beta=100.0, gamma=0.0, eps=0.05, num_draws=10)


def test_a_true_rank_above_a_layer_is_refused():
    with pytest.raises(ValueError, match="expected at most 2"):
        exact.rank_regression(3, 2, 3, 3)
    with pytest.raises(ValueError, match="none below rank 3"):
        exact.deep_linear((3, 2, 3), 3)


def test_linear_networks_with_one_factor_held_fixed():
    outer, inner = np.diag([1.0, 1.0, 0.0]), np.diag([1.0, 0.0, 0.0])
    covariance = np.diag([1.0, 1.0, 1.0])
    assert exact.frozen_outer(outer, covariance) == 3.0
    assert exact.frozen_inner(inner, covariance, outputs=3) == 1.5
    assert exact.data_subspace(np.diag([1.0, 1.0, 0.0]), outputs=4) == 4.0
