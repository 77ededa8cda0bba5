"""``fedkeras run``: `flwr run` done right. Right environment, checked config, a clean log, and the run's true end.

What is worked around, all of it in Flower 1.41: `flwr run --stream` exits 0 when the run failed, and ends when the
SuperLink is restarted, though the run goes on; the SuperLink that it starts installs the app's dependencies for every
run, and lets its own directory shadow the app's packages; a simulation gets 2 nodes with 2 CPUs each whatever the
machine.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.config import RunConfig, Value
from app.deploy.connection import look
from app.errors import UserError
from app.flower_commands import UNKNOWN, call, complaint, flwr, run_status, start
from app.log_filter import LogFilter, is_boxed
from app.machine import usable_cores
from app.overrides import merged_config, with_absolute_paths
from app.run_directory import RunDirectory, to_toml
from app.superlink import Connection, check_running_superlink, find_connection
from app.world_keys import refuse_world

COMPLETED = "finished:completed"
NO_DETAILS = "N/A"
NO_HEARTBEAT = "No heartbeat received from the task"
LOG_BEGINS = "Starting logstream for run_id"
INTERRUPTED = 130
STATUS_TRIES = 15
STATUS_SECONDS = 2.0
FRUITLESS_BREAKS = 5
CLOSING_SECONDS = 30.0


@dataclass(frozen=True)
class Request:
    """What was typed: connection, ``-c`` arguments in their order, workers (None = choose), GPUs for all of them."""

    connection: str | None = None
    overrides: tuple[str, ...] = ()
    workers: int | None = None
    gpus: float = 0.0
    verbose: bool = False
    folder: Path = field(default_factory=Path.cwd)


def run(request: Request, show: Callable[[str], None]) -> int:
    """Start the run, show its log line by line, and return the exit code: 0 completed, 1 not, 130 interrupted.

    Raises UserError for anything that can be known to be wrong before the run starts.
    """
    project = project_folder()
    config = merged_config(request.overrides, project, request.folder)
    refuse_world(config)
    connection = find_connection(request.connection)
    if connection.managed:
        check_running_superlink(project)
        config = with_absolute_paths(config, request.folder)
        _check_resume(config)  # elsewhere, the server alone can tell
    elif said := look(connection):
        show(said)
    federation = federation_arguments(request, config, connection)
    where = f"{worker_count(request, config)} workers here" if connection.managed else f"SuperLink '{connection.name}'"
    show(f"Starting on {where}; the first round may be half a minute away.")
    with tempfile.TemporaryDirectory(prefix="fedkeras-") as folder:
        file = Path(folder) / "run-config.toml"
        file.write_text(to_toml(config.to_run_config()), encoding="utf-8")
        command = [flwr(), "run", str(project), connection.name, "--run-config", str(file), "--stream"]
        return _Stream(connection, request.verbose, show).follow(command + federation)


def _check_resume(config: RunConfig) -> None:
    """Raise UserError where the config says to go on with a run that cannot be gone on with."""
    if config.resume:
        from app.resume import directory_to_resume  # a second of imports, which other runs do not need

        directory_to_resume(config)


def project_folder() -> Path:
    """Return the folder that holds pyproject.toml and the packages: what Flower bundles and sends."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / "pyproject.toml").is_file():
        raise UserError(
            f"{folder} has no pyproject.toml for Flower to bundle: run fedkeras from a clone of its repository."
        )
    return folder


def federation_arguments(request: Request, config: RunConfig, connection: Connection) -> list[str]:
    """Return what makes Flower simulate one node, with one core, for every worker; nothing for other SuperLinks."""
    if not connection.managed:
        if request.workers is not None or request.gpus:
            raise UserError(
                f"The options --workers and --gpus are for simulations on this machine, but '{connection.name}' is a "
                "SuperLink with nodes of its own: leave them out."
            )
        return []
    workers = worker_count(request, config)
    if workers < config.min_nodes:
        raise UserError(
            f"--workers is {workers}, but 'min-nodes' is {config.min_nodes}: a worker is a node; change one."
        )
    settings: dict[str, Value] = {
        "num-supernodes": workers,
        "client-resources-num-cpus": 1,
        "client-resources-num-gpus": round(request.gpus / workers, 4),
        "init-args-num-cpus": workers,
        "init-args-log-to-driver": request.verbose,
    }
    return ["--federation-config", " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())]


def worker_count(request: Request, config: RunConfig) -> int:
    """Return the number of workers asked for, else one per core, but no more than can find work in a round."""
    cohort = config.clients_per_round or config.num_clients
    return request.workers or max(min(usable_cores(), cohort), config.min_nodes)


class _Stream:
    """Follows one run: its log, an interruption by the user, and how it ended."""

    def __init__(self, connection: Connection, verbose: bool, show: Callable[[str], None]) -> None:
        self._connection = connection
        self._filter = LogFilter()
        self._verbose = verbose
        self._show = show
        self._process: subprocess.Popen[str] | None = None  # of Flower, which tells the log
        self._told = 0  # lines of the run's own log

    def follow(self, command: list[str]) -> int:
        try:
            returned = self._read(command)
            run_id = self._filter.run_id
            if run_id is None:
                self._show(f"The run did not start: 'flwr run' ended with exit code {returned} (see above).")
                return 1
            return self._conclude(run_id, *self._last_heard(run_id, returned))
        except KeyboardInterrupt:
            return self._interrupted()

    def _last_heard(self, run_id: str, returned: int) -> tuple[str, str]:
        """Follow the log again wherever it breaks off, and return the status, with details, that the run had last.

        After a break the SuperLink is asked until it answers; where it does not, that is the last that is heard.
        """
        fruitless = 0  # breaks in a row before which there was not one new line
        while returned != 0:
            status, details = self._status(run_id, lambda status: status != UNKNOWN)
            if status == UNKNOWN or status.startswith("finished"):
                return status, details
            if fruitless == FRUITLESS_BREAKS:
                self._show(f"The log broke off {fruitless} times without a new line, and is not followed any more.")
                return status, details
            if fruitless:
                time.sleep(STATUS_SECONDS)
            self._show("The log broke off, but the run goes on, and is followed again.")
            told = self._told
            returned = self._read([flwr(), "log", run_id, self._connection.name])
            fruitless = 0 if self._told > told else fruitless + 1
        return self._status(run_id, lambda status: status.startswith("finished"))

    def _read(self, command: list[str]) -> int:
        """Show what a command of Flower says of the run, and return its exit code."""
        self._process = start(command)
        self._show_lines(self._process)
        return self._process.wait()

    def _show_lines(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in self._news(process.stdout):
            shown = self._filter.feed(line)
            for text in [line.rstrip("\n")] if self._verbose else shown:
                self._show(text)
        for text in [] if self._verbose else self._filter.close():
            self._show(text)

    def _news(self, lines: Iterable[str]) -> Iterator[str]:
        """Leave out what was told before: Flower tells the run's log from its beginning, each time that it is asked."""
        position = None
        for line in lines:
            if position is not None and not is_boxed(line):  # what Flower itself complains of is not of the log
                position += 1
                if position <= self._told:
                    continue
                self._told = position
            elif LOG_BEGINS in line:
                position = 0
            yield line

    def _conclude(self, run_id: str, status: str, details: str) -> int:
        name = self._connection.name
        if status == COMPLETED:
            return 0
        if not status.startswith("finished"):
            self._show(f"The log broke off, but run {run_id} has not ended ({status}): see 'flwr log {run_id} {name}'.")
        else:
            self._show(self._sentence(status.partition(":")[2], details))
        if details == NO_HEARTBEAT and (left := self._filter.run_directory):
            self._show(f"The server's process is gone. Go on with 'fedkeras run {name} -c resume={left}'.")
        return 1

    def _sentence(self, ending: str, details: str) -> str:
        """Say how the run ended, without repeating an error that the log has shown."""
        reason = "" if details == NO_DETAILS else details.rpartition("exception: ")[2]
        told = not reason or any(reason.splitlines()[0] in error for error in self._filter.errors)
        return f"The run {'was stopped' if ending == 'stopped' else 'failed'}" + ("." if told else f": {reason}")

    def _status(self, run_id: str, enough: Callable[[str], bool]) -> tuple[str, str]:
        """Ask until the answer is enough: Flower may know of the end some seconds after the log's last line."""
        status, details = UNKNOWN, ""
        for attempt in range(STATUS_TRIES):
            if attempt:
                time.sleep(STATUS_SECONDS)
            status, details = run_status(run_id, self._connection.name)
            if enough(status):
                break
        return status, details

    def _interrupted(self) -> int:
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave the run going
        try:
            if self._process is not None:
                self._process.terminate()
                self._show_lines(self._process)
                self._process.wait()
            run_id = self._filter.run_id
            if run_id is not None:
                self._show(f"Stopping run {run_id} ...")
                stopped = call("stop", run_id, self._connection.name)
                if stopped.returncode != 0:
                    self._show(f"Run {run_id} could not be stopped: {complaint(stopped)}")
            where = self._filter.run_directory
            if where:
                _wait_until_closed(RunDirectory(Path(where)))
            self._show(f"Interrupted; what was recorded is in {where}" if where else "Interrupted before any round.")
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGINT, previous)


def _wait_until_closed(directory: RunDirectory) -> None:
    """Wait for the ServerApp, which hears late that it is stopped, to write the report; not where it runs elsewhere."""
    deadline = time.monotonic() + CLOSING_SECONDS
    while directory.status.exists() and not directory.is_closed() and time.monotonic() < deadline:
        time.sleep(0.2)
