"""``report.html`` of a sweep: the best configuration, how all of them learnt, what each key does, and a table."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app import atomic
from app.report.build import OVERS
from app.report.curves import show
from app.report.figure import Chart, Key
from app.report.findings import NONE, Figure
from app.report.findings import show as plain
from app.report.page_frame import render_page
from app.report.series import overs
from app.units import human_seconds
from simulation.sweep.charts import (
    SHOWN,
    curves_chart,
    importance_chart,
    keys_of,
    parallel_chart,
    slice_chart,
)
from simulation.sweep.heat import heat_chart, panels_chart, words_of
from simulation.sweep.page_template import SWEEP_PAGE
from simulation.sweep.plan import Plan
from simulation.sweep.results import Result, best_of
from simulation.sweep.table import Pivot

MAX_ROWS = 300


def write_page(folder: Path, plan: Plan, results: Sequence[Result], importance: Mapping[str, float]) -> Path:
    """Write the page into the sweep's folder and return where it lies. Raises OSError where the disk refuses."""
    target = folder / "report.html"
    atomic.write_text(target, render(folder, plan, results, importance))
    return target


def render(folder: Path, plan: Plan, results: Sequence[Result], importance: Mapping[str, float]) -> str:
    """Return the page as HTML. ``results`` are ranked; everything that comes from a run or the file is escaped."""
    keys, best, pivot = keys_of(results), best_of(results), Pivot.of(plan, results)
    heat = heat_chart("heat", plan, results) if pivot is None else None
    together = _present(heat, importance_chart("importance", dict(importance)))
    return render_page(
        SWEEP_PAGE,
        f"Sweep {plan.name}",
        subtitle=_subtitle(plan),
        tiles=_tiles(plan, results),
        pivot=None if pivot is None else _pivot(plan, pivot),
        notes=_notes(plan, results),
        best=None if best is None else [(key, plain(value)) for key, value in best.configuration.values.items()],
        command=f"fedkeras simulate -c {shlex.quote(str(folder / 'best.toml'))}",
        metric=_lower(plan.metric.title),
        seeds=len(plan.seeds),
        legend_keys=_legend(keys),
        curves=_curves(plan, results),
        slices=_present(*(slice_chart(f"slice{n}", plan, results, key) for n, key in enumerate(plan.keys))),
        together=together,
        parallel=parallel_chart("parallel", plan, results) if len(plan.keys) > 2 or not together else None,
        head=_head(plan, results),
        rows=[_row(plan, results, rank) for rank in range(min(len(results), MAX_ROWS))],
        left_out=max(0, len(results) - MAX_ROWS),
        fixed=[(key, plain(value)) for key, value in plan.base.items()],
    )


def _subtitle(plan: Plan) -> str:
    config = plan.config({}, plan.seeds[0], "")
    varied = f"varying {', '.join(plan.keys)}"
    named = {"strategy": config.strategy, "dataset": config.dataset, "model": config.model}
    return " · ".join([*(value for key, value in named.items() if key not in plan.keys), varied])


def _tiles(plan: Plan, results: Sequence[Result]) -> list[Figure]:
    best = best_of(results)
    runs = [each for result in results for each in result.configuration.ended]
    states = Counter(result.state for result in results)
    wall = sum(result.seconds for result in results)
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    return [
        Figure(f"Best {_lower(plan.metric.title)}", NONE if best is None else _value(plan, best), _spread(plan, best)),
        Figure("Configurations", str(len(results)), told),
        Figure("Runs", str(len(runs)), f"{len(plan.seeds)} seed{'s' if len(plan.seeds) > 1 else ''} each at most"),
        Figure("Wall time", human_seconds(wall), f"{human_seconds(wall / len(runs))} per run" if runs else ""),
    ]


