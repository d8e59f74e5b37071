"""The report's colours: one name, a light and a dark value. Figures are drawn in the light ones and follow the page.

Every colour that carries meaning goes with a shape, a line style or a word as well. Scales are one hue whose
lightness runs evenly, so they read in grey and with any kind of colour blindness; the rest are Okabe and Ito's.
"""

from __future__ import annotations

from collections.abc import Mapping

LEVELS = 24
SERIES = 6

INKS: Mapping[str, tuple[str, str]] = {
    "ink": ("#1c2024", "#e6e9ec"),
    "muted": ("#5b636b", "#a4adb6"),
    "grid": ("#d9dde1", "#3a4148"),
    "ground": ("#fdfdfc", "#16191c"),
    "measured": ("#0b5a9e", "#7cc0f5"),
    "paper": ("#a85100", "#f2a65a"),
    "band": ("#f6e3cd", "#4a3620"),
    "null": ("#6d7681", "#8d97a1"),
    "control": ("#57606a", "#b4bdc6"),
    "mark": ("#b3261e", "#f2564a"),
    "series0": ("#0b5a9f", "#7cc0f6"),
    "series1": ("#a85200", "#f2a75a"),
    "series2": ("#00735a", "#4fc9a4"),
    "series3": ("#8a3c77", "#dd9bcb"),
    "series4": ("#6b6000", "#d9c94a"),
    "series5": ("#444b52", "#c3cad1"),
}
_LIGHT_ENDS = ("#eef3f8", "#08305f")
_DARK_ENDS = ("#20262c", "#d8ecff")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _between(ends: tuple[str, str], share: float) -> str:
    low, high = map(_rgb, ends)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True))


def scale() -> tuple[tuple[str, str], ...]:
    """The `LEVELS` steps of the heat map's scale, lowest first, as (light, dark)."""
    steps = [index / (LEVELS - 1) for index in range(LEVELS)]
    return tuple((_between(_LIGHT_ENDS, step), _between(_DARK_ENDS, step)) for step in steps)


def names() -> dict[str, str]:
    """From a light colour, as figures are drawn in it, to its name."""
    known = {light: name for name, (light, _) in INKS.items()}
    return known | {light: f"level{index}" for index, (light, _) in enumerate(scale())}


def css() -> str:
    """The rules that give each name its colour: light by default, dark where the reader asked for dark."""
    pairs = {**INKS, **{f"level{index}": pair for index, pair in enumerate(scale())}}
    light = "".join(f"--{name}:{pair[0]};" for name, pair in pairs.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in pairs.items())
    uses = "".join(f".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}\n" for name in pairs)
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{color-scheme:light;{light}}}}}\n{uses}"
    )
