"""Where round records go: a log line, JSON files line by line, TensorBoard. Fed every round, then closed."""

from __future__ import annotations

import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from app.line_file import LineFile
from app.log_line import log_line
from app.run_directory import RunDirectory
from strategies.records import RoundRecord

GROUPS = (
    *("train", "central", "federated", "rejected", "bytes", "uplink", "seconds", "staleness", "privacy"),
    "update-norms",
)
"""Groups of a record whose numbers are scalars under their own names."""


class Sink(Protocol):
    """What a run's rounds are told to, in order."""

    def round(self, record: RoundRecord) -> None:
        """Take the record of a round that is over."""

    def flush(self) -> None:
        """Wait until all that was taken is where it belongs."""

    def close(self) -> None:
        """No more rounds will come."""


class LogLine:
    """One line per round, for the person who is watching."""

    def __init__(self, logger: logging.Logger, num_rounds: int) -> None:
        self._logger = logger
        self._num_rounds = num_rounds

    def round(self, record: RoundRecord) -> None:
        """Log the round."""
        self._logger.info("%s", log_line(record, self._num_rounds))

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is held."""


class JsonLines:
    """``metrics.jsonl``: a line per round, on the disk before the next round starts.

    An existing file is continued; a last line without its end, left by a killed process, is dropped first.
    """

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

    def round(self, record: RoundRecord) -> None:
        """Append the record."""
        self._file.append(record.to_json())

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ClientsJsonLines:
    """``clients.jsonl``: a line per federated evaluation with the scores of each client, aligned by position."""

    def __init__(self, path: Path) -> None:
        self._file = LineFile(path)

    def round(self, record: RoundRecord) -> None:
        """Append the clients' scores, if the round has any."""
        if (scores := record.federated) is None:
            return
        self._file.append(
            {
                "round": record.round,
                "clients": scores.clients,
                "examples": scores.examples,
                "losses": scores.losses,
                "accuracies": scores.accuracies,
            }
        )

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TensorBoard:
    """TensorBoard scalars, a step per round, written by the ``tensorboard`` package alone, without TensorFlow.

    What files of an earlier process tell of the first round it gets, and of later ones, does not count any more.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{platform.node()}.{os.getpid()}.{time.time_ns()}"
        self._file = (folder / name).open("wb")
        self._writer = RecordWriter(self._file)
        self._event, self._start = Event, SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._begun = False
        self._labelled = False

    def round(self, record: RoundRecord) -> None:
        """Write the scalars of the round, and once as a text why what they tell of privacy protects nobody, if so."""
        if not self._begun:
            self._write(self._event(wall_time=time.time(), step=record.round, session_log=self._start))
            self._begun = True
        event = self._event(wall_time=time.time(), step=record.round)
        for tag, value in scalars(record).items():
            event.summary.value.add(tag=tag, simple_value=value)
        if record.privacy is not None and record.privacy.caveat and not self._labelled:
            event.summary.MergeFrom(_text("privacy/caveat", f"The run {record.privacy.caveat}."))
            self._labelled = True
        self._write(event)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Close the event file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._file.flush()


class Background:
    """Feeds other sinks in a thread of its own, so that the next round need not wait for the disk.

    At most ``MOST_WAITING`` records wait; then `round` waits too. What a sink raises is raised by the next call of
    `round` or `close`, and the sinks get no more records. `close` writes what still waits.
    """

    MOST_WAITING = 64

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._records: queue.Queue[RoundRecord | None] = queue.Queue(self.MOST_WAITING)
        self._error: BaseException | None = None  # not raised yet
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="sinks", daemon=True)
        self._thread.start()

    def round(self, record: RoundRecord) -> None:
        """Hand the record on."""
        self._complain()
        self._records.put(record)

    def flush(self) -> None:
        """Wait until all records so far are written; raises what a sink has ever raised, as then they are not."""
        self._records.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Wait until all records are written, and close the sinks; again changes nothing."""
        if self._thread.is_alive():
            self._records.put(None)
            self._thread.join()
            for sink in self._sinks:
                sink.close()
        self._complain()

    def _complain(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _work(self) -> None:
        while (record := self._records.get()) is not None:
            try:
                for sink in self._sinks if self._failure is None else ():
                    sink.round(record)
            except Exception as error:
                self._failure = self._error = error
            finally:
                self._records.task_done()


def file_sinks(directory: RunDirectory) -> tuple[Sink, ...]:
    """Return the sinks that write into the run directory."""
    return JsonLines(directory.metrics), ClientsJsonLines(directory.clients), TensorBoard(directory.tensorboard)


def run_sinks(directory: RunDirectory, logger: logging.Logger, num_rounds: int) -> tuple[Sink, ...]:
    """Return the sinks of a run in a deployment: each round is on the disk before the next begins."""
    return (*file_sinks(directory), LogLine(logger, num_rounds))


def scalars(record: RoundRecord) -> dict[str, float]:
    """Return the numbers of a round under names like ``central/accuracy``, ``rejected/late``, ``seconds/train``."""
    line = record.to_json()
    named: dict[str, float] = {
        "clients/offered": line["offered"],
        "clients/selected": line["selected"],
        "clients/accepted": line["accepted"],
        "clients/participation": line["participation"],
        "clients/banned": line["banned"],
        "round/skipped": float(record.skipped),
    }
    if record.learning_rate is not None:
        named["train/learning-rate"] = record.learning_rate
    if record.example_privacy is not None:
        named["example-privacy/epsilon"] = record.example_privacy["epsilon"]
    if record.simulated_seconds is not None:
        named["seconds/simulated"] = record.simulated_seconds
    named.update({f"diversity/{kind}": told["effective"] for kind, told in (line["diversity"] or {}).items()})
    for group in GROUPS:
        values = line[group] or {}
        named.update({f"{group}/{key}": value for key, value in values.items() if isinstance(value, int | float)})
    return named


def _text(tag: str, text: str) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    return text_pb(tag, text)
