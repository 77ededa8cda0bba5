"""How a run looks in a terminal while it lasts: a bar with rounds, clients per second, time left and accuracy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.console import OURS, PlainLines
from app.units import human_seconds, percent
from strategies.records import RoundRecord


class ThroughConsole(logging.Handler):
    """Writes log records above the bar instead of through it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.setFormatter(PlainLines())
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as a line, errors in red."""
        style = "red" if record.levelno >= logging.ERROR else None
        self._console.print(self.format(record), markup=False, highlight=False, style=style)


@dataclass
class Live:
    """An observer of rounds that keeps a bar up to date."""

    console: Console
    num_rounds: int
    clock: Callable[[], float] = time.perf_counter
    _clients: int = 0
    _accuracy: str = ""

    def __post_init__(self) -> None:
        columns = (
            TextColumn("round {task.completed}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[learning]}"),
        )
        self.bar = Progress(*columns, console=self.console)
        self._task = self.bar.add_task("", total=self.num_rounds, pace="starting", learning="")
        self._started = self.clock()

    def __call__(self, record: RoundRecord) -> None:
        """Show a round that is over. Time counts from the first record, that of the initial model."""
        now = self.clock()
        if record.round == 0:
            self._started = now
        self._clients += len(record.accepted)
        if record.central and "accuracy" in record.central:
            self._accuracy = percent(record.central["accuracy"])
        seconds = now - self._started
        pace = f"{self._clients / seconds:.0f} clients/s" if self._clients and seconds > 0 else "starting"
        self.bar.update(self._task, completed=record.round, pace=pace, learning=self._learning(record))

    def _learning(self, record: RoundRecord) -> str:
        parts = [f"accuracy {self._accuracy}"] if self._accuracy else []
        if record.simulated_seconds is not None:
            parts.append(f"{human_seconds(record.simulated_seconds)} simulated")
        return ", ".join(parts)


@contextmanager
def live_progress(console: Console, num_rounds: int) -> Iterator[Live]:
    """Show a bar until the end; what our packages log meanwhile stands above it."""
    live = Live(console, num_rounds)
    handler, before = ThroughConsole(console), {name: logging.getLogger(name).handlers[:] for name in OURS}
    for name in OURS:
        logging.getLogger(name).handlers[:] = [handler]
    try:
        with live.bar:
            yield live
    finally:
        for name, handlers in before.items():
            logging.getLogger(name).handlers[:] = handlers
