"""How a successor head counts: mod-10 features by autoencoder, probe and neuron, and the factoring of index and domain.

Read first: `features`, `factoring`, then `findings`, which a claim file calls.
"""
