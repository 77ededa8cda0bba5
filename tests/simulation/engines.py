"""Whole runs of the real app on engines that all tests of a process share: to start one takes longer than its runs.

An engine is a process, which ends with the one that has started it: its input ends then.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

FEDBUFF: dict[str, Any] = {
    "strategy": "fedbuff", "buffer-size": 2, "concurrency": 4, "num-rounds": 4,
    "example-seconds": 0.1, "compute-spread": 0.8, "dropout": 0.1,
}  # fmt: skip
"""Clients of all speeds, some of which drop out: updates of different ages, in an order that only the world knows."""

PROGRAM = """
import json, os, sys
from dataclasses import replace
answers = os.fdopen(os.dup(1), "w")  # what is printed goes elsewhere
os.dup2(2, 1)
from app.config import RunConfig
from app.errors import UserError
from simulation import cluster
from simulation.resources import Wish
from simulation.simulate import ONE_OF_MANY, Simulation

def stop(record):
    if record.round == 1:
        raise UserError("that will do")

def told(simulation, configs):
    for config in configs:
        seen = []
        run = simulation.run(config, [lambda record: seen.append(record.round)], ONE_OF_MANY)  # a page takes a second
        yield [str(run.directory.path), seen, run.rounds]
    try:
        simulation.run(configs[0], observers=[stop])
    except UserError as error:
        yield str(error)

engine, by_workers = sys.argv[1], {}
if engine == "ray":
    cluster.start(Wish(workers=3))  # a pool of two and one of one
with Simulation(engine=engine) as started:
    for line in sys.stdin:
        folder, workers, configs = json.loads(line)
        simulation = by_workers.setdefault(workers, replace(started, workers=workers))
        configs = [RunConfig.from_run_config({**changes, "runs-dir": folder}) for changes in configs]
        print(json.dumps(list(told(simulation, configs))), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Engine:
    """A process that runs configs one after the other. All that it prints is in the file "log" of its folder."""

    process: subprocess.Popen[str]
    folder: tempfile.TemporaryDirectory[str]

    def ask(self, request: object) -> Any:
        """Return the answer to a request, both of them JSON in a line."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            warm.cache_clear()  # the next test gets another one
            pytest.fail((Path(self.folder.name) / "log").read_text()[-3000:])
        return json.loads(answer)


@functools.cache
def warm(kind: str) -> Engine:
    """Return the engine of this kind, "ray" or "inline"."""
    folder = tempfile.TemporaryDirectory(prefix="fedkeras-engine-", ignore_cleanup_errors=True)
    with (Path(folder.name) / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, kind],
            cwd=REPOSITORY, env={**os.environ, "FEDKERAS_CACHE": f"{folder.name}/cache"}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    return Engine(process, folder)


def warm_runs(folder: Path, engine: str, configs: Sequence[dict[str, Any]], workers: int = 2) -> list[Any]:
    """Return of each run its directory, the rounds that an observer saw, and their number; then what ended one more.

    The last one is a run of the first config that an observer ends after its first round.
    """
    folder.mkdir()
    return list(warm(engine).ask([str(folder), workers if engine == "ray" else None, list(configs)]))
