"""Texts: the registry, where each comes from, what every Python has, and the windows that are cut from them.

Read first: `registry` (what is known of each text), `sources` (how one is opened, and what stands in for it), then
`windows` (contexts drawn from it). May import `models` (its registry reader, its checks of files) and `errors`.
"""

from circuit_claims.texts.library import STANDARD_TEXTS
from circuit_claims.texts.registry import TextRow, find_text, load_texts
from circuit_claims.texts.sources import (
    Document,
    Text,
    TextNotAvailable,
    open_text,
    standard_text,
    text_digest,
    text_label,
)

__all__ = [
    "STANDARD_TEXTS",
    "Document",
    "Text",
    "TextNotAvailable",
    "TextRow",
    "find_text",
    "load_texts",
    "open_text",
    "standard_text",
    "text_digest",
    "text_label",
]
