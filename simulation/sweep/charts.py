"""The pictures of a sweep: curves of configurations, what each key does, and how keys act together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from app.report.curves import Trace, scale_y, show, trace_chart
from app.report.figure import AXIS, CARD, INK, MUTED, SERIES, Chart, Key, drawing, series_colour
from app.report.reading import Run
from app.report.series import Curve, Measure, Over, curve
from simulation.sweep.metrics import Metric
from simulation.sweep.plan import Plan
from simulation.sweep.results import Result, completed
from simulation.sweep.scales import scale_of
from simulation.sweep.sections import Range

SHOWN = len(SERIES)
SLICE = (470.0, 250.0)
HALF = (564.0, 420.0)
FULL = (1150.0, 340.0)
_STRONGEST = 0.6
_STOPPED = {"pruned": "stopped", "failed": "failed", "crashed": "crashed"}


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
        axes.set_xlabel(key)
        scale_y(
            axes,
            np.array([value for result in done for value in (result.median, *(result.spread or ()))]),
            plan.metric.unit,
        )
    low, high = (show(end([result.median for result in done]), plan.metric.unit) for end in (min, max))
    alt = f"{plan.metric.title} against {key} for {len(done)} configurations: from {low} to {high}."
    return Chart(f"{plan.metric.title} by {key}", alt, canvas.svg)


def heat_chart(name: str, plan: Plan, results: Sequence[Result]) -> Chart | None:
    """Draw the median for each pair of values, where two keys vary and neither is drawn from a range; else None."""
    if len(plan.keys) != 2 or any(isinstance(draw, Range) for draw in plan.random.values()):
        return None
    down, across = (scale_of(plan, key) for key in plan.keys)
    with drawing(name, HALF[0], min(HALF[1], 100.0 + 44.0 * (down.high + 1))) as canvas:
        axes = canvas.axes
        for result, strength in zip(results, _strengths(results, plan.metric), strict=True):
            row, column = result.configuration.values.values()
            _cell(axes, across.place(column), down.place(row), strength, _words(result, plan.metric))
        axes.set_xlim(-0.5, across.high + 0.5)
        axes.set_ylim(-0.5, down.high + 0.5)
        axes.set_xticks([place for place, _ in across.ticks], [text for _, text in across.ticks])
        axes.set_yticks([place for place, _ in down.ticks], [text for _, text in down.ticks])
        axes.set_ylabel(plan.keys[0])
        axes.set_xlabel(plan.keys[1])
        _bare(axes)
    alt = "Heat map. " + "; ".join(f"{result.label}: {_words(result, plan.metric)}" for result in results) + "."
    return Chart(f"{plan.metric.title} by {plan.keys[0]} and {plan.keys[1]}", alt, canvas.svg, caption=_KEY_TO_CELLS)


_KEY_TO_CELLS = "The median over the seeds; the better, the stronger the colour."


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
        _bare(axes)
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
        _bare(axes)
    alt = "Importance: " + ", ".join(f"{key} {100 * shares[key]:.0f} %" for key in reversed(keys)) + "."
    caption = "Share of the variance of the metric that a key accounts for by itself and with others (fANOVA)."
    return Chart("Which key matters", alt, canvas.svg, caption=caption)


def _words(result: Result, metric: Metric) -> str:
    return _STOPPED.get(result.state) or (
        "not finite" if math.isnan(result.median) else show(result.median, metric.unit)
    )


def _strengths(results: Sequence[Result], metric: Metric) -> list[float]:
    """Return how strong the colour of each result is: 0 where it has no median."""
    done = completed(results)
    best, worst = (done[0].median, done[-1].median) if done else (0.0, 0.0)
    span = (best - worst) or 1.0
    return [
        0.06 + (_STRONGEST - 0.06) * ((result.median - worst) / span) ** 2 if result in done else 0.0
        for result in results
    ]


def _cell(axes: Axes, x: float, y: float, strength: float, words: str) -> None:
    corner = (x - 0.47, y - 0.45)
    axes.add_patch(Rectangle(corner, 0.94, 0.9, facecolor=SERIES[0], alpha=strength, linewidth=0))
    axes.text(x, y, words, ha="center", va="center", color=INK if strength else MUTED)


def _upright(axes: Axes, x: float, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=MUTED, lw=1, zorder=3)
    for place, text in ticks:
        axes.annotate(
            text, (x, place), (6, 0), textcoords="offset points", va="center", color=INK, fontsize=9, zorder=4,
            bbox={"facecolor": CARD, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip


def _bare(axes: Axes) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
