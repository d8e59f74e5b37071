"""Passages and stacked bars: said in words, drawn the same each time, and unharmed by hostile strings."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import html5lib
import pytest
from circuit_claims.judging.evidence import PassageExample, Passages
from circuit_claims.report.figures.evidence import exhibit
from circuit_claims.report.figures.passages import MOST_PASSAGES, passages_of, seen
from circuit_claims.report.render import _environment
from hypothesis import example, given, settings
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</p><script>alert(1)</script>\x00\x1b[31m\u202e\ud800 & <b>"

PASSAGES = {
    "type": "passages",
    "title": "A made-up sample",
    "examples": [
        {
            "label": "successorship",
            "note": "0.5 nats; made up",
            "tokens": [{"text": "on"}, {"text": " Monday", "rank": 1, "share": 0.75}, {"text": " and"}, {"text": "\n"}],
            "next": " Tuesday",
            "promoted": [[" Tuesday", 1.5], [" Wednesday", 0.5]],
        }
    ],
}
STACKED = {
    "type": "stacked",
    "title": "Made-up shares",
    "segments": ["one", "two", "other"],
    "rows": [
        {"label": "measured", "n": 40, "values": [0.5, 0.25, 0.25], "low": [0.4, 0.1, 0.1], "high": [0.6, 0.4, 0.4]},
        {"label": "paper [P]", "paper": True, "values": [0.43, None, 0.14]},
        {"label": "none", "n": 0, "values": []},
    ],
    "label": "share of cases",
}


def shown(item) -> str:
    """The exhibit as it stands in the page."""
    parts = _environment().get_template("parts.html.j2").make_module({})
    return str(parts.exhibit(exhibit(item, "x")))


def text_of(page: str) -> str:
    return "".join(html5lib.parse(page, namespaceHTMLElements=False).itertext())


def test_a_passage_reads_as_it_was_written_with_its_marks_in_words():
    page = shown(PASSAGES)
    assert "on<mark" in page.replace("\n", "")
    words = re.sub(r"\s+", " ", text_of(page))
    assert "on␣Monday1 in attention, 75 %; and" in words
    assert "came next: ␣Tuesday" in words
    assert "Promotes most: ␣Tuesday 1.5, ␣Wednesday 0.5" in words
    assert "Marked: what the head attends to most" in words
    bare = {**PASSAGES["examples"][0], "tokens": [{"text": "a"}]}
    assert "Marked:" not in text_of(shown({**PASSAGES, "examples": [bare]}))


@pytest.mark.parametrize(
    ("token", "read"),
    [
        ("\n", "f(x)↵1\nif"),
        ("\n\n", "f(x)↵\n↵1\nif"),
        ("\n  ", "f(x)↵\n␣␣1if"),
        (" y\n", "f(x)␣y↵1\nif"),
        (" y", "f(x)␣y1if"),
    ],
)
def test_a_marked_line_break_still_breaks_the_line(token, read):
    tokens = [{"text": "f(x)"}, {"text": token, "rank": 1, "share": 0.5}, {"text": "if"}]
    (passage,) = passages_of(Passages(title="t", examples=[PassageExample(tokens=tokens, next="a")]))
    assert "".join(piece.text + (str(piece.rank) if piece.rank else "") for piece in passage.pieces) == read


@pytest.mark.parametrize("place", ["label", "note", "next", "token", "marked", "promoted", "title", "segment", "row"])
def test_hostile_strings_are_shown_as_text(place):
    example = {**PASSAGES["examples"][0]}
    if place in example:
        example[place] = HOSTILE
    changes = {
        "token": {"tokens": [{"text": HOSTILE}]},
        "marked": {"tokens": [{"text": HOSTILE, "rank": 2, "share": "NaN"}]},
        "promoted": {"promoted": [[HOSTILE, 1.5]]},
    }
    passages = {**PASSAGES, "examples": [{**example, **changes.get(place, {})}]}
    stacked = {**STACKED, "rows": [{**STACKED["rows"][0]}]}
    for item in (passages, stacked):
        if place == "title":
            item["title"] = HOSTILE
    if place == "segment":
        stacked["segments"] = [HOSTILE, "b", "c"]
    if place == "row":
        stacked["rows"][0]["label"] = HOSTILE
    for item in (passages, stacked):
        page = shown(item)
        assert "<script" not in page
        assert not re.search(r"[\x00\x1b\u202e\ud800]", page)
        assert not html5lib.parse(page, namespaceHTMLElements=False).findall(".//script")


@pytest.mark.parametrize(
    ("token", "visible"), [(" Monday", "␣Monday"), ("\n\n", "↵↵"), ("\t x ", "⇥␣x␣"), ("", ""), ("a b", "a b")]
)
def test_white_space_of_a_token_can_be_seen(token, visible):
    assert seen(token) == visible


@example([("\n", 1), (" a", 0)], "")
@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 5)), max_size=8), st.text(max_size=5))
def test_no_text_is_lost(tokens, following):
    passage_of = {"tokens": [{"text": text, "rank": rank} for text, rank in tokens], "next": following}
    (passage,) = passages_of(Passages(title="t", examples=[passage_of]))
    assert passage.following == seen(following)
    plain = "".join(piece.text for piece in passage.pieces if not piece.rank)
    # Behind a marked token that ends a line the line is broken as well.
    assert plain == "".join("\n" * text.endswith("\n") if rank else text for text, rank in tokens)
    assert [piece.rank for piece in passage.pieces if piece.rank] == [rank for _, rank in tokens if rank]


def test_a_report_holds_so_many_passages_and_no_more():
    assert len(passages_of(Passages(title="t", examples=PASSAGES["examples"] * 99))) == MOST_PASSAGES


def test_evidence_that_lacks_its_parts_says_why():
    assert exhibit({"type": "passages", "examples": [{"tokens": []}]}, "x").trouble
    assert exhibit({"type": "stacked", "segments": ["a"]}, "x").trouble


def test_stacked_bars_are_said_in_words_and_kept_as_a_table():
    found = exhibit(STACKED, "x")
    said = ET.fromstring(str(found.figure)).findtext(f"{SVG}desc")
    assert said == "measured: one 50 %, two 25 %, other 25 %; paper [P]: one 43 %, other 14 %; none: not given."
    assert found.grid.rows[0] == ("measured", "0.5 [0.4, 0.6]", "0.25 [0.1, 0.4]", "0.25 [0.1, 0.4]", "40")
    assert found.grid.rows[1] == ("paper [P]", "0.43", "not given", "0.14", "none")
    assert found.grid.rows[2] == ("none", *["not given"] * 3, "0")
    assert exhibit(STACKED, "x").figure == found.figure


@given(st.lists(st.one_of(st.none(), st.floats(), st.just("NaN")), min_size=3, max_size=3))
@settings(max_examples=30, deadline=None)
def test_no_number_breaks_a_bar(values):
    found = exhibit({**STACKED, "rows": [{"label": "a", "values": values, "low": values, "high": values}]}, "x")
    assert found.figure is not None, found.trouble
