"""One run of claims: the pytest plugin, what is selected, subjects, devices, and the command line.

Imports every room below the papers. Read first: `plugin`, `run`, `subjects`, `command_line`.
"""
