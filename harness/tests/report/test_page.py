"""The page: hostile text shown as text, nothing run, nothing loaded, sound for keyboard and screen reader."""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import re
from typing import Any

import html5lib
import pytest
from circuit_claims.report import write_report
from circuit_claims.report.collect import collect
from circuit_claims.report.render import render_index
from circuit_claims.report.text import visible
from circuit_claims.report.views import claim_anchor, verdict_anchor
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.sample import (
    CLAIMS,
    PAPER,
    control,
    end_event,
    evidence,
    measurement,
    run_event,
    sample_events,
    subject_event,
    verdict,
    write_events,
)

# Surrogates become escapes when the stream is read; here events come as they are after that.
HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from([
        "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", "\" onmouseover=\"alert(1)", "]]>", "<!--",
        "&lt;b&gt;", "{{ 7 * 7 }}", "{% raw %}", "\x00\x08\x1b[31m", "a\r\nb\rc", "\u202egnp.exe", "\ufffe", " Monday",
        "\n\nx\n", "</pre></code>", "javascript:alert(1)", "$x_2$", "'`", "\x85\u2028",
    ]),
)  # fmt: skip


def parse(page: str) -> Any:
    return html5lib.parse(page, treebuilder="etree", namespaceHTMLElements=False)


def text_of(element: Any) -> str:
    return "".join(element.itertext())


def find(tree: Any, css_class: str) -> list[str]:
    return [
        text_of(one) for one in tree.iter() if isinstance(one.tag, str) and css_class in one.get("class", "").split()
    ]


def hostile_events(text: str) -> list[dict[str, Any]]:
    claim = CLAIMS[2] | {"title": text, "locus": text, "margin_reason": text, "note": text}
    shown = [
        {
            "type": "table",
            "title": text,
            "caption": text,
            "columns": [text, text],
            "rows": [[text, text]],
            "mark_rows": [0],
        },
        {"type": "text", "title": "t", "text": text},
    ]
    card = {"event": "subject", "name": text, "card": {"note": text, text: "x"}}
    one = verdict("SY-05", text, "contradicted", node=text, rule=text, flip=text, reason=text, rerun=text, command=text,
                  evidence=shown, controls=[control(text, "fail", "contradicted", 1.0)], measurement=None,
                  deviation={"reason": text, "date": text})  # fmt: skip
    failed = verdict("SY-05", text + "2", "failed", reason=text, scope=text)
    paper = PAPER | {"title": text, "authors": [text], "venue": text, "url": text}
    return [run_event(claims=[claim], papers=[paper], profile=text), card, one, failed, end_event()]


@given(HOSTILE)
@settings(max_examples=120, deadline=None)
def test_what_a_page_says_is_what_the_run_said(text: str) -> None:
    tree = parse(render_index(collect(hostile_events(text))))
    want = visible(text)
    assert find(tree, "claim-title") == [want]
    assert set(find(tree, "name")) == {want, visible(text + "2")}
    assert find(tree, "reason") == [want, want]
    assert [text_of(code) for code in tree.iter("code")].count(want) >= 1
    cells = [text_of(cell) for row in tree.iter("tr") for cell in row if cell.tag in ("td", "th")]
    assert cells.count(want) >= 4
    values = [text_of(value) for value in tree.iter("dd")]
    assert values.count(want) >= 5
    assert [text_of(value) for value in tree.iter("h5")] == [want, "t"]
    assert find(tree, "prose") == [want, want]


@given(HOSTILE)
@settings(max_examples=60, deadline=None)
def test_hostile_text_adds_nothing_to_a_page_but_text(text: str) -> None:
    shapes = []
    for words in (text, "plain"):
        tree = parse(render_index(collect(hostile_events(words))))
        shapes.append([
            (one.tag, sorted(set(one.attrib) - {"href"}))
            for one in tree.iter()
            # The paper's address is a link only where it is one.
            if one.tag != "a"
        ])  # fmt: skip
    assert shapes[0] == shapes[1]


def test_labels_of_figures_are_shown_as_text_too() -> None:
    text = "<b>&\x00\u202e</b>"
    items = copy.deepcopy(evidence())
    for item in items:
        item["title"] = item["label"] = text
        if "labels" in item:
            item["labels"][0] = text
    page = render_index(collect([run_event(), verdict("SY-05", "m", "contradicted", evidence=items), end_event()]))
    tree = parse(page)
    drawn = [text_of(one) for one in tree.iter() if str(one.tag).endswith("text")]
    assert drawn.count(visible(text)) >= 4
    assert not list(tree.iter("b"))


def test_only_plain_addresses_become_links() -> None:
    for url, linked in (("https://example.org", True), ("javascript:alert(1)", False), ("data:text/html,x", False)):
        page = render_index(collect([run_event(papers=[PAPER | {"url": url}]), end_event()]))
        assert (f'href="{url}"' in page) is linked
        assert url in page


