"""Texts: the registry, where each comes from, what every Python has, and the windows that are cut from them."""

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
