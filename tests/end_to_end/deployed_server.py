"""A SuperLink with TLS and node authentication as a deployment has it, its nodes, and what they say: real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.deploy.folder import Deployment
from app.flower_commands import ENVIRONMENT
from tests.app.deployed_files import made
from tests.end_to_end.conftest import Ended, Flower, free_port

LONGEST_WAIT = 60.0  # s; a tenth of it on a quiet machine
LISTENING = "Uvicorn running on https://"


@dataclass
class Started:
    """A process with its output in a file.

    Not in a pipe: the SuperExec below a SuperNode holds it open until the SuperNode is gone and has been waited for.
    """

    process: subprocess.Popen[bytes]
    log: Path

    def ended(self) -> Ended:
        """Wait until it has ended by itself, with an error or without."""
        try:
            return Ended(self.process.wait(LONGEST_WAIT), self.log.read_text())
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"it does not end:\n{self.log.read_text()}")

    def until(self, pattern: str) -> str:
        """Wait until it has said this, and return it."""
        deadline = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.log.read_text()):
                return found[0]
            time.sleep(0.1)
        self.kill()
        pytest.fail(f"it does not say '{pattern}':\n{self.log.read_text()}")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Server:
    """A SuperLink that runs, and what its nodes and operator need."""

    flower: Flower
    deployment: Deployment
    address: str
    command: Sequence[str]
    superlink: Started

    @property
    def log(self) -> Path:
        """What the SuperLink that runs now has said."""
        return self.superlink.log

    def kill_and_restart(self) -> None:
        """Kill the SuperLink, and start it as its supervisor does: on its port, with its database."""
        self.superlink.kill()
        self.superlink = start(self.flower, *self.command)
        self.superlink.until(LISTENING)

    def superexec(self, **variables: str) -> Started:
        """Start what starts the runs, where the SuperLink does not."""
        folder = str(self.deployment.server.folder)
        return start(self.flower, "fedkeras", "deploy", "superexec", folder, "--superlink", self.address, **variables)

    def node(self, folder: Path, *options: str, address: str | None = None, **variables: str) -> Started:
        """Start a SuperNode with the files of a folder."""
        where = ("--superlink", address or self.address, "--port", str(free_port()))
        return start(self.flower, "fedkeras", "deploy", "supernode", str(folder), *where, *options, **variables)

    def refused(self, folder: Path, *options: str, address: str | None = None) -> Ended:
        """Start a SuperNode that has to end by itself, with an error."""
        ended = self.node(folder, *options, address=address).ended()
        assert ended.code != 0, ended.output
        return ended

    def supernodes(self, command: str, *arguments: str) -> dict[str, Any]:
        """Call `flwr supernode`, as the operator does."""
        ended = self.flower.call("flwr", "supernode", command, *arguments, "--format", "json", **ENVIRONMENT)
        answer = json.loads(ended.output)
        assert answer["success"], ended.output
        return dict(answer)

    def nodes(self) -> list[dict[str, Any]]:
        return list(self.supernodes("list", "mine")["nodes"])


def start(flower: Flower, *command: str, **variables: str) -> Started:
    log = flower.folder / f"{uuid.uuid4().hex}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=flower.user,
            env={**flower.environment, **ENVIRONMENT, "PYTHONUNBUFFERED": "1", **variables},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Started(process, log)


def serve(flower: Flower, *options: str) -> Server:
    """Start the SuperLink of a new deployment of the nodes east and west, and connect its operator as "mine"."""
    deployment = made(flower.folder / "deployment", "east", "west")
    port, database = free_port(), str(flower.folder / "superlink.db")
    where = ("--port", str(port), "--database", database)
    command = ("fedkeras", "deploy", "superlink", str(deployment.server.folder), *options, *where)
    superlink = start(flower, *command)
    superlink.until(LISTENING)
    connected = flower.fedkeras("deploy", "connect", str(deployment.folder), f"127.0.0.1:{port}")
    assert connected.code == 0 and "answers." in connected.output
    return Server(flower, deployment, f"127.0.0.1:{port}", command, superlink)
