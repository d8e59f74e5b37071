"""Section 3: what the score owes to the head and to MLP_0."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.succession.evidence import lens_table, path_table
from circuit_claims.papers.successor_heads.succession.paths import headless_score, input_paths


@claim("SH-08")
def test_the_path_without_the_head_does_not_count_on(subject, judge):
    """Section 3: W_U MLP_0(W_E), read out by a lens and without any head, scores below 1 %."""
    headless = headless_score(subject, text="python-docs")
    judge("SH-08", headless.affine(), evidence=[lens_table(headless)])


@claim("SH-09")
def test_the_bare_embedding_scores_lower(subject, judge):
    """Section 3: with W_E in place of MLP_0(W_E) the leading head scores lower."""
    paths = input_paths(subject)
    judge("SH-09", paths.order_of("mlp0", "embed"), evidence=[path_table(paths, "mlp0", "embed")])
