"""How a successor head counts: mod-10 features, probes, neurons, vector arithmetic (Gould et al. 2024, section 3)."""
