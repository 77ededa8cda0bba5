"""One chart as inline SVG that follows the page: its colours are CSS variables, its text is text.

Matplotlib draws with the light theme's colours; in the SVG each of them becomes ``var(--name, colour)``, so that the
same picture suits a light and a dark page. Nothing global is touched but ``rcParams``, and those only while drawing.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

INK, MUTED, GRID, AXIS, CARD = "#3d3c3a", "#6f6e69", "#e5e4de", "#c3c2b7", "#fffffd"
SERIES = ("#2a78d6", "#eb6834", "#1baf7a", "#eda100", "#d8619a", "#6a5acd", "#7c8a1c", "#d03b3b")
ROUND_STEPS = (1, 2, 5, 10)
DASHES = ("", "5 3", "1.5 2.5", "7 2 1.5 2")
VARIABLES = {
    INK: "--ink-soft",
    MUTED: "--muted",
    GRID: "--grid",
    AXIS: "--axis",
    CARD: "--card",
    **{colour: f"--series-{position}" for position, colour in enumerate(SERIES, start=1)},
}

PER_CENT = FuncFormatter(lambda share, _: f"{100 * share:.4g} %")

_PIXELS_PER_INCH = 72
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedkeras",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": AXIS,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": AXIS,
    "ytick.color": AXIS,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a name, its colour, and for lines the dash pattern as in SVG's ``stroke-dasharray``."""

    label: str
    colour: str
    dash: str = ""
    kind: str = "line"

    @property
    def css(self) -> str:
        """The colour as CSS."""
        return css(self.colour)


@dataclass(frozen=True)
class Chart:
    """A picture with its title, a legend where it has several series, a caption, and words for who cannot see it."""

    title: str
    alt: str
    svg: Markup
    legend: tuple[Key, ...] = ()
    caption: str = ""


class Canvas:
    """A figure being drawn: ``figure``, one ``axes``, and after the ``drawing`` block its ``svg``."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width / _PIXELS_PER_INCH, height / _PIXELS_PER_INCH), layout="constrained")
        self.axes: Axes = self.figure.add_subplot()
        self.svg = Markup()


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[Canvas]:
    """Open a canvas of a size in CSS pixels; ``name`` keeps its ids apart from those of other charts on the page."""
    with mpl.rc_context(_STYLE):
        canvas = Canvas(width, height)
        yield canvas
        canvas.svg = _inline_svg(canvas.figure, name)


def css(colour: str) -> str:
    """Return a palette colour as CSS that follows the page's theme."""
    return f"var({VARIABLES[colour]}, {colour})" if colour in VARIABLES else colour


def series_colour(position: int) -> str:
    """Return the colour of the series at a position; they repeat after eight, then `series_dash` tells them apart."""
    return SERIES[position % len(SERIES)]


def series_dash(position: int) -> str:
    """Return the dash pattern of the series at a position, "" for a whole line."""
    return DASHES[position // len(SERIES) % len(DASHES)]


def line_style(dash: str) -> str | tuple[float, tuple[float, ...]]:
    """Return Matplotlib's form of a dash pattern."""
    return (0, tuple(float(length) / 2 for length in dash.split())) if dash else "-"


def _inline_svg(figure: Figure, name: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, dpi=3 * _PIXELS_PER_INCH, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    return Markup(re.sub(r"(?<=: )#[0-9a-f]{6}(?=[;\"])", lambda found: css(found[0]), text))
