"""A sweep over two or three keys as a table: one key down, one across, and a panel for each value of the third."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app import atomic
from app.config import Value
from app.report.findings import show
from simulation.sweep.plan import Plan
from simulation.sweep.results import Result
from simulation.sweep.sections import Table


@dataclass(frozen=True)
class Pivot:
    """Results by their places in a table; values stand as in the file. Without a third key there is one panel, ""."""

    table: Table
    panels: tuple[Value, ...]
    rows: tuple[Value, ...]
    columns: tuple[Value, ...]
    results: Sequence[Result]

    @classmethod
    def of(cls, plan: Plan, results: Sequence[Result]) -> Pivot | None:
        """Return the table of a sweep; None where its file asks for none."""
        table = plan.table
        if table is None:
            return None
        panels = plan.grid[table.panels] if table.panels else ("",)
        return cls(table, panels, plan.grid[table.rows], plan.grid[table.columns], results)

    def cells(self, panel: Value) -> Iterator[tuple[tuple[Value, Value], Result]]:
        """Yield (row, column) and result of every configuration of a panel that was tried."""
        for result in self.results:
            values = result.configuration.values
            if values.get(self.table.panels, "") == panel:
                yield (values[self.table.rows], values[self.table.columns]), result

    def lines(self) -> Iterator[tuple[Value, Value, list[Result | None]]]:
        """Yield panel, row and its results from column to column, None where nothing was tried yet."""
        for panel in self.panels:
            found = dict(self.cells(panel))
            for row in self.rows:
                yield panel, row, [found.get((row, column)) for column in self.columns]


def write_table(folder: Path, pivot: Pivot) -> None:
    """Write ``table.csv``: a line per panel and row, the median of each column; empty where there is none."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    table = pivot.table
    panel_key = [table.panels] if table.panels else []
    lines.writerow([*panel_key, table.rows, *(show(column) for column in pivot.columns)])
    for panel, row, results in pivot.lines():
        head = [show(panel)] if table.panels else []
        lines.writerow([*head, show(row), *(_median(result) for result in results)])
    atomic.write_text(folder / "table.csv", text.getvalue())


def _median(result: Result | None) -> float | str:
    known = result is not None and result.state == "completed" and math.isfinite(result.median)
    return result.median if known and result is not None else ""
