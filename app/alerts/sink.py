"""Alerts of a run as a sink of its rounds: to the log, to ``alerts.jsonl``, and to whoever else listens."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.alerts.engine import Engine, Event
from app.alerts.rules import USED_UP
from app.line_file import LineFile
from strategies.records import RoundRecord

logger = logging.getLogger(__name__)

Listener = Callable[[Event], None]


class AlertSink:
    """Feeds an engine, and tells its events. A run that goes on in its directory goes on with its alerts too.

    A listener must not raise. What cannot be written to the file is in the log all the same, and ends no run.
    """

    def __init__(self, engine: Engine, metrics: Path, alerts: Path, listeners: Sequence[Listener] = ()) -> None:
        self._engine, self._path, self._listeners = engine, alerts, listeners
        engine.go_on(_lines(metrics), map(read_event, _lines(alerts)))
        self._file: LineFile | None = None  # made by the first event
        for event in engine.active:  # of which those who listen now know nothing
            self._tell(event)

    def round(self, record: RoundRecord) -> None:
        """Tell what begins and ends with the round."""
        self._announce(self._engine.round(record.to_json()))

    def budget_spent(self, next_round: int) -> None:
        """Tell that the run ends as no round is left that the budget of privacy allows."""
        self._announce(
            self._engine.fire(USED_UP, f"The budget of privacy is used up: round {next_round} would exceed it.")
        )

    def ended(self, checkpoint: int | None, failed: int) -> None:
        """Tell what shows once the run is over: the last round that is kept, and how many in a row could not be."""
        self._announce(self._engine.end(checkpoint, failed))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _announce(self, events: Iterable[Event]) -> None:
        for event in events:
            name = f"{event.alert} ({event.subject})" if event.subject else event.alert
            if event.state == "firing":
                logger.warning("Alert after round %d, %s: %s", event.round, name, event.text)
            else:
                logger.info("Alert over after round %d, %s: %s", event.round, name, event.text)
            self._write(event)
            self._tell(event)

    def _write(self, event: Event) -> None:
        try:
            self._file = self._file or LineFile(self._path)
            self._file.append({**event.to_json(), "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"})
        except OSError as error:
            logger.warning("An alert could not be written to %s: %s", self._path, error.strerror)

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def read_event(line: Any) -> Event:
    """Return what a line of ``alerts.jsonl`` tells. Raises KeyError, TypeError or ValueError where it is none."""
    if line["state"] not in ("firing", "resolved"):
        raise ValueError("a state is 'firing' or 'resolved'")
    return Event(int(line["round"]), str(line["alert"]), str(line["subject"]), line["state"], str(line["text"]))


def _lines(path: Path) -> Iterable[Any]:
    if path.is_file():
        with path.open("rb") as file:
            yield from (json.loads(line) for line in file if line.endswith(b"\n"))
