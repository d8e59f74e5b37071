"""The project's own attention-only transformers: the model, and what is measured on it."""
