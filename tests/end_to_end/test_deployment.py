"""A deployment on loopback with the README's commands: a SuperLink and two SuperNodes, each with its own data."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.app.inline_runs import latest
from tests.end_to_end.conftest import Flower, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXPORTS = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}


def background(flower: Flower, log: Path, *command: str, cwd: Path) -> None:
    """Start a command whose output goes into a file: a pipe that nobody reads would fill up and stop it."""
    flower.start("sh", "-c", 'exec "$@" > "$0" 2>&1', str(log), *command, cwd=cwd, **EXPORTS)


def wait_until_up(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    pytest.fail(f"the SuperLink does not answer on port {port}")


def test_two_nodes_train_on_their_own_data(flower: Flower, tmp_path: Path) -> None:
    server, nodes = tmp_path / "server", tmp_path / "nodes"
    server.mkdir()
    nodes.mkdir()
    assert flower.fedkeras("demo-data", str(nodes / "silos")).code == 0
    address = f"127.0.0.1:{(port := free_port())}"
    superlink = ("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
    background(flower, tmp_path / "superlink.log", *superlink, "--database", "superlink.db", cwd=server)
    wait_until_up(port)
    for name, device in (("east", "server"), ("west", "laptop")):
        described = f'client-id="{name}" data-path="silos/{name}.npz" device-class="{device}" region="the {name}"'
        own = ("--host", "127.0.0.1", "--port", str(free_port()), "--node-config", described)
        log = tmp_path / f"{name}.log"
        background(flower, log, "flower-supernode", "--insecure", "--superlink", address, *own, cwd=nodes)
    (flower.home / ".flwr").mkdir(exist_ok=True)
    connection = f'[superlink]\ndefault = "mine"\n[superlink.mine]\naddress = "{address}"\ninsecure = true\n'
    (flower.home / ".flwr" / "config.toml").write_text(connection)

    keys = ("partition=natural", "min-nodes=2", "clients-per-round=0", "num-rounds=2", "federated-evaluate-every=0")
    dataset = f"dataset=npz:{nodes / 'silos' / 'held-out.npz'}"
    ended = flower.fedkeras("run", "mine", *[word for key in (dataset, *keys) for word in ("-c", key)])
    assert ended.code == 0, ended.output

    left = latest(server / "runs")  # the paths in a run config are those of the server
    assert left.directory.path.name.endswith("-held-out-cnn-small")
    population = left.json("population.json")
    assert population["clients"] == ["east", "west"]
    assert population["device-classes"] == ["server", "laptop"]
    assert population["regions"] == ["the east", "the west"]
    records = left.records()
    assert [(record["accepted"], record["rejected"]) for record in records[1:]] == [(2, {}), (2, {})]
    assert records[-1]["central"]["accuracy"] > 0.8
    assert left.model().count_params() > 0
    assert left.json("status.json")["state"] == "completed"
    assert flower.runs("mine")[0]["status"] == "finished:completed"
