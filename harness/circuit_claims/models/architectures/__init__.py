"""The architectures the harness reads: names and shapes of their tensors, their layers, their forward pass.

Read first: `names` (one table for all), then `layers` and `forward`. May import `models.files` and `models.errors`.
"""
