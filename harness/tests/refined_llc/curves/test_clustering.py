"""Clustering of curves on planted kinds of curves, and on noise."""

import numpy as np
import pytest
from circuit_claims.papers.refined_llc.curves import clustering as cl
from circuit_claims.papers.refined_llc.curves.tables import HeadTable

TYPES = ["induction", "induction", "multigram", "multigram", "multigram", "bracket", "bracket", "multigram"]
HEADS = [f"1:{head}" for head in range(8)]


def curves(seed=0, noise=0.02):
    x = np.linspace(0, 1, 11)
    shapes = {"induction": 2 / (1 + np.exp(-30 * (x - 0.7))), "multigram": 3 * x, "bracket": np.sin(6 * x)}
    own = np.array([shapes[kind] for kind in TYPES])
    return own + np.random.default_rng(seed).normal(size=own.shape) * noise


@pytest.mark.parametrize("method", cl.METHODS)
@pytest.mark.parametrize("scale", [False, True])
def test_every_method_finds_kinds_of_curves_that_differ_in_shape(method, scale):
    given = cl.scaled(curves()) if scale else curves()
    assert cl.adjusted_rand(TYPES, cl.cluster(given, 3, method)) == 1.0


def test_all_methods_are_compared_with_and_without_scaling():
    found = cl.compare_methods(curves(), HEADS, TYPES, 3)
    assert len(found) == 10
    assert {each.agreement for each in found} == {1.0}
    assert found[1].label == "k-means, sklearn, scaled"
    assert cl.clusterings_of(cl.methods_compared(curves(), HEADS, TYPES, 3)) == found, "what is kept is what was found"


def test_curves_of_one_kind_do_not_give_the_types():
    """Over 20 seeds the mean index of noise with the types lies near 0 (false alarm below 1 in 1,000)."""
    noise = [np.random.default_rng(seed).normal(size=(8, 11)) for seed in range(20)]
    found = [cl.adjusted_rand(TYPES, cl.cluster(each, 3, "k-means, sklearn")) for each in noise]
    assert abs(np.mean(found)) < 0.2


def test_types_of_other_heads_agree_by_chance_alone():
    """300 orders of the types on the same clusters: a mean near 0, and nothing is measured or clustered anew."""
    table = HeadTable(tuple(range(11)), tuple(HEADS), curves().T, np.full((11, 8), 0.02), np.ones((11, 8), dtype=bool))
    source = np.random.default_rng(0)
    found = cl.clustering_agreement(table, dict(zip(HEADS, TYPES, strict=True)), "hierarchical", source, draws=20)
    assert (found.value, found.arrays["clusterings"].shape) == (1.0, (21, 8))
    assert cl.other_types(found, np.arange(8)).value == 1.0
    null = np.array([cl.other_types(found, source.permutation(8)).value for _ in range(300)])
    assert abs(null.mean()) < 0.06
    assert np.quantile(null, 0.05) < 0


def test_scaling_leaves_a_flat_curve_at_zero():
    assert cl.scaled(np.array([[2.0, 2.0], [1.0, 3.0]])).tolist() == [[0.0, 0.0], [-1.0, 1.0]]


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(ValueError, match="1 to 8 clusters"):
        cl.cluster(curves(), 9, "hierarchical")
    with pytest.raises(ValueError, match="expected one of k-means"):
        cl.cluster(curves(), 2, "spectral")
