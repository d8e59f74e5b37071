"""Heat maps with named rows and columns: what is outlined, what is said of them, and that nothing breaks them."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from circuit_claims.judging.numbers import number
from circuit_claims.report.figures.evidence import exhibit
from hypothesis import given, settings
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"


def grid(**changes) -> dict:
    return {
        "type": "grid_map",
        "title": "Made-up table",
        "rows": ["one", "two"],
        "columns": ["0", "1", "2"],
        "values": [[0.0, 0.25, None], [1.0, 0.5, 0.75]],
        "marks": [[0, 1], [1, 0]],
        "mark_label": "where it should be",
        "ylabel": "row",
        "xlabel": "column",
    } | changes


def test_outlined_cells_are_drawn_and_said() -> None:
    shown = exhibit(grid(), "one")
    assert shown.trouble == ""
    assert shown.key == "Outlined: where it should be."
    assert f"Outlined, where it should be: 2 cells, their mean {number(0.625)}." in shown.figure
    assert [element.text for element in ET.fromstring(shown.figure).iter(f"{SVG}text")].count("one") == 1


def test_the_table_behind_it_may_say_something_else() -> None:
    plain = exhibit(grid(), "one").grid
    assert plain.columns == ("row / column", "0", "1", "2")
    assert plain.rows[1] == ("two", number(1.0), number(0.5), number(0.75))
    other = exhibit(grid(texts=[["a"], ["b"]], text_columns=["won"], text_rows=["x", "y"]), "one").grid
    assert (other.columns, other.rows) == (("row / column", "won"), (("x", "a"), ("y", "b")))


def test_without_marks_only_the_reach_is_said() -> None:
    shown = exhibit(grid(marks=[]), "one")
    assert shown.key == ""
    assert f"2 rows of 3 cells, from {number(0.0)} to {number(1.0)}." in shown.figure


def names_of(shown) -> list[str]:
    return [element.text for element in ET.fromstring(shown.figure).iter(f"{SVG}text")]


def test_a_hundred_rows_stay_small_and_are_named_by_fives() -> None:
    names = [f"row {row}" for row in range(100)]
    shown = exhibit(grid(rows=names, values=[[0.5] * 3] * 100), "one")
    assert len(shown.figure) < 60_000
    assert [label for label in names_of(shown) if label.startswith("row ")] == names[::5]


def test_the_scale_stands_beside_the_cells_however_long_the_names_below_are() -> None:
    def heights(column: str) -> tuple[float, float, float]:
        root = ET.fromstring(exhibit(grid(columns=["0", "1", column], xlabel="", marks=[]), "one").figure)
        spots = {text.text: float(text.get("y") or 0) for text in root.iter(f"{SVG}text")}
        return spots["two"], spots[number(0.0)], float(root.get("viewBox").split()[3])

    short, long = heights("2"), heights("a long name")
    assert long[2] > short[2] + 30, "turned names take room"
    assert long[:2] == short[:2], "and neither the rows nor the scale move down into it"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.floats()), min_size=1, max_size=4), min_size=1, max_size=4),
    st.text(max_size=20),
)
def test_no_value_and_no_name_breaks_a_page(values, label) -> None:
    width = min(map(len, values))
    table = [row[:width] for row in values]
    shown = exhibit(grid(values=table, rows=[label] * len(table), columns=[label] * width, marks=[[0, 0]]), "one")
    assert shown.trouble == ""
    ET.fromstring(shown.figure)
