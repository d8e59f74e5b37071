"""Section 2: the succession dataset, from word lists and a tokenizer alone."""

from circuit_claims.api import claim
from circuit_claims.papers.successor_heads.succession.evidence import availability_table
from circuit_claims.papers.successor_heads.succession.measures import succession_dataset


@claim("SH-01")
def test_the_dataset_has_1041_tokens(subject, judge):
    """Section 2: eight tasks, each string in up to four forms, kept where it is one token."""
    dataset = succession_dataset(subject)
    judge("SH-01", dataset.entries(), evidence=[availability_table(dataset)])


@claim("SH-26")
def test_numbers_are_three_quarters_of_the_dataset(subject, judge):
    """A head that only counts digits clears the threshold; one perfect on the seven other tasks cannot."""
    dataset = succession_dataset(subject)
    judge("SH-26", dataset.share_of_numbers(), evidence=[availability_table(dataset)])
