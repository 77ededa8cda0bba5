"""Heat maps of a sweep: the median of every pair of values as a coloured cell, alone or panel beside panel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from app.report.curves import show
from app.report.figure import INK, MUTED, SERIES, Chart, drawing
from app.report.findings import show as plain
from simulation.sweep.metrics import Metric
from simulation.sweep.plan import Plan
from simulation.sweep.results import Result, completed
from simulation.sweep.scales import Scale, scale_of
from simulation.sweep.sections import Range
from simulation.sweep.table import Pivot

HALF = (564.0, 420.0)
PANEL_WIDTH, WIDEST, ROW_HEIGHT, REST = 520.0, 1150.0, 34.0, 110.0
_STRONGEST = 0.6
_STOPPED = {"pruned": "stopped", "failed": "failed", "crashed": "crashed"}
_KEY_TO_CELLS = "The median over the seeds; the better, the stronger the colour."


def heat_chart(name: str, plan: Plan, results: Sequence[Result]) -> Chart | None:
    """Draw the median for each pair of values, where two keys vary and neither is drawn from a range; else None."""
    if len(plan.keys) != 2 or any(isinstance(draw, Range) for draw in plan.random.values()):
        return None
    down, across = (scale_of(plan, key) for key in plan.keys)
    with drawing(name, HALF[0], min(HALF[1], 100.0 + 44.0 * (down.high + 1))) as canvas:
        axes = canvas.axes
        for result, strength in zip(results, _strengths(results, plan.metric), strict=True):
            row, column = result.configuration.values.values()
            _cell(axes, across.place(column), down.place(row), strength, words_of(result, plan.metric))
        _frame(axes, across, down)
        axes.set_ylabel(plan.keys[0])
        axes.set_xlabel(plan.keys[1])
    alt = "Heat map. " + "; ".join(f"{result.label}: {words_of(result, plan.metric)}" for result in results) + "."
    return Chart(f"{plan.metric.title} by {plan.keys[0]} and {plan.keys[1]}", alt, canvas.svg, caption=_KEY_TO_CELLS)


def panels_chart(name: str, plan: Plan, pivot: Pivot) -> Chart:
    """Draw a table: rows by columns, a panel for each value of the third key, in one scale of colours."""
    down, across = scale_of(plan, pivot.table.rows), scale_of(plan, pivot.table.columns)
    strengths = dict(zip(map(id, pivot.results), _strengths(pivot.results, plan.metric), strict=True))
    width = min(WIDEST, PANEL_WIDTH * len(pivot.panels) + REST)
    with drawing(name, width, REST + ROW_HEIGHT * (down.high + 1)) as canvas:
        canvas.figure.clear()
        panels = canvas.figure.subplots(1, len(pivot.panels), sharey=True, squeeze=False)[0]
        for axes, panel in zip(panels, pivot.panels, strict=True):
            for (row, column), result in pivot.cells(panel):
                words = words_of(result, plan.metric).removesuffix(" %")
                _cell(axes, across.place(column), down.place(row), strengths[id(result)], words)
            _frame(axes, across, down)
            axes.invert_yaxis()
            axes.tick_params(axis="x", rotation=30)
            axes.set_title(
                f"{pivot.table.panels} {plain(panel)}" if pivot.table.panels else "", color=MUTED, fontsize=10
            )
    unit = ", in %" if plan.metric.unit == "share" else ""
    alt = "Heat map. " + "; ".join(f"{result.label}: {words_of(result, plan.metric)}" for result in pivot.results) + "."
    title = f"{plan.metric.title} by {pivot.table.rows} and {pivot.table.columns}{unit}"
    return Chart(title, alt, canvas.svg, caption=_KEY_TO_CELLS)


def words_of(result: Result, metric: Metric) -> str:
    """Return what to write for a result: its median, or why it has none."""
    return _STOPPED.get(result.state) or (
        "not finite" if math.isnan(result.median) else show(result.median, metric.unit)
    )


def _strengths(results: Sequence[Result], metric: Metric) -> list[float]:
    """Return how strong the colour of each result is: 0 where it has no median; squares tell the best ones apart."""
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


def _frame(axes: Axes, across: Scale, down: Scale) -> None:
    axes.set_xlim(-0.5, across.high + 0.5)
    axes.set_ylim(-0.5, down.high + 0.5)
    axes.set_xticks([place for place, _ in across.ticks], [text for _, text in across.ticks])
    axes.set_yticks([place for place, _ in down.ticks], [text for _, text in down.ticks])
    bare(axes)


def bare(axes: Axes) -> None:
    """Take grid and spines away."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
