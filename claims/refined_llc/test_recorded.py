"""What recorded numbers and live checkpoints answer alike: the seed, the typed heads, when they form, composition."""

from circuit_claims.papers.refined_llc.stages import run_evidence as show
from circuit_claims.papers.refined_llc.stages.run_measures import composition, heads, seed_of
from circuit_claims.running.plugin import claim


@claim("RL-01")
def test_seed_1_drew_the_published_run(subject, judge):
    """The authors' code seeds with 1: the initialisation can be drawn again."""
    found = seed_of(subject)
    judge("RL-01", found, evidence=[show.seeds_table(found)])


@claim("RL-03")
def test_previous_token_heads(subject, judge):
    """Section 4.1: 0:1 and 0:4."""
    found = heads(subject)
    judge("RL-03", found.leaders("previous"), evidence=[show.score_curves(found, "previous")])


@claim("RL-03b")
def test_induction_heads(subject, judge):
    """Section 4.1: 1:6 and 1:7."""
    found = heads(subject)
    judge("RL-03b", found.leaders("prefix"), evidence=[show.score_curves(found, "prefix")])


@claim("RL-03c")
def test_a_previous_token_head_exists(subject, judge):
    """In layer 0, whichever it is."""
    found = heads(subject)
    evidence = [show.score_curves(found, "previous"), show.score_null(found, "previous")]
    judge("RL-03c", found.best("previous"), evidence=evidence)


@claim("RL-03d")
def test_an_induction_head_exists(subject, judge):
    """In layer 1, whichever it is."""
    found = heads(subject)
    judge(
        "RL-03d", found.best("prefix"), evidence=[show.score_curves(found, "prefix"), show.score_null(found, "prefix")]
    )


@claim("RL-04")
def test_previous_token_heads_form_first(subject, judge):
    """Section 4.1: induction heads need them."""
    found = heads(subject)
    curves = [show.score_curves(found, score) for score in ("previous", "prefix")]
    judge("RL-04", found.formation(), evidence=[show.formation_table(found), *curves])


@claim("RL-32")
def test_multigram_heads_come_to_compose(subject, judge):
    """Recorded: from 0.016-0.03 at step 6,500 to 0.055-0.069 at the end."""
    found = composition(subject)
    settings = [judge.under("RL-32", others) for others in found.settings()]
    judge("RL-32", found.rise(), evidence=[show.composition_curves(found), *settings])


@claim("RL-32b")
def test_previous_token_heads_do_not_compose_with_them(subject, judge):
    """Recorded: 0.031 at the end, half of what an initialisation has."""
    found = composition(subject)
    judge("RL-32b", found.at_the_end(), evidence=[show.composition_curves(found)])
