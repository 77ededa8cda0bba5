"""Flower's own commands as `fedkeras` calls them: in the right environment and from a folder that shadows nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from app.errors import UserError
from app.superlink import NO_INSTALLATION, find_listener, flower_home, managed_connection, port, scripts

ENVIRONMENT = {
    NO_INSTALLATION: "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_ADDRESS": "local",  # otherwise Flower's simulation joins the Ray of whoever else runs here, and fails
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}
"""What the processes of a run need; docs/one-command.md has those who use plain `flwr run` export the same."""


UNKNOWN = "unknown"
"""The status of a run of which Flower tells nothing."""


def flwr() -> str:
    """Return the ``flwr`` command that belongs to this Python, else the one on the PATH."""
    found = shutil.which("flwr", path=os.pathsep.join((str(scripts()), os.environ.get("PATH", ""))))
    if found is None:
        raise UserError(f"There is no 'flwr' command in {scripts()} nor on the PATH: install the project ('uv sync').")
    return found


def environment() -> dict[str, str]:
    """Return the environment for Flower's commands and for the SuperLink that they may start.

    What the user has set for TensorFlow stays as it is; what keeps Flower from going wrong does not.
    """
    ours = {key: os.environ.get(key, value) if key.startswith("TF_") else value for key, value in ENVIRONMENT.items()}
    path = os.pathsep.join((str(scripts()), os.environ.get("PATH", "")))
    return {**os.environ, **ours, "PATH": path, "PYTHONUNBUFFERED": "1"}


def run_status(run_id: str, connection: str) -> tuple[str, str]:
    """Return a run's status ("finished:completed", ...) and its details; (`UNKNOWN`, why) if Flower does not tell."""
    runs = list_runs(connection, "--run-id", run_id)
    if isinstance(runs, str):
        return UNKNOWN, runs
    return (str(runs[0]["status"]), str(runs[0]["status-details"])) if runs else (UNKNOWN, "no such run")


def unfinished_runs() -> list[str]:
    """Return the ids of the managed SuperLink's runs that have not ended; none where it is not running."""
    connection, listener = managed_connection(), find_listener(port())
    if connection is None or listener is None or not listener.is_superlink:
        return []
    runs = list_runs(connection.name)
    if isinstance(runs, str):
        raise UserError(f"'flwr ls' does not answer: {runs}")
    return [str(found["run-id"]) for found in runs if not str(found["status"]).startswith("finished")]


def list_runs(connection: str, *arguments: str) -> list[dict[str, object]] | str:
    """Return what ``flwr ls --format json`` says of the runs, or its complaint."""
    result = call("ls", connection, *arguments, "--format", "json")
    try:
        answer = json.loads(result.stdout)
        return list(answer["runs"]) if answer.get("success") else str(answer.get("error-message", answer))
    except ValueError:
        return complaint(result)


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return all that a command printed, errors last."""
    return "\n".join(text for text in (result.stdout.strip(), result.stderr.strip()) if text)


def neutral_folder() -> Path:
    """Return an empty folder to start Flower in: its workers prefer what lies there to the app's code."""
    folder = (flower_home() / "fedkeras-empty").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a ``flwr`` command to its end and return its exit code, and its answer apart from its warnings."""
    return subprocess.run(
        [flwr(), *arguments],
        cwd=neutral_folder(),
        env=environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def start(command: list[str]) -> subprocess.Popen[str]:
    """Start Flower in a session of its own, so that Ctrl-C reaches us alone and we can stop the run in good order."""
    return subprocess.Popen(
        command,
        cwd=neutral_folder(),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        errors="replace",
    )
