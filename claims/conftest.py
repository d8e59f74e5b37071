"""Switches the plugin and the fixtures on; nothing else."""

pytest_plugins = ("harness.plugin", "fixtures.subjects", "fixtures.texts")
