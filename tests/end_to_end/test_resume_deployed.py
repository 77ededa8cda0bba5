"""A deployment whose server is killed in a round: the run goes on on the same nodes, which kept their states."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from app.flower_commands import ENVIRONMENT
from strategies.client_state import file_name
from tests.app.inline_runs import Left, start, write_digits
from tests.end_to_end.conftest import LONGEST_RUN, Flower, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

NODES = {"east": slice(0, 200), "west": slice(200, 500)}
CONFIG = {"strategy": "scaffold", "partition": "natural", "clients-per-round": 0, "num-rounds": 3, "model": "logistic"}
CONFIG |= {"local-steps": 3, "federated-evaluate-every": 0, "min-nodes": 2, "node-timeout": 120.0}


def test_a_server_that_is_killed_goes_on_with_the_states_of_its_nodes(flower: Flower, tmp_path: Path) -> None:
    write_digits(tmp_path / "held-out.npz", slice(500, 800))
    config = {**CONFIG, "dataset": f"npz:{tmp_path / 'held-out.npz'}"}
    nodes = {name: node_config(tmp_path, name) for name in NODES}
    whole = start(tmp_path / "whole", config, dict(enumerate(nodes.values(), 1)))
    superlink(flower, nodes)
    overrides = [word for key, value in config.items() for word in ("-c", f"{key}={value}")]
    running = flower.start("fedkeras", "run", "mine", *overrides)
    left = when_round_1_is_over(flower)
    kill_server(flower)
    running.communicate(timeout=LONGEST_RUN)
    assert running.returncode != 0
    assert left.json("status.json")["state"] == "running"  # it had no time to say anything else
    ended = flower.fedkeras("run", "mine", "-c", f"resume={left.directory.path}")
    assert ended.code == 0, ended.output
    assert left.json("status.json")["resumed-after"] in ([1], [2])
    assert left.digest() == whole.digest()
    assert [line["accepted"] for line in left.records()] == [0, 2, 2, 2]
    assert [line["round"] for line in left.records()] == [0, 1, 2, 3]
    kept = tmp_path / "east-state" / file_name(left.directory.path.name)
    assert list(kept.glob("*/3.npz"))


def node_config(folder: Path, name: str) -> dict[str, str]:
    write_digits(folder / f"{name}.npz", NODES[name])
    return {"client-id": name, "data-path": str(folder / f"{name}.npz"), "state-dir": str(folder / f"{name}-state")}


def superlink(flower: Flower, nodes: dict[str, dict[str, str]]) -> None:
    """Start one with its nodes, and tell Flower where it is."""
    server = f"127.0.0.1:{free_port()}"
    host, port = server.split(":")
    flower.start("flower-superlink", "--insecure", "--host", host, "--port", port, **ENVIRONMENT)
    for own in nodes.values():
        told = " ".join(f'{key}="{value}"' for key, value in own.items())
        place = ("--host", host, "--port", str(free_port()), "--node-config", told)
        flower.start("flower-supernode", "--insecure", "--superlink", server, *place, **ENVIRONMENT)
    settings = flower.home / ".flwr" / "config.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(f'[superlink.mine]\naddress = "{server}"\ninsecure = true\n', encoding="utf-8")


def when_round_1_is_over(flower: Flower) -> Left:
    deadline = time.monotonic() + LONGEST_RUN
    while time.monotonic() < deadline:
        found = list(flower.user.glob("runs/*/checkpoints/0000001.checkpoint"))
        if found:
            return flower.latest()
        time.sleep(0.2)
    pytest.fail("no checkpoint of round 1 was written")


def kill_server(flower: Flower) -> None:
    """Kill the process that runs the ServerApp, as the kernel does where memory ends."""
    names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in flower.processes()}
    servers = [pid for pid, name in names.items() if any(part.endswith(b"flwr-serverapp") for part in name)]
    assert servers, names
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
