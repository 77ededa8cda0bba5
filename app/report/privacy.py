"""What a run is worth in privacy: epsilon over its rounds and the budget, the clipping norm, and what that covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.plain_json import number
from app.report.curves import WIDE, Trace, trace_chart
from app.report.figure import AXIS, Chart, Key, series_colour
from app.report.findings import NONE, Figure
from app.report.reading import Run
from app.report.series import Curve, curve
from strategies.privacy.spending import Spending

Section = dict[str, Any]


def figures(runs: Sequence[Run]) -> list[list[Figure]]:
    """Return a headline figure for each run, or none at all where no run was private."""
    if all(run.spent is None for run in runs):
        return [[] for _ in runs]
    return [[_figure(run.spent)] for run in runs]


def section(slug: str, run: Run) -> Section | None:
    """Return what the page says and shows of a private run; ``slug`` keeps its charts' ids apart from other runs'."""
    if run.spent is None:
        return None
    charts = (epsilon_chart(f"{slug}-epsilon", run), norm_chart(f"{slug}-norm", run))
    return {"meaning": run.spent.meaning, "charts": [chart for chart in charts if chart is not None]}


def epsilon_chart(name: str, run: Run) -> Chart | None:
    """Draw epsilon over the rounds, and the budget; nothing where it is infinite from the first round on."""
    points = curve(run, lambda record: None if record.privacy is None else record.privacy.epsilon)
    if not np.isfinite(points.y).any():
        return None
    traces = [Trace(Key("epsilon", series_colour(0)), points)]
    if (budget := number(run.config.get("budget-epsilon", 0.0))) > 0:
        traces.append(Trace(Key("budget", AXIS, "5 3"), Curve(points.x[[0, -1]], np.array([budget, budget]))))
    return trace_chart(name, "Epsilon over rounds", traces, "rounds", "number", WIDE)


def norm_chart(name: str, run: Run) -> Chart | None:
    """Draw the clipping norm over the rounds; nothing where it is the same in all of them."""
    points = curve(run, lambda record: None if record.privacy is None else record.privacy.noise.get("clipping-norm"))
    if len(np.unique(points.y)) < 2:
        return None
    return trace_chart(
        name,
        "Clipping norm over rounds",
        [Trace(Key("clipping norm", series_colour(1)), points)],
        "rounds",
        "number",
        WIDE,
    )


def _figure(last: Spending | None) -> Figure:
    if last is None:
        return Figure("Epsilon", NONE, "no differential privacy")
    if not math.isfinite(last.epsilon):
        return Figure("Epsilon", last.epsilon_in_words, "there is no noise")
    left = "" if last.left is None else f", {last.left:.3g} left"
    detail = last.caveat or f"delta {last.delta:g}, by {last.accountant}{left}"
    return Figure("Epsilon", last.epsilon_in_words, detail)