def _notes(plan: Plan, results: Sequence[Result]) -> list[str]:
    found = []
    if len(results) < plan.configurations and not plan.random:
        found.append(f"{plan.configurations - len(results)} of {plan.configurations} configurations are still to run.")
    if best_of(results) is None:
        found.append("No configuration was run to its end with a finite value, so there is no best one.")
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.state in ("failed", "crashed"):
            reasons.setdefault(result.configuration.outcome.reason, []).append(result.label)
    found += [f"{_some(labels)} failed: {reason}" for reason, labels in reasons.items()]
    caveats: dict[str, list[str]] = {}
    for result in results:
        if result.privacy is not None and result.privacy.caveat:
            caveats.setdefault(result.privacy.caveat, []).append(result.label)
    return found + [f"{_some(labels)}: the run {caveat}." for caveat, labels in caveats.items()]


def _curves(plan: Plan, results: Sequence[Result]) -> list[Chart]:
    """Draw the metric over rounds, simulated time and bytes; real time says more of a run's place in the sweep.

    The first run starts the workers and compiles what the later ones find.
    """
    measured, title = [result for result in results if result.runs], plan.metric.title
    if not measured:
        return []
    chosen = [over for over in overs([run for result in measured for run in result.runs]) if over != "seconds"]
    return _present(
        *(
            curves_chart(
                f"curves-{over}", f"{title} over {OVERS[over]}", results, plan.metric.measure, over, plan.metric
            )
            for over in chosen
        )
    )


def _legend(keys: Sequence[Key]) -> list[Key]:
    rest = len(keys) - SHOWN
    others = [Key(f"{rest} other{'s' if rest > 1 else ''}", keys[-1].colour)] if rest > 0 else []
    return [*keys[:SHOWN], *others]


def _head(plan: Plan, results: Sequence[Result]) -> list[str]:
    epsilon = ["epsilon"] if _private(results) else []
    clock = ["simulated time"] if _simulated(results) else []
    figures = [plan.metric.title, "seeds, lowest to highest", *epsilon, "rounds", *clock, "wall time"]
    return ["", *plan.keys, *figures, "ended"]


def _row(plan: Plan, results: Sequence[Result], rank: int) -> dict[str, Any]:
    result = results[rank]
    clock = [human_seconds(result.spent("simulated"))] if _simulated(results) else []
    values = [plain(result.configuration.values[key]) for key in plan.keys]
    epsilon = [NONE if result.privacy is None else result.privacy.epsilon_in_words] if _private(results) else []
    spent = [str(result.rounds), *clock, human_seconds(result.seconds)]
    figures = [_value(plan, result), _spread(plan, result), *epsilon, *spent]
    return {"key": keys_of(results)[rank], "rank": rank + 1, "cells": [*values, *figures], "state": result.state}


def _pivot(plan: Plan, pivot: Pivot) -> dict[str, Any]:
    """Return the table as the page shows it: as a chart, and in numbers."""
    by_panel = bool(pivot.table.panels)

    def shown(cell: Result | None) -> str:
        return NONE if cell is None else words_of(cell, plan.metric)

    rows = [
        {"names": [*([plain(panel)] if by_panel else []), plain(row)], "cells": [shown(cell) for cell in cells]}
        for panel, row, cells in pivot.lines()
    ]
    return {
        "chart": panels_chart("table", plan, pivot),
        "names": [*([pivot.table.panels] if by_panel else []), pivot.table.rows],
        "columns": [plain(column) for column in pivot.columns],
        "rows": rows,
    }


def _value(plan: Plan, result: Result) -> str:
    return NONE if math.isnan(result.median) else show(result.median, plan.metric.unit)


def _spread(plan: Plan, result: Result | None) -> str:
    if result is None or result.spread is None:
        return ""
    return " to ".join(show(value, plan.metric.unit) for value in result.spread)


def _private(results: Sequence[Result]) -> bool:
    return any(result.privacy is not None for result in results)


def _simulated(results: Sequence[Result]) -> bool:
    return any(
        record.simulated_seconds is not None for result in results for run in result.runs for record in run.rounds
    )


def _some(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]


def _present(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
