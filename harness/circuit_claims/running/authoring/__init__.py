"""For authors of papers: `claims new` writes a folder to start from, `claims check` reads one without measuring.

Read `scaffold.py` first, then `check.py`; `sources.py` is what the check knows of Python files.
"""
