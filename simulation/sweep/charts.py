"""The pictures of a sweep: curves of configurations, what each key does, and how keys act together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from app.report.curves import Trace, scale_y, show, trace_chart
from app.report.figure import AXIS, CARD, INK, MUTED, SERIES, Chart, Key, drawing, series_colour
from app.report.reading import Run
from app.report.series import Curve, Measure, Over, curve
from simulation.sweep.heat import HALF, bare
from simulation.sweep.metrics import Metric
from simulation.sweep.plan import Plan
from simulation.sweep.results import Result, completed
from simulation.sweep.scales import scale_of

SHOWN = len(SERIES)
SLICE = (470.0, 250.0)
LETTERS = 50  # of ticks side by side under a slice
FULL = (1150.0, 340.0)


def keys_of(results: Sequence[Result]) -> list[Key]:
    """Return how ranked configurations look on the page: the best eight have a colour, the others are grey."""
    return [Key(result.label, series_colour(rank) if rank < SHOWN else AXIS) for rank, result in enumerate(results)]


def curves_chart(
    name: str, title: str, results: Sequence[Result], measure: Measure, over: Over, metric: Metric
) -> Chart | None:
    """Draw the median over the seeds of each configuration, with a band from the lowest to the highest."""
    traces = []
    for result, key in zip(results, keys_of(results), strict=True):
        middle, low, high = median_curve(result.runs, measure, over)
        faint = key.colour == AXIS
        if len(middle):
            band = (low, high) if len(result.runs) > 1 and not faint else None
            traces.append(Trace(key, middle, band, faint))
    return trace_chart(name, title, traces, over, metric.unit)


def median_curve(runs: Sequence[Run], measure: Measure, over: Over) -> tuple[Curve, np.ndarray, np.ndarray]:
    """Return the median over runs, the lowest and the highest, at the rounds that all of them have measured.

    Over seconds and bytes, a round stands at the median of where the runs had it.
    """
    tables = [
        {number: (x, y) for number, x, y in zip(points.x, curve(run, measure, over).x, points.y, strict=True)}
        for run in runs
        for points in (curve(run, measure),)
    ]
    common = sorted(set(tables[0]).intersection(*tables[1:])) if tables else []
    if not common:
        return Curve(np.zeros(0), np.zeros(0)), np.zeros(0), np.zeros(0)
    x, y = np.moveaxis(np.array([[table[number] for table in tables] for number in common]), -1, 0)
    return Curve(np.median(x, axis=1), np.median(y, axis=1)), y.min(axis=1), y.max(axis=1)


def slice_chart(name: str, plan: Plan, results: Sequence[Result], key: str) -> Chart | None:
    """Draw the metric against one key: a dot per completed configuration, with a line over the seeds' spread."""
    done = completed(results)
    if not done:
        return None
    scale = scale_of(plan, key)
    with drawing(name, *SLICE) as canvas:
        axes = canvas.axes
        for result in reversed(done):
            x, colour = scale.place(result.configuration.values[key]), SERIES[1] if result is done[0] else SERIES[0]
            if result.spread is not None:
                axes.plot([x, x], result.spread, color=colour, lw=1.5, alpha=0.55)
            axes.plot([x], [result.median], color=colour, marker="o", ms=5.5, markeredgewidth=0, clip_on=False)
        pad = 0.08 * (scale.high - scale.low) or 0.5
        axes.set_xlim(scale.low - pad, scale.high + pad)
        axes.set_xticks([place for place, _ in scale.ticks], [text for _, text in scale.ticks])
        axes.tick_params(axis="x", rotation=30 if sum(len(text) for _, text in scale.ticks) > LETTERS else 0)
        axes.set_xlabel(key)
        scale_y(
            axes,
            np.array([value for result in done for value in (result.median, *(result.spread or ()))]),
            plan.metric.unit,
        )
    low, high = (show(end([result.median for result in done]), plan.metric.unit) for end in (min, max))
    alt = f"{plan.metric.title} against {key} for {len(done)} configurations: from {low} to {high}."
    return Chart(f"{plan.metric.title} by {key}", alt, canvas.svg)


def parallel_chart(name: str, plan: Plan, results: Sequence[Result]) -> Chart | None:
    """Draw a line per completed configuration through the values of its keys to the metric; None for one key."""
    looks = {result.label: key for result, key in zip(results, keys_of(results), strict=True)}
    done = completed(results)
    if len(plan.keys) < 2 or len(done) < 2:
        return None
    scales = [scale_of(plan, key) for key in plan.keys]
    medians = [result.median for result in done]
    low, high = min(medians), max(medians)
    with drawing(name, *FULL) as canvas:
        axes = canvas.axes
        for result in reversed(done):
            places = [
                scale.share(scale.place(value))
                for scale, value in zip(scales, result.configuration.values.values(), strict=True)
            ]
            end = (result.median - low) / (high - low) if high > low else 0.5
            colour = looks[result.label].colour
            axes.plot([*places, end], color=colour, lw=1 if colour == AXIS else 2, clip_on=False)
        for x, scale in enumerate(scales):
            _upright(axes, x, [(scale.share(place), text) for place, text in scale.ticks])
        shares = (0.0, 0.5, 1.0) if high > low else (0.5,)
        _upright(axes, len(scales), [(share, show(low + share * (high - low), plan.metric.unit)) for share in shares])
        axes.set_xticks(range(len(scales) + 1), [*plan.keys, plan.metric.title])
        axes.set_yticks([])
        axes.set_xlim(-0.05, len(scales) + 0.25)
        axes.set_ylim(-0.04, 1.04)
        bare(axes)
    alt = f"{len(done)} configurations, each a line through {', '.join(plan.keys)} to {plan.metric.title}."
    return Chart("All keys together", alt, canvas.svg)


def importance_chart(name: str, shares: dict[str, float]) -> Chart | None:
    """Draw how much of the metric's variance each key accounts for; None where that is not known."""
    if not shares:
        return None
    keys = sorted(shares, key=lambda key: shares[key])
    with drawing(name, HALF[0], 80.0 + 30.0 * len(keys)) as canvas:
        axes = canvas.axes
        axes.barh(range(len(keys)), [shares[key] for key in keys], height=0.62, color=SERIES[0], linewidth=0)
        for row, key in enumerate(keys):
            axes.text(shares[key] + 0.01, row, f"{100 * shares[key]:.0f} %", va="center", color=INK)
        axes.set_yticks(range(len(keys)), keys)
        axes.set_xlim(0, 1.1)
        axes.set_xticks([])
        bare(axes)
    alt = "Importance: " + ", ".join(f"{key} {100 * shares[key]:.0f} %" for key in reversed(keys)) + "."
    caption = "Share of the variance of the metric that a key accounts for by itself and with others (fANOVA)."
    return Chart("Which key matters", alt, canvas.svg, caption=caption)


def _upright(axes: Axes, x: float, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=MUTED, lw=1, zorder=3)
    for place, text in ticks:
        axes.annotate(
            text, (x, place), (6, 0), textcoords="offset points", va="center", color=INK, fontsize=9, zorder=4,
            bbox={"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip
