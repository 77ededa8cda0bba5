"""What is opened for a run and closed with it: all of it, or nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.checkpoints import Checkpoints
from app.config import RunConfig
from app.output import Keeping, Output
from app.recording import Recording
from app.run_directory import RunDirectory
from app.sinks import Sink
from tests.app.scripted_lines import record
from tests.app.snapshots import state


class Noted:
    """A sink that notes what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()

    def round(self, record: Any) -> None:
        self.asked.append("round")

    def flush(self) -> None:
        self.asked.append(f"flush before {len(list(self.folder.glob('checkpoints/*')))}")

    def close(self) -> None:
        self.asked.append(f"close after {len(list(self.folder.glob('checkpoints/*')))}")


class Remembering:
    """Watches a run, and remembers a number."""

    def state(self) -> dict[str, Any]:
        return {"seen": np.array(7)}

    def go_on(self, state: Any, weights: Any) -> None:
        raise AssertionError("this run begins anew")


def keeping(folder: Path, every: int = 1) -> Keeping:
    return Keeping(Checkpoints(folder / "checkpoints"), every, 1.0, None, Remembering())


@pytest.mark.parametrize("when", ["before the next round", "meanwhile"])
def test_checkpoints_wait_for_the_sinks_and_the_sinks_are_closed_after_the_last_of_them(
    tmp_path: Path, when: Any
) -> None:
    sink, kept = Noted(tmp_path), keeping(tmp_path, every=2)
    output = Output(lambda directory, logger, rounds: (sink,), checkpoints=when)
    recording = Recording.of(RunConfig(), RunDirectory(tmp_path), output, kept)
    for number in range(2):
        for each in recording.sinks:
            each.round(record(number))
        recording.journal.finished(state(number))
        recording.journal.saved()
    recording.close()
    assert sink.asked == ["round", "flush before 0", "round", "flush before 1", "close after 2"]
    newest = kept.checkpoints.newest()
    assert newest is not None and newest.round == 1 and int(newest.watched["seen"]) == 7


def test_where_a_sink_cannot_be_opened_nothing_stays_open(tmp_path: Path) -> None:
    def full(*_: Any) -> tuple[Sink, ...]:
        raise OSError(28, "No space left on device")

    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    config = RunConfig.from_run_config({"prometheus-port": port})
    with pytest.raises(OSError, match="No space left"):
        Recording.of(config, RunDirectory(tmp_path), Output(full), keeping(tmp_path))
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("", port))  # where somebody listened still, this would fail
