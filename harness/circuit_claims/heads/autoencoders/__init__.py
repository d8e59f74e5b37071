"""Sparse autoencoders, many seeds at once. Read first: `training` (settings and runs), then `step` (one fused step)."""
