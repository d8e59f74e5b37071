"""The root of every error that the package raises on purpose: catch `ClaimsError` to catch them all.

Each says what was expected, what was found and what to type next. What does not derive from it is a bug, and the
command line shows its traceback. Imports nothing.
"""

from __future__ import annotations


class ClaimsError(Exception):
    """Something a person can mend; the message says how.

    >>> from circuit_claims.models.registry import find_row
    >>> try:
    ...     find_row("no such model")
    ... except ClaimsError as error:
    ...     print(str(error).splitlines()[0])
    no model called 'no such model': expected a name of the registry, a GGUF file or a Hugging Face folder
    """


class InputError(ClaimsError, ValueError):
    """A value somebody gave (an option, an argument, a setting) that cannot be used.

    >>> raise InputError("--rows 0: expected at least 1 row, found 0. Type: --rows 64")
    Traceback (most recent call last):
    circuit_claims.errors.InputError: --rows 0: expected at least 1 row, found 0. Type: --rows 64
    """
