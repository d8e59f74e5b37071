"""The table behind SH-23: numbered lists cut from real text, and which head costs the next number most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from circuit_claims.api import Measurement, measure
from circuit_claims.papers.successor_heads.natural_text.listings import Listings, cut_listings
from circuit_claims.papers.successor_heads.natural_text.natural import Amounts, Reading, tell
from circuit_claims.texts import Text, open_text

# Where the text at hand has too few listings: what Python carries, its own source included.
SUPPLEMENT = ("python-docs", "stdlib-complete")
REFERENCE = 8
LENGTH = 112
# Prompts that share a pass: about as many tokens as a context on running text has, so that products are as fast.
TOGETHER = 4


def listings_for(reading: Reading, wanted: int, seed: int, given: Listings | None = None) -> tuple[Listings, str, bool]:
    """Listings from the reading's text, or from Python's own texts where it has fewer than `wanted`.

    Returns them with the label of the text they were cut from, and whether that is the reading's own text.
    """
    if given is not None:
        return given, reading.text.label, True
    found = cut_listings(reading.text.documents, reading.subject.tokens, wanted=wanted, length=LENGTH, seed=seed)
    if len(found) >= wanted:
        return found, reading.text.label, True
    texts: list[Text] = [open_text(name) for name in SUPPLEMENT]
    documents = [document for text in texts for document in text.documents]
    label = f"{' and '.join(text.label for text in texts)}; {reading.text.label} has only {len(found)}"
    return cut_listings(documents, reading.subject.tokens, wanted=wanted, length=LENGTH, seed=seed), label, False


@measure
def listing_effects(reading: Reading, *, wanted: int, seed: int, planted: bool = False) -> Measurement:
    """Logit that each head's ablation costs the right number, in every prompt: `drop` (prompt, head).

    Direct effect, mean ablation; the means are those of other text, since lists alone would give means of lists. With
    `planted` the prompts are cases of the made-up lists, for the control.
    """
    from circuit_claims.heads.effects.cells import measure_contexts

    found, label, own = listings_for(reading, wanted, seed, _planted(reading, wanted, seed) if planted else None)
    if len(found) == 0:
        raise ValueError(
            f"numbered lists for {reading.subject.name}: expected some whose number is one token, found none in {label}"
        )
    length = found.tokens.shape[1]
    other = reading.draw(Amounts(REFERENCE, 0, length=length, seed=seed))
    plan = replace(reading.plan(found.tokens, seed), reference=other.tokens, batch=TOGETHER)
    run = reading.context
    effects = measure_contexts(plan, run.store, tell(reading, "listings: ablating every head"), anew=run.remeasure)
    drop = np.stack([one.mean[:, case] for one, case in zip(effects, found.cases, strict=True)])
    facts: dict[str, Any] = {
        "text": label,
        "own text": own,
        "documents": list(found.documents),
        "numbers": list(found.numbers),
        "listings_digest": found.digest,
    }
    arrays = {
        "drop": drop.astype(np.float64),
        "all_heads": effects[0].heads,
        "cluster": found.clusters,
        "tokens": found.tokens,
        "cases": found.cases,
        "size": np.mean([np.abs(one.mean).mean(1) for one in effects], axis=0),
    }
    return Measurement("effects on listings", None, n=len(found), seed=seed, arrays=arrays, facts=facts)


def _planted(reading: Reading, wanted: int, seed: int) -> Listings:
    """Cases of made-up lists in which the next token is the next item, one a context."""
    from circuit_claims.papers.successor_heads.natural_text.cases import find_examples

    drawn = reading.draw(Amounts(wanted, 0, length=LENGTH, seed=seed))
    generator = np.random.default_rng(seed)
    cases = []
    for row in drawn.tokens:
        found = find_examples(reading.strings(row.tolist()), {})
        # Cases inside a run: where two runs meet, the head has no say in what comes next.
        cases.append(int(generator.choice(np.flatnonzero(found.predecessor == np.arange(len(row) - 1)))))
    return Listings(drawn.tokens, np.array(cases), (0,) * len(cases), drawn.documents)
