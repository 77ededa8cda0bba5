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
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))
_UNITS = {
    "seconds": ("time", _TIMES),
    "simulated": ("simulated time", ((86400.0, "days"), *_TIMES)),
    "bytes": ("sent and received", _BYTES),
    "uplink": ("sent by clients", _BYTES),
}

Unit = Literal["share", "loss", "number", "seconds"]


@dataclass(frozen=True)
class Line:
    """One series of a line chart: where its points come from and how it looks."""

    key: Key
    run: Run
    measure: Measure


@dataclass(frozen=True)
class Trace:
    """Points to draw, with a band around them if there is one: ``low`` and ``high`` at each point, float64.

    A faint one is there to be seen among all others, but has no entry in the legend.
    """

    key: Key
    points: Curve
    band: tuple[np.ndarray, np.ndarray] | None = None
    faint: bool = False


def learning_lines(run: Run, value: Literal["accuracy", "loss", "backdoor"]) -> list[Line]:
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
    traces = [Trace(line.key, curve(line.run, line.measure, over)) for line in lines]
    return trace_chart(name, title, traces, over, unit)


def smoothed_chart(name: str, title: str, lines: Sequence[Line], unit: Unit) -> Chart | None:
    """Draw what jumps from round to round, such as participation: means of bins, at most 60 on the longest curve."""
    curves = [curve(line.run, line.measure) for line in lines]
    size = bin_size(max(map(len, curves), default=0), SMOOTHED_POINTS)
    traces = [Trace(line.key, smoothed(points, size)) for line, points in zip(lines, curves, strict=True)]
    chart = trace_chart(name, title, traces, "rounds", unit, WIDE)
    if chart is None or size == 1:
        return chart
    return replace(chart, caption=f"Each point is the mean of {size} rounds.")


def trace_chart(
    name: str,
    title: str,
    traces: Sequence[Trace],
    over: Over,
    unit: Unit,
    size: tuple[float, float] = SMALL,
) -> Chart | None:
    """Draw traces, the first ones on top; None where there are none."""
    if not traces:
        return None
    label, factor = _unit_of_x(over, max(trace.points.x.max() for trace in traces))
    with drawing(name, *size) as canvas:
        axes = canvas.axes
        axes.set_xlabel(label)
        _scale_x(axes, over)
        for trace in reversed(traces):
            _draw(axes, trace, factor)
        finite = np.concatenate(
            [_finite(values) for trace in traces for values in (trace.points.y, *(trace.band or ()))]
        )
        scale_y(axes, finite, unit)
        if len(traces) == 1 and len(finite):
            _label_end(axes, traces[0].points, factor, unit)
    shown = [trace for trace in traces if not trace.faint]
    alt = f"{title}: " + "; ".join(f"{trace.key.label} {_in_words(trace.points, unit)}" for trace in shown)
    return Chart(title, alt, canvas.svg, tuple(trace.key for trace in shown))


def show(value: float, unit: Unit) -> str:
    """Return a value of a curve as text."""
    if not math.isfinite(value):
        return "not finite"
    if unit == "seconds":
        return human_seconds(value)
    return percent(value) if unit == "share" else f"{value:.4g}"


def _draw(axes: Axes, trace: Trace, factor: float) -> None:
    x, y, key = trace.points.x / factor, trace.points.y, trace.key
    if trace.band is not None:
        low, high = trace.band
        axes.fill_between(x, _gapped(low), _gapped(high), color=key.colour, alpha=0.18, linewidth=0)
    marker = "o" if len(x) <= MARKED_POINTS and not trace.faint else ""
    axes.plot(
        x, _gapped(y), color=key.colour, ls=line_style(key.dash), lw=1 if trace.faint else None,
        marker=marker, markersize=6 if len(x) == 1 else 3.5, markeredgewidth=0, clip_on=False,
    )  # fmt: skip


def _gapped(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _finite(values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = values[np.isfinite(values)]
    return finite


def _scale_x(axes: Axes, over: Over) -> None:
    if over == "uplink":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=over == "rounds", steps=ROUND_STEPS, min_n_ticks=1))


def scale_y(axes: Axes, finite: np.ndarray, unit: Unit) -> None:
    """Scale and label the y axis for these values, all finite: shares in per cent, others over powers where wide."""
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


def _label_end(axes: Axes, points: Curve, factor: float, unit: Unit) -> None:
    x, y = points.x[-1] / factor, points.y[-1]
    if math.isfinite(y):
        axes.annotate(show(y, unit), (x, y), (0, 6), textcoords="offset points", ha="right")


def _in_words(points: Curve, unit: Unit) -> str:
    first, last = show(points.y[0], unit), show(points.y[-1], unit)
    return f"is {first}" if len(points) == 1 else f"goes from {first} to {last} in {len(points)} points"
