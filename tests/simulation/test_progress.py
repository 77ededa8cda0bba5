"""The bar of a run in a terminal: rounds, clients per second, accuracy, and the log above it."""

from __future__ import annotations

import io
import logging
from itertools import count

import pytest
from rich.console import Console

from simulation.progress import Live, live_progress
from strategies.records import RoundRecord


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rounds_pace_and_accuracy_are_those_of_the_records() -> None:
    ticks = count(0.0, 2.0)
    live = Live(terminal(), 4, clock=lambda: next(ticks))
    live(RoundRecord(0, central={"accuracy": 0.1}))
    live(RoundRecord(1, accepted=("a", "b", "c", "d")))
    live(RoundRecord(2, accepted=("a", "b"), central={"accuracy": 0.875}, simulated_seconds=7200.0))
    (task,) = live.bar.tasks
    assert (task.completed, task.total) == (2, 4)
    assert task.fields["pace"] == "2 clients/s"  # 6 clients in 4 s, rounded to even
    assert task.fields["learning"] == "accuracy 87.5 %, 2 h 00 min simulated"


def test_before_the_first_client_there_is_no_pace() -> None:
    live = Live(terminal(), 4)
    live(RoundRecord(0))
    (task,) = live.bar.tasks
    assert (task.fields["pace"], task.fields["learning"]) == ("starting", "")


def test_the_log_stands_above_the_bar_and_goes_its_usual_way_afterwards() -> None:
    console, logger = terminal(), logging.getLogger("simulation")
    before = logger.handlers[:]
    with live_progress(console, 3) as live:
        live(RoundRecord(0))
        logger.warning("a worker [died] 100%%")
        live(RoundRecord(3, accepted=("a",)))
    assert "WARNING: a worker [died] 100%" in shown(console)
    assert "round 3/3" in shown(console)
    assert logger.handlers == before


def test_an_error_leaves_the_terminal_in_order() -> None:
    console, logger = terminal(), logging.getLogger("app")
    before = logger.handlers[:]
    with pytest.raises(KeyboardInterrupt), live_progress(console, 3):
        raise KeyboardInterrupt
    assert logger.handlers == before
    assert not console._live_stack  # rich has no other way to ask
