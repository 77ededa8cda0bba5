"""What came out of a sweep: configurations from best to worst, as values, as CSV files and as the best one's config."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import atomic
from app.report.findings import show
from app.report.reading import Run
from app.report.series import Over, positions
from app.run_directory import to_toml
from simulation.sweep.plan import Plan
from simulation.sweep.study import Configuration, Ended
from strategies.privacy.spending import Spending

_STATES = ("completed", "pruned", "failed", "crashed")


@dataclass(frozen=True)
class Result:
    """A configuration with what its runs reached: ``finals`` in the order of the seeds, NaN for what has no value.

    Of one that did not complete, the numbers tell how far it came.
    """

    configuration: Configuration
    finals: tuple[float, ...]
    median: float

    @property
    def state(self) -> str:
        """How it ended: "completed", "pruned", "failed" or "crashed"."""
        return self.configuration.outcome.state

    @property
    def label(self) -> str:
        """What was tried, as a few words."""
        return " · ".join(f"{key} {show(value)}" for key, value in self.configuration.values.items())

    @property
    def spread(self) -> tuple[float, float] | None:
        """The lowest and the highest value over the seeds; None where there are not two."""
        known = [value for value in self.finals if not math.isnan(value)]
        return (min(known), max(known)) if len(known) > 1 else None

    @property
    def runs(self) -> list[Run]:
        """What its runs have left."""
        return [each.run for each in self.configuration.ended if each.run is not None]

    @property
    def privacy(self) -> Spending | None:
        """What that of its runs came to which cost the most privacy; None where none was private."""
        paid = (run.spent for run in self.runs if run.spent is not None)
        return max(paid, key=lambda found: found.epsilon, default=None)

    @property
    def seconds(self) -> float:
        """The wall time of all its runs."""
        return sum(each.outcome.seconds for each in self.configuration.ended)

    @property
    def rounds(self) -> int:
        """The rounds of its longest run."""
        return max((len(run.trained) for run in self.runs), default=0)

    def spent(self, over: Over) -> float:
        """Return the median over its runs of the seconds, simulated seconds or bytes spent by their end."""
        ends = sorted(float(place[-1]) for run in self.runs if len(place := positions(run, over)))
        return ends[len(ends) // 2] if ends else 0.0


def ranked(plan: Plan, configurations: Iterable[Configuration]) -> list[Result]:
    """Return the best first: completed ones by their median, then stopped ones by how far they came, then the rest."""
    results = [_result(plan, configuration) for configuration in configurations]

    def order(result: Result) -> tuple[Any, ...]:
        reached = -result.rounds if result.state == "pruned" else 0
        return _STATES.index(result.state), reached, plan.metric.order(result.median), result.configuration.number

    return sorted(results, key=order)


def completed(results: Sequence[Result]) -> list[Result]:
    """Return those that ran to their end with a finite median, in their order."""
    return [result for result in results if result.state == "completed" and math.isfinite(result.median)]


def best_of(results: Sequence[Result]) -> Result | None:
    """Return the first of ranked results, if it completed and has a value."""
    if results and results[0].state == "completed" and not math.isnan(results[0].median):
        return results[0]
    return None


def middle_run(plan: Plan, result: Result) -> Ended:
    """Return the run whose value is the median, or, of an even number, the better one of the two in the middle."""
    pairs = zip(result.finals, result.configuration.ended, strict=True)
    by_value = sorted(pairs, key=lambda pair: plan.metric.order(pair[0]))
    return by_value[(len(by_value) - 1) // 2][1]


def write_results(folder: Path, plan: Plan, results: Sequence[Result]) -> None:
    """Write ``results.csv``, ``runs.csv`` and, where there is a best configuration, ``best.toml`` for ``-c``."""
    atomic.write_text(folder / "results.csv", _csv(_result_rows(plan, results)))
    atomic.write_text(folder / "runs.csv", _csv(_run_rows(plan, results)))
    best = best_of(results)
    if best is None:
        (folder / "best.toml").unlink(missing_ok=True)
        return
    config = plan.config(best.configuration.values, middle_run(plan, best).seed, f"{plan.name}-best")
    atomic.write_text(folder / "best.toml", to_toml(config.to_run_config()))


def _result(plan: Plan, configuration: Configuration) -> Result:
    finals = tuple(math.nan if each.run is None else plan.metric.final(each.run) for each in configuration.ended)
    return Result(configuration, finals, plan.metric.median(finals))


def _result_rows(plan: Plan, results: Sequence[Result]) -> list[list[Any]]:
    head = ["rank", "trial", *plan.keys, "state", f"{plan.metric.name}-median", "lowest", "highest", "seeds", "rounds"]
    private = ["epsilon", "delta", "privacy-caveat"] if any(result.privacy for result in results) else []
    rows: list[list[Any]] = [[*head, *private, "seconds", "simulated-seconds", "bytes", "reason"]]
    for rank, result in enumerate(results, start=1):
        tried, low_high = result.configuration, result.spread or (result.median, result.median)
        figures: list[Any] = [result.median, *low_high, len(tried.ended), result.rounds]
        if private:
            figures += ["", "", ""] if (paid := result.privacy) is None else [paid.epsilon, paid.delta, paid.caveat]
        spent = [round(result.seconds, 3), result.spent("simulated"), int(result.spent("bytes"))]
        values = [tried.values[key] for key in plan.keys]
        rows.append([rank, tried.number, *values, result.state, *figures, *spent, tried.outcome.reason])
    return rows


def _run_rows(plan: Plan, results: Sequence[Result]) -> list[list[Any]]:
    head = ["trial", *plan.keys, "seed", "state", plan.metric.name, "rounds", "seconds", "directory", "reason"]
    rows: list[list[Any]] = [head]
    for result in sorted(results, key=lambda result: result.configuration.number):
        tried = result.configuration
        for value, each in zip(result.finals, tried.ended, strict=True):
            rounds = len(each.run.trained) if each.run is not None else 0
            ending = [rounds, round(each.outcome.seconds, 3), each.outcome.directory, each.outcome.reason]
            values = [tried.values[key] for key in plan.keys]
            rows.append([tried.number, *values, each.seed, each.outcome.state, value, *ending])
    return rows


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in row] for row in rows])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return show(value)
    return "" if isinstance(value, float) and math.isnan(value) else value