def test_the_page_runs_nothing_and_loads_nothing(page: str, tree: Any) -> None:
    tags = {one.tag.rpartition("}")[2] for one in tree.iter() if isinstance(one.tag, str)}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img", "image", "base", "form", "video", "audio"}
    for one in tree.iter():
        attributes = {str(name): value for name, value in one.attrib.items()}
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "style")]
        if one.tag != "a":
            assert all(value.startswith("#") for name, value in attributes.items() if name.endswith("href"))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_the_policy_allows_the_page_s_own_style_alone(tree: Any) -> None:
    (style,) = tree.iter("style")
    (policy,) = [one.get("content") for one in tree.iter("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256((style.text or "").encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy


def test_every_id_is_its_own_and_every_inner_link_leads_somewhere(tree: Any) -> None:
    ids = [one.get("id") for one in tree.iter() if one.get("id")]
    assert len(ids) == len(set(ids))
    inner = [value[1:] for one in tree.iter() for name, value in one.attrib.items() if str(name).endswith("href")
             and value.startswith("#")]  # fmt: skip
    assert set(inner) <= set(ids)
    labels = [name for one in tree.iter() for name in one.get("aria-labelledby", "").split()]
    assert set(labels) <= set(ids)


def test_headings_step_down_one_level_at_a_time(tree: Any) -> None:
    levels = [int(one.tag[1]) for one in tree.iter() if re.fullmatch(r"h[1-6]", str(one.tag))]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_a_screen_reader_finds_its_way(page: str, tree: Any) -> None:
    body = tree.find("body")
    assert body[0].get("href") == "#main"
    assert [one.tag for one in body if one.tag in ("header", "nav", "main")] == ["header", "nav", "main"]
    assert tree.get("lang") == "en"
    for table in tree.iter("table"):
        assert text_of(table.find("caption"))
        assert all(head.get("scope") in ("col", "row") for head in table.iter("th"))
    for figure in (one for one in tree.iter() if str(one.tag).endswith("svg")):
        assert figure.get("role") == "img"
    assert all(link.get("aria-label") or text_of(link).strip() for link in tree.iter("a"))


def test_no_outcome_is_told_by_colour_alone(tree: Any) -> None:
    """Wherever an outcome is coloured its word is in the text, or in the label of a sign that stands for it."""
    coloured = [one for one in tree.iter() if re.search(r"\bo-[a-z]", one.get("class", ""))]
    assert len(coloured) > 20
    for one in coloured:
        name = re.search(r"\bo-([a-z-]+)", one.get("class")).group(1).replace("-", " ")  # type: ignore[union-attr]
        assert name in (one.get("aria-label") or text_of(one))


def test_the_first_screen_counts_each_scope_in_the_words_of_the_design(tree: Any) -> None:
    assert find(tree, "counts") == [
        "1 of 1 judged reproduced, 0 contradicted, 0 inconclusive; not judged: 4 not here",
        "3 of 15 judged reproduced, 6 contradicted, 3 inconclusive, 3 failed",
        "1 claim without any verdict in this run, counted in no scope.",
    ]


def test_bad_news_comes_worst_first(tree: Any) -> None:
    (bad,) = [one for one in tree.iter("ol") if one.get("class") == "bad"]
    assert [(text_of(item.find("a")), item.find("span").get("class").split()[1]) for item in bad] == [
        ("SY-05", "o-contradicted"),
        ("SY-06", "o-contradicted"),
        ("SY-08", "o-failed"),
        ("SY-04", "o-inconclusive"),
    ]


def test_what_held_is_said_by_claim_and_subject_the_paper_s_own_models_first(tree: Any, collected: Any) -> None:
    (section,) = [one for one in tree.iter("section") if one.get("id") == "held"]
    items = [[text_of(link) for link in item.iter("a")] for item in section.iter("li")]
    found = {(claim, subject) for claim, *subjects in items for subject in subjects}
    right = [verdict for verdict in collected.results.verdicts if verdict.outcome == "reproduced"]
    assert found == {(verdict.claim, verdict.subject) for verdict in right}
    scopes = [text_of(one).partition(":")[0] for one in section.iter("span") if one.get("class") == "scope"]
    assert scopes == sorted(scopes, key=["reproduction", "generalisation"].index)


def test_a_run_in_which_nothing_held_says_so() -> None:
    said = text_of(parse(render_index(collect([run_event(), verdict("SY-05", "a", "contradicted"), end_event()]))))
    assert "Nothing that was judged was reproduced." in said


def test_each_verdict_shows_what_it_rests_on(tree: Any) -> None:
    (section,) = [one for one in tree.iter("section") if one.get("id") == verdict_anchor(
        next(item for item in collect(sample_events()).results.verdicts
             if (item.claim, item.subject) == ("SY-05", "synthetic-wide")))]  # fmt: skip
    said = text_of(section)
    for words in (
        "2.5 ratio (90\u202f% interval 1.9 to 3.2)", "n\u00a0=\u00a01,013", "at least 8 ratio, margin 2",
        "would flip at a margin",
        "2 of 2 controls held", "shuffled map", "planted head", "Settings under which the verdict changes",
        "◆ verdict changes", 'pytest "claims/synthetic/test_synthetic.py::test_SY-05[synthetic-wide]"', "cd" * 32,
        "Python 3.11.0", "0123456789ab", "float32", "measured in this run", "858 MiB", "1.2 s",
    ):  # fmt: skip
        assert words in said, words


@pytest.mark.parametrize(
    ("trust", "words"),
    [("P", "stated in the paper"), ("F", "read off a figure"), ("S", "from reviews or reading notes only"),
     ("R", "from the reproducibility record"), ("D", "derived or checked"), ("?", "not given by the paper")],
)  # fmt: skip
def test_the_trust_mark_is_said_in_words(trust: str, words: str) -> None:
    page = render_index(collect([run_event(claims=[CLAIMS[2] | {"trust": trust}]), end_event()]))
    assert f"at least 8 ratio</strong> ({words}" in page


def test_a_claim_that_was_not_judged_says_why_and_what_to_type(tree: Any) -> None:
    (section,) = [one for one in tree.iter("section") if one.get("id") == "not-judged"]
    rows = [[text_of(cell) for cell in row] for row in section.iter("tr")][1:]
    why = "the weights are not on this machine and the hub cannot be reached"
    asked = "SY-04, SY-05, SY-06, SY-07"
    assert rows == [["claims fetch synthetic-paper-model", "not here", "synthetic-paper-model", asked, why]]
    (article,) = [one for one in tree.iter("article") if one.get("id") == "claim-sy-05"]
    assert "Not judged on 1 subject" in text_of(article)
    assert "SY-25" in text_of(section)


def test_a_partial_run_says_so_first() -> None:
    page = render_index(collect(sample_events()[:-5]))
    assert "<strong>interrupted: 6 of 7 claims reported</strong>" in page


def test_a_failed_claim_shows_its_error() -> None:
    trace = "Traceback:\n  File 'x'\nValueError: <bad>"
    tree = parse(render_index(collect([run_event(), verdict("SY-05", "m", "failed", reason=trace), end_event()])))
    assert find(tree, "reason") == [trace]


def test_a_diverged_measurement_is_said_to_be_one() -> None:
    event = verdict("SY-05", "m", "inconclusive", measurement=measurement(float("nan"), status="diverged"))
    tree = parse(render_index(collect([run_event(), event, end_event()])))
    assert "not a number ratio" in find(tree, "measured")[0]
    assert "(measurement is diverged)" in find(tree, "measured")[0]


def test_known_deviations_and_recorded_figures_are_named() -> None:
    event = verdict("SY-05", "m", "contradicted", measurement=measurement(2.0, 1.0, 3.0, origin="recorded"),
                    deviation={"reason": "because", "date": "2001-02-03"})  # fmt: skip
    said = text_of(parse(render_index(collect([run_event(), event, end_event()]))))
    assert "since 2001-02-03: because" in said
    assert "recorded: shipped with the project" in said


def test_an_unannounced_claim_is_shown_all_the_same() -> None:
    said = text_of(parse(render_index(collect([verdict("ZZ-99", "m", "contradicted")]))))
    assert "ZZ-99" in said
    assert "not announced by the run" in said


def test_claims_that_were_not_asked_take_one_row_of_the_overview_together() -> None:
    events = [run_event(), verdict("SY-05", "m", "contradicted"), end_event()]
    overview = next(one for one in parse(render_index(collect(events))).iter("table") if one.get("class") == "overview")
    first, last = (text_of(row) for row in overview.find("tbody"))
    assert first.startswith("SY-05")
    assert last.startswith(f"{len(CLAIMS) - 1} claims of ")
    assert "not selected" in last


def test_a_page_of_nothing_is_a_page(tree: Any) -> None:
    said = text_of(parse(render_index(collect([]))))
    assert "No verdict has been reported yet." in said
    assert "Nothing was measured." in said


def test_the_same_stream_gives_the_same_page(tmp_path, page: str) -> None:
    for name in ("a", "b"):
        assert write_report(write_events(tmp_path / name)).index.read_text(encoding="utf-8") == page


def test_anchors_are_what_the_page_uses(tree: Any) -> None:
    ids = {one.get("id") for one in tree.iter()}
    assert claim_anchor("SY-05") == "claim-sy-05"
    assert {claim_anchor(claim["id"]) for claim in CLAIMS} <= ids
    assert len(subject_event("x")["card"]) > 5
