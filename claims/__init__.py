"""The papers: each folder holds what one paper claims, as data, and the tests that measure it."""
