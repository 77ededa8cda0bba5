"""Flower for one test module: a home and ports of its own, and an end to all that was started, whatever happened.

SuperLinks, Ray and its workers outlive the commands that start them. They inherit a mark in their environment, by which
they are found again and killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.flower_commands import ENVIRONMENT
from app.superlink import scripts
from tests.app.inline_runs import Left, latest

MARK = "FEDKERAS_TEST_RUN"
LONGEST_RUN = 400.0  # s; a run takes a tenth of it on a quiet machine


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code and all that it printed."""

    code: int
    output: str


@dataclass
class Flower:
    """Commands in an environment of their own. ``folder`` is where they start, where nothing shadows the app's code."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.user = self.folder / "user"
        self.home.mkdir()
        self.user.mkdir()
        self.port = free_port()
        ours = {
            "HOME": str(self.home),
            "FLWR_HOME": str(self.home / ".flwr"),
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self.port),
            "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
            "FEDKERAS_CACHE": str(self.home / "cache"),
            MARK: self.mark,
        }
        self.environment = {**os.environ, **ours, "PATH": f"{scripts()}{os.pathsep}{os.environ['PATH']}"}
        self.environment.pop("PYTHONPATH", None)

    def start(self, *command: str, cwd: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, with its output in one pipe."""
        return subprocess.Popen(
            command,
            cwd=cwd or self.user,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def call(self, *command: str, cwd: Path | None = None, **variables: str) -> Ended:
        """Run a command to its end; it is killed when it takes too long."""
        process = self.start(*command, cwd=cwd, **variables)
        try:
            output, _ = process.communicate(timeout=LONGEST_RUN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"{command} did not end; it printed:\n{output[-3000:]}")
        return Ended(process.returncode, output)

    def fedkeras(self, *arguments: str) -> Ended:
        """Run the ``fedkeras`` command from the user's folder."""
        return self.call("fedkeras", *arguments)

    def flwr_run(self, checkout: Path, run_config: str) -> Ended:
        """Run plain ``flwr run`` in a checkout on one worker, with the exports that the README names."""
        worker = ("--federation-config", "num-supernodes=1 init-args-num-cpus=1 client-resources-num-cpus=1")
        command = ("flwr", "run", ".", "--stream", "--run-config", run_config, *worker)
        return self.call(*command, cwd=checkout, **ENVIRONMENT)

    def runs(self, connection: str = "local") -> list[dict[str, Any]]:
        """Return what Flower says of its runs, the newest first."""
        answer = self.call("flwr", "ls", connection, "--format", "json", **ENVIRONMENT)
        return list(json.loads(answer.output)["runs"])

    def newest_run(self) -> dict[str, Any]:
        """Return what Flower says of the newest run, which has ended: it may know that later than the log's end."""
        deadline = time.monotonic() + LONGEST_RUN
        while not (run := self.runs()[0])["status"].startswith("finished") and time.monotonic() < deadline:
            time.sleep(0.5)
        return run

    def latest(self) -> Left:
        """Return what the newest run from the user's folder has left."""
        return latest(self.user / "runs")

    def stop(self) -> None:
        """Kill every process that was started from here, and those that they started."""
        deadline = time.monotonic() + 20
        while (pids := list(self.processes())) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)

    def processes(self) -> Iterator[int]:
        """Yield what was started from here and is still alive, and what that has started."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                dead = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if not dead and f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    yield int(folder.name)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_somebody_listens(port: int) -> None:
    deadline = time.monotonic() + LONGEST_RUN
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    pytest.fail(f"nobody listens on port {port}")


def installed(program: str) -> str:
    """Return where a program of the system's is; without it, the test is skipped."""
    found = shutil.which(program, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    return found or pytest.skip(f"no {program} on this machine: .ci/debian-packages installs it on a Debian, as root")


@pytest.fixture(scope="module")
def flower(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    """A Flower of the module's own; the SuperLink that the first simulation starts serves the others too."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc, by which the processes that Flower leaves behind are found")
    started = Flower(tmp_path_factory.mktemp("flower"))
    try:
        yield started
    finally:
        started.stop()
