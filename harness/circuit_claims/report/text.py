"""Words and numbers as a reader meets them, and the one mapping that makes hostile text harmless and visible."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from circuit_claims.judging.messages import PHRASES
from circuit_claims.judging.numbers import number

OUTCOME_MARKS: Mapping[str, str] = {
    "reproduced": "✓",
    "contradicted": "✗",
    "inconclusive": "?",
    "failed": "!",
    "does not apply": "∅",
    "cannot be decided here": "~",
    "needs an accelerator": "»",
    "not here": "–",
}
OUTCOME_MEANING: Mapping[str, str] = {
    "reproduced": "the interval lies inside the margin around the paper's value",
    "contradicted": "the interval lies outside the margin altogether",
    "inconclusive": "the interval lies across the edge of the margin, or the measurement is incomplete",
    "failed": "an error, a control that did not come out as it must, or a rule that calls false data reproduced",
    "does not apply": "not judged: what the claim is about is not there in this model",
    "cannot be decided here": "not judged: even where the claim is true these sizes or this text do not show it",
    "needs an accelerator": "not judged: only an accelerator measures it in reasonable time",
    "not here": "not judged: the weights or the text are not at hand; the command that would judge it is given",
}
SCOPE_MEANING: Mapping[str, str] = {
    "reproduction": "the paper's own models and data",
    "reanalysis": "the authors' published numbers",
    "replication": "trained here after the paper's recipe; the run's card says what differs",
    "generalisation": "other models or texts: whether the claim carries over, not whether the paper is right",
    "self-check": "figures tested on the data they were read off, and the project's own: no news about a paper",
    "control": "must come out the known way",
}
KIND_WORDS: Mapping[str, str] = {
    "value": "equal to the paper's value within the margin",
    "at_least": "at least the paper's value, less the margin",
    "at_most": "at most the paper's value, plus the margin",
    "order": "these come in this order",
    "identity": "this is the one",
    "existence": "there is one above the threshold",
    "absence": "there is none above the threshold",
    "correlation": "a correlation of this sign, at least this strong less the margin",
    "curve": "a curve through these points within the margin",
}
HEAD_NAMES: Mapping[str, str] = {"L12H0": "L{}H{}", "1:6": "{}:{}"}

# Characters that show nothing or reorder what stands beside them, besides the control characters proper.
_UNSEEN = "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u2060\u2061\u2062\u2063\u2064\ufeff"
_REORDER = "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x2070)]))
_INVISIBLE = frozenset(_UNSEEN + _REORDER)
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def head_as_written(layer: int, head: int, like: str = "L12H0") -> str:
    """A head as its paper writes it: `like` "L12H0" or "1:6". KeyError for another.

    >>> head_as_written(0, 4), head_as_written(0, 4, "1:6")
    ('L0H4', '0:4')
    """
    return HEAD_NAMES[like].format(layer, head)


def visible(text: str) -> str:
    r"""`text` with every character a page cannot hold, cannot show, or that reorders others, as its escape.

    Control characters other than newline and tab become `\x..`; lone surrogates, non-characters and
    characters that are invisible or change the direction of writing become `\u....` (or `\U........`).
    Everything else is unchanged, so for ordinary text this is the identity. It is the only such mapping of the
    report: pages apply it to every value they print, figures to every label.

    >>> visible("a\x00b\x1b[31m")
    'a\\x00b\\x1b[31m'
    >>> visible(" Monday <b>")
    ' Monday <b>'
    """
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or (character not in _INVISIBLE and unicodedata.category(character) not in ("Cc", "Cs")):
        is_noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
        if not is_noncharacter:
            return character
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def one_line(text: str) -> str:
    r"""`visible` for a label of a figure: newlines and tabs too become escapes."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def shorten(text: str, length: int = 32) -> str:
    """`text` cut to `length` characters with an ellipsis where something is missing."""
    return text if len(text) <= length else text[: length - 1] + "…"


def without_addresses(text: str) -> str:
    """`text` with memory addresses blanked: they differ from run to run and tell a reader nothing.

    >>> without_addresses("<Head object at 0x7f3a9c0d1e50>")
    '<Head object at 0x…>'
    """
    return _ADDRESS.sub("0x…", text)


def expected_words(kind: str, expected: Any, unit: str = "") -> str:
    """The paper's value as words: "at least 8", "L12H0", "A > B > C", or that none is given."""
    if expected is None:
        return "not given"
    if isinstance(expected, (list, tuple)):
        if expected and all(isinstance(item, (list, tuple)) for item in expected):
            return ", ".join("(" + ", ".join(number(part) for part in item) + ")" for item in expected)
        return " > ".join(number(item) for item in expected)
    words = PHRASES.get(kind, "") + number(expected)
    return f"{words} {unit}".strip() if isinstance(expected, (int, float)) else words


def duration(seconds: float | None) -> str:
    """Wall time for a reader: "0.4 s", "3 min 20 s", "2 h 5 min"; "not recorded" for None."""
    if seconds is None or not math.isfinite(seconds):
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(stamp: str) -> str:
    """A time stamp for a reader; what is not one is left as it is.

    >>> moment("2000-01-02T03:04:05+0000")
    '2000-01-02 03:04:05 +0000'
    """
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)", r"\1 \2 ", stamp).strip()


def size(count: int | None) -> str:
    """Bytes for a reader, in powers of 1024: "812 MiB"; "not recorded" for None or 0."""
    if not count:
        return "not recorded"
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}" if count < 1000 * scale else f"{count / scale:,.0f} {unit}"
    return f"{count} bytes"


def slug(*parts: str) -> str:
    """An id of lower-case letters, digits and dashes; different parts give different ids (by a digest of them).

    >>> slug("claim", "AB-05")
    'claim-ab-05'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:60]
    if len(parts) == 2 and re.fullmatch(r"[a-z]+", parts[0]) and re.fullmatch(r"[A-Z]+-\d+[a-z]?", parts[1], re.ASCII):
        return plain
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"x{plain}-{digest}" if plain[:1].isdecimal() else f"{plain or 'x'}-{digest}"


def natural(text: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that puts AB-4 before AB-10: runs of digits compare as numbers."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d{1,18})", text) if part)
