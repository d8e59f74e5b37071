"""A planted counter, in which every claim on counting holds by construction: its plan, its weights, the subject."""
