"""A process that may not write long files any more, as on a full disk: it goes on, says so once, and can be resumed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.checkpoints import Checkpoints
from app.run_directory import RunDirectory
from tests.app.inline_runs import REPOSITORY, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = 150
CONFIG: dict[str, Any] = {**SMALL, "model": "mlp", "num-rounds": ROUNDS, "federated-evaluate-every": 0}
CONFIG |= {"checkpoint-share": 1.0}  # one after every round
TOO_SMALL = 200_000  # bytes: a checkpoint has more, all other files have less


@contextmanager
def started(folder: Path, config: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.end_to_end.killed_runs", "inline", "none", "0", json.dumps([config])]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "FEDKERAS_CACHE": str(folder / "cache")}
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=log, stdout=log, text=True) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    while not until():
        assert process.poll() is None, "the run has ended"
        time.sleep(0.005)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def no_longer_than(process: subprocess.Popen[str], size: int) -> None:
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, most))


def directory_in(folder: Path, process: subprocess.Popen[str]) -> RunDirectory:
    wait(process, lambda: bool(list(folder.glob("*/metrics.jsonl"))))
    (metrics,) = folder.glob("*/metrics.jsonl")
    return RunDirectory(metrics.parent)


def test_a_run_outlives_a_full_disk_with_one_alert_and_its_last_checkpoint(tmp_path: Path) -> None:
    config = {**CONFIG, "runs-dir": str(tmp_path / "runs")}
    with started(tmp_path, config) as process:
        left = directory_in(tmp_path / "runs", process)
        wait(process, lambda: len(lines(left.metrics)) > 5)
        no_longer_than(process, TOO_SMALL)
        wait(process, lambda: len(lines(left.alerts)) == 1)
        no_longer_than(process, resource.RLIM_INFINITY)
        wait(process, lambda: len(lines(left.alerts)) == 2)
        no_longer_than(process, TOO_SMALL)
        seen = len(lines(left.metrics))
        wait(process, lambda: len(lines(left.metrics)) > seen + 5)
        process.kill()
    told = [(line["alert"], line["state"]) for line in lines(left.alerts)]
    assert told == [("checkpoint", "firing"), ("checkpoint", "resolved"), ("checkpoint", "firing")]
    kept = Checkpoints(left.checkpoints).newest()
    assert kept is not None and kept.round == lines(left.metrics)[-1]["checkpoint"]
    goes_on_to_the_end(tmp_path, {**config, "num-rounds": kept.round + 10}, left, kept.round)


def goes_on_to_the_end(folder: Path, config: dict[str, Any], left: RunDirectory, after: int) -> None:
    with started(folder, {**config, "resume": str(left.path)}) as process:
        assert process.wait() == 0
    status = left.read_status()
    assert (status["state"], status["rounds"], status["resumed-after"]) == ("completed", after + 10, [after])
    assert [line["round"] for line in lines(left.metrics)] == list(range(after + 11))
    assert lines(left.alerts)[-1]["state"] == "resolved"  # that which fired last was of rounds that were done again
