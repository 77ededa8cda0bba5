"""A server with its SuperExec and two nodes, as ``deploy/`` starts them, and what befalls them while they train."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from app.run_directory import RunDirectory
from tests.app.inline_runs import Left, write_digits
from tests.end_to_end.conftest import LONGEST_RUN, Flower
from tests.end_to_end.deployed_server import Server, Started, serve, start

ARMED = Path(__file__).parent / "armed"
NODES = {"east": slice(0, 300), "west": slice(300, 500)}  # of the digits; each hosts two clients with half of them
CONFIG: dict[str, Any] = {
    **{"partition": "natural", "clients-per-round": 2, "model": "logistic", "local-steps": 3, "min-nodes": 2},
    **{"federated-evaluate-every": 0, "node-timeout": 300.0},
}

T = TypeVar("T")


@dataclass
class Federation:
    """The processes of a deployment; the data of all lie in one folder."""

    folder: Path
    server: Server
    nodes: dict[str, Started] = field(default_factory=dict)
    _earlier: dict[str, int] = field(default_factory=dict)  # how much each node had said before the newest run

    def config(self, **changes: Any) -> dict[str, Any]:
        named = {key.replace("_", "-"): value for key, value in changes.items()}
        return {**CONFIG, "dataset": f"npz:{self.folder / 'held-out.npz'}", **named}

    def node_config(self, name: str) -> dict[str, str]:
        places = {"data-path": str(self.folder / f"{name}.npz"), "state-dir": str(self.folder / f"{name}-state")}
        return {**places, "device-class": name}

    def start_node(self, name: str) -> None:
        told = " ".join(f'{key}="{value}"' for key, value in self.node_config(name).items())
        files = self.server.deployment.node(name).folder
        self.nodes[name], self._earlier[name] = self.server.node(files, "--node-config", told, **self.armed(name)), 0
        self.nodes[name].until(r"SuperNode ID: \d+")

    def run(self, config: dict[str, Any]) -> Started:
        self._earlier = {name: len(node.log.read_text()) for name, node in self.nodes.items()}
        overrides = [word for key, value in config.items() for word in ("-c", f"{key}={value}")]
        return start(self.server.flower, "fedkeras", "run", "mine", *overrides)

    def left_by(self, running: Started) -> Left:
        """Wait until a run knows who takes part, and return what it leaves."""
        said = wait_for(running, lambda: re.search(r"run directory: (\S+)\n", running.log.read_text()))
        left = Left(RunDirectory(Path(said[1])))
        wait_for(running, left.directory.population.exists)
        return left

    def run_killed(self, hook: str, number: int, config: dict[str, Any]) -> Started:
        """Start a run whose ServerApp is killed at a hook in a round, and wait until it is dead."""
        order = self._order("server")
        order.write_text(f"{hook} {number}", encoding="utf-8")
        running = self.run(config)
        pid = int(wait_for(running, lambda: text_of(order.with_suffix(".obeyed"))))
        wait_for(running, lambda: not Path(f"/proc/{pid}/exe").exists())
        order.with_suffix(".obeyed").unlink()
        return running

    @contextmanager
    def hanging(self, node: str) -> Iterator[None]:
        """Let the next client process of a node hang until the end of the block; it is alive, and says so."""
        order = self._order(node)
        order.touch()
        try:
            yield
        finally:
            order.unlink()
        order.with_suffix(".obeyed").unlink()  # which is there

    def until_asked(self, running: Started, node: str, number: int) -> None:
        """Wait until a node has been asked to train in a round."""
        wait_for(running, lambda: self._says(node, number, "Receiving"))

    def has_sent(self, node: str, number: int) -> bool:
        """Tell whether a node has sent what it has trained in a round."""
        return self._says(node, number, "Sending")

    def _says(self, node: str, number: int, what: str) -> bool:
        said = self.nodes[node].log.read_text()[self._earlier[node] :]
        return bool(re.search(rf"ROUND {number}\]\s.*{what}: train", said))

    def armed(self, who: str) -> dict[str, str]:
        return {"PYTHONPATH": str(ARMED), "FEDKERAS_TEST_ORDER": str(self._order(who))}

    def _order(self, who: str) -> Path:
        return self.folder / f"{who}.order"


def started(flower: Flower) -> Federation:
    """Start the server, its SuperExec and the nodes, whose keys are registered."""
    write_digits(flower.folder / "held-out.npz", slice(500, 800))
    for name, examples in NODES.items():
        half = (examples.stop - examples.start) // 2
        write_digits(flower.folder / f"{name}.npz", examples, client=np.repeat([f"{name}-1", f"{name}-2"], half))
    federation = Federation(flower.folder, serve(flower, "--isolation", "process"))
    federation.server.superexec(**federation.armed("server"))
    for name in NODES:
        key = federation.server.deployment.node(name).public_key
        federation.server.supernodes("register", str(key), "mine", "--name", name)
        federation.start_node(name)
    return federation


def wait_for(running: Started, event: Callable[[], T | None]) -> T:
    """Wait until something has happened in a run, and return what tells it."""
    deadline = time.monotonic() + LONGEST_RUN
    while not (found := event()):
        if time.monotonic() > deadline:
            pytest.fail(f"it did not happen; the run says:\n{running.log.read_text()}")
        time.sleep(0.2)
    return found


def ended(running: Started) -> tuple[int, str]:
    """Wait for a run's end, and return its exit code and what it has said."""
    wait_for(running, lambda: running.process.poll() is not None)
    return running.process.returncode, running.log.read_text()


def record(running: Started, left: Left, which: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait for the first round that is so, and return its record."""
    wait_for(running, left.directory.metrics.exists)
    return wait_for(running, lambda: next(filter(which, left.records()), None))


def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
