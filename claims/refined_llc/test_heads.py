"""Section 4.1 and the appendix on multigrams: what each head has memorised, against its coefficient."""

from harness.attention_only import curves_evidence as show
from harness.attention_only.curves_findings import coefficients
from harness.attention_only.curves_roles import both_texts
from harness.attention_only.curves_settings import settings_of
from harness.attention_only.multigrams_evidence import sample_table
from harness.attention_only.multigrams_findings import Ablations
from harness.attention_only.run_evidence import loss_curves
from harness.plugin import claim


@claim("RL-12")
def test_coefficients_go_with_memorised_multigrams(subject, judge):
    """Section 4.1: a head's final wrLLC correlates with the number of multigrams it has memorised."""
    found, ablations = coefficients(subject), Ablations(subject)
    counts = ablations.counts()
    settings = judge.under("RL-12", settings_of(found.countings(ablations)))
    heads = [*show.score_curves(subject), show.attention_patterns(subject), *loss_curves(subject)]
    evidence = [show.multigram_scatter(found, counts), settings, *sample_table(ablations), *heads]
    texts = [found.text_use("training mixture"), ablations.text_use()]
    judge("RL-12", found.with_multigrams(counts), evidence=evidence, text=both_texts(*texts))
