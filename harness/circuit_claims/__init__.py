"""Measures attention heads, estimates refined learning coefficients, and judges published claims about both."""

__version__ = "0.1.0"
