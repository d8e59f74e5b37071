"""What a head does to the next token on real text: direct, indirect and total effects (Gould et al. 2024, section 5).

A *context* is a row of tokens; a *case* is one of its prefixes: case t is the prefix tokens[: t + 1], its correct token
is tokens[t + 1], so a context of n tokens has n - 1 cases. Positive numbers always mean that ablating the head hurts:
logit *lost* by the correct token, loss (nats) *gained*.

Ablating a head replaces its output z (what its attention brings back, before W_O), at every position at once:
`mean`      by its mean over reference contexts
`resample`  by its output in another context, averaged over repeats

What is then recomputed:
`direct`    only the head's own write to the final residual changes; nothing between the head and the end sees it
`indirect`  all that reads the head's write sees the ablation, its own write to the final residual stays
`total`     both: the forward pass run on with the ablated head

In models that norm what attention writes (Gemma 3), the head's own write is the change of the normed attention output.

How to use it (heavy modules are imported only where they are used):

    from circuit_claims.keeping.store import Store
    from circuit_claims.heads.effects.cells import Plan, measure_contexts, measure_heads
    from circuit_claims.heads.effects.forward import open_model
    from circuit_claims.heads.effects.settings import Ablations, HeadSettings

    plan = Plan(lambda: open_model(subject.model), subject.identity(), contexts, reference, Ablations())
    effects = measure_contexts(plan, store, report)               # one `DirectEffects` a context: every head
    chosen = measure_heads(plan, [(12, 0), (3, 7)], store, report)  # {head: one `HeadEffects` a context}
    effects[0].winners()                                          # the winning head's row in each case
    chosen[12, 0][0].changes["direct", "mean"]                    # loss gained in each case

`contexts` and `reference` are integer arrays, context x position; every cell hangs on its own context, the reference,
the settings and the model, so more contexts later cost only themselves. In the paper the reference is the contexts
themselves (`Ablations(in_sample=True)`); other contexts as reference keep the means out of sample for good.

| module      | what                                                                                           |
|-------------|------------------------------------------------------------------------------------------------|
| `settings`  | `Ablations`, `HeadSettings`: the choices the paper leaves open, and what is asked of a head     |
| `results`   | `DirectEffects` (a context, all heads) and `HeadEffects` (a context, one head): numpy           |
| `cells`     | `Plan`, `measure_contexts`, `measure_heads`: stored by context, resumable                       |
| `forward`   | `open_model`: a model whose passes keep head outputs, and go on from any layer                  |
| `reference` | means and donors of reference contexts                                                          |
| `direct`    | all heads at once, the correct token's logit; `contributions`: the logit taken apart            |
| `losses`    | chosen heads, the loss: direct, indirect, total                                                 |
| `views`     | what a chosen head attends to and promotes                                                      |
| `plain`     | the same by brute force, head by head, with hooks: the reference the rest is held against       |
"""
