"""From a matplotlib figure to SVG that can stand in a page: same bytes every time, no style attributes, spoken names.

matplotlib is imported when the first figure is drawn, not before.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup

from circuit_claims.report.figures.palette import INKS, names
from circuit_claims.report.text import visible

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "circuit_claims.report",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "hatch.color": INKS["muted"][0],
}
_DECIMALS = re.compile(r"(\d+\.\d\d)\d+")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


@contextmanager
def _settings() -> Iterator[None]:
    """matplotlib as it comes, whatever the reader's matplotlibrc says, with the settings of the report."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Missing glyphs matter to the layout alone: the reader's browser draws the text.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*missing.*")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def draw_svg(
    paint: Callable[[Any], None], name: str, title: str, description: str, width: float, height: float
) -> Markup:
    """The figure that `paint(figure)` fills, `width` x `height` px, as inline SVG.

    `name` must be unique in the page: every id inside starts with it. `title` and `description` are what a screen
    reader says. Colours of the palette become classes, so that they follow light and dark.
    """
    with _settings():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0.0)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return _inline(buffer.getvalue(), name, title, description)


def _inline(data: bytes, name: str, title: str, description: str) -> Markup:
    ET.register_namespace("", SVG)
    root = ET.fromstring(data)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    colours = names()
    for element in root.iter():
        _restyle(element, colours)
    _rename(root, name)
    _drop_empty(root)
    _speak(root, name, title, description)
    return Markup(ET.tostring(root, encoding="unicode"))


def _restyle(element: ET.Element, colours: dict[str, str]) -> None:
    """Style attributes become presentation attributes (a strict page allows no style attributes) and classes."""
    style = element.attrib.pop("style", "")
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            key, value = "font-size", (re.findall(r"[\d.]+px", value) or ["12px"])[0]
        if key != "font-family":
            element.set(key, value)
    for key in {"d", "x", "y", "points", "transform"} & set(element.attrib):
        # A hundredth of a pixel is enough, and halves the page.
        element.set(key, _DECIMALS.sub(r"\1", element.attrib[key]).replace("\n", ""))
    classes = [
        f"{letter}-{colours[element.attrib[key].lower()]}"
        for key, letter in (("fill", "f"), ("stroke", "s"))
        if element.attrib.get(key, "").lower() in colours
    ]
    if element.tag == f"{{{SVG}}}text" and "fill" not in element.attrib:
        classes.append("f-ink")
    if classes:
        element.set("class", " ".join(classes))


def _rename(root: ET.Element, name: str) -> None:
    """Ids that something refers to get `name` as a prefix, the others go; so figures of one page never clash."""
    used: set[str] = set()
    for element in root.iter():
        if XLINK in element.attrib:
            element.set("href", element.attrib.pop(XLINK))
        used |= {element.attrib["href"][1:]} if "href" in element.attrib else set()
        used |= {found for value in element.attrib.values() for found in _REFERENCE.findall(value)}
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
        for key, value in list(element.attrib.items()):
            if key == "href":
                element.set(key, f"#{name}-{value[1:]}")
            elif _REFERENCE.search(value):
                element.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))


def _drop_empty(root: ET.Element) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("g", "defs") and not len(child):
                parent.remove(child)


def _speak(root: ET.Element, name: str, title: str, description: str) -> None:
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = visible(text)
        root.insert(position, element)
    for element in root.iter(f"{{{SVG}}}text"):
        element.text = (element.text or "").strip("\n")
