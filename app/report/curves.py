"""Line charts: what was measured, over rounds, seconds and bytes, of one run or of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from app.report.figure import INK, PER_CENT, ROUND_STEPS, Chart, Key, drawing, line_style, series_colour, series_dash
from app.report.reading import Run
from app.report.series import Curve, Measure, Over, bin_size, curve, of, smoothed
from app.units import human_seconds, percent

SMALL = (372.0, 250.0)
WIDE = (564.0, 260.0)
SMOOTHED_POINTS = 60
MARKED_POINTS = 16
_LOG_RATIO = 200.0
_TIMES = ((3600.0, "h"), (60.0, "min"), (1.0, "s"))
_UNITS = {
    "seconds": ("time", _TIMES),
    "simulated": ("simulated time", ((86400.0, "days"), *_TIMES)),
    "bytes": ("sent and received", ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))),
}

Unit = Literal["share", "loss", "seconds"]


@dataclass(frozen=True)
class Line:
    """One series of a line chart: where its points come from and how it looks."""

    key: Key
    run: Run
    measure: Measure


def learning_lines(run: Run, value: Literal["accuracy", "loss"]) -> list[Line]:
    """Return the three views of one run's learning: central, on the clients' test parts, and as trained."""
    names: tuple[tuple[str, Literal["train", "central", "federated"]], ...] = (
        ("central test set", "central"),
        ("clients' test parts, mean", "federated"),
        ("clients' training data", "train"),
    )
    lines = [Line(Key(name, series_colour(slot)), run, of(group, value)) for slot, (name, group) in enumerate(names)]
    return [line for line in lines if len(curve(run, line.measure))]


def run_lines(runs: Sequence[Run], labels: Sequence[str], measure: Measure) -> list[Line]:
    """Return one series per run; a run keeps its colour on the whole page, also where it lacks the value elsewhere."""
    keys = [Key(label, series_colour(slot), series_dash(slot)) for slot, label in enumerate(labels)]
    lines = [Line(key, run, measure) for key, run in zip(keys, runs, strict=True)]
    return [line for line in lines if len(curve(line.run, line.measure))]


def line_chart(name: str, title: str, lines: Sequence[Line], over: Over, unit: Unit) -> Chart | None:
    """Draw curves over rounds, seconds or bytes. Gaps are values that are not finite."""
    return _chart(name, title, lines, [curve(line.run, line.measure, over) for line in lines], over, unit)


def smoothed_chart(name: str, title: str, lines: Sequence[Line], unit: Unit) -> Chart | None:
    """Draw what jumps from round to round, such as participation: means of bins, at most 60 on the longest curve."""
    curves = [curve(line.run, line.measure) for line in lines]
    size = bin_size(max(map(len, curves), default=0), SMOOTHED_POINTS)
    chart = _chart(name, title, lines, [smoothed(points, size) for points in curves], "rounds", unit, WIDE)
    if chart is None or size == 1:
        return chart
    return replace(chart, caption=f"Each point is the mean of {size} rounds.")


def _chart(
    name: str,
    title: str,
    lines: Sequence[Line],
    curves: list[Curve],
    over: Over,
    unit: Unit,
    size: tuple[float, float] = SMALL,
) -> Chart | None:
    if not curves:
        return None
    label, factor = _unit_of_x(over, max(points.x.max() for points in curves))
    curves = [Curve(points.x / factor, points.y) for points in curves]
    with drawing(name, *size) as canvas:
        axes = canvas.axes
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=over == "rounds", steps=ROUND_STEPS, min_n_ticks=1))
        for line, points in zip(lines, curves, strict=True):
            _draw(axes, line.key, points)
        finite = np.concatenate([points.y[np.isfinite(points.y)] for points in curves])
        _scale_y(axes, finite, unit)
        if len(curves) == 1 and len(finite):
            _label_end(axes, curves[0], unit)
    alt = f"{title}: " + "; ".join(
        f"{line.key.label} {_in_words(points, unit)}" for line, points in zip(lines, curves, strict=True)
    )
    return Chart(title, alt, canvas.svg, tuple(line.key for line in lines))


def show(value: float, unit: Unit) -> str:
    """Return a value of a curve as text."""
    if not math.isfinite(value):
        return "not finite"
    return {"share": percent, "loss": lambda loss: f"{loss:.4g}", "seconds": human_seconds}[unit](value)


def _draw(axes: Axes, key: Key, points: Curve) -> None:
    marker = "o" if len(points) <= MARKED_POINTS else ""
    axes.plot(
        points.x, np.where(np.isfinite(points.y), points.y, np.nan), color=key.colour, ls=line_style(key.dash),
        marker=marker, markersize=6 if len(points) == 1 else 3.5, markeredgewidth=0, clip_on=False,
    )  # fmt: skip


def _scale_y(axes: Axes, finite: np.ndarray, unit: Unit) -> None:
    if not len(finite):
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", va="center", color=INK)
    elif unit == "share":
        low, high = float(finite.min()), float(finite.max())
        pad = max(0.02, 0.06 * (high - low))
        axes.set_ylim(max(0.0, low - pad), max(low + 0.05, min(1.0, high + pad)))
        axes.yaxis.set_major_formatter(PER_CENT)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    elif finite.min() > 0 and finite.max() / max(finite.min(), 1e-300) > _LOG_RATIO:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=min(0.0, float(finite.min())))


def _unit_of_x(over: Over, largest: float) -> tuple[str, float]:
    """Return the label of the x axis and what one unit of it is."""
    if over == "rounds":
        return "round", 1.0
    title, units = _UNITS[over]
    factor, unit = next((unit for unit in units if largest > 2 * unit[0]), units[-1])
    return f"{title} ({unit})", factor


def _label_end(axes: Axes, points: Curve, unit: Unit) -> None:
    if math.isfinite(points.y[-1]):
        axes.annotate(
            show(points.y[-1], unit), (points.x[-1], points.y[-1]), (0, 6), textcoords="offset points", ha="right"
        )


def _in_words(points: Curve, unit: Unit) -> str:
    first, last = show(points.y[0], unit), show(points.y[-1], unit)
    return f"is {first}" if len(points) == 1 else f"goes from {first} to {last} in {len(points)} points"
