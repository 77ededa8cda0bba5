"""What a deployment over TLS with node authentication survives: its processes are killed, and hang, as it trains."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.checkpoints import Checkpoints
from strategies.client_state import file_name
from strategies.privacy.ledger import Ledger
from strategies.snapshot import Snapshot
from tests.app import inline_runs
from tests.app.inline_runs import Left
from tests.end_to_end.conftest import Flower
from tests.end_to_end.deployed_federation import NODES, Federation, ended, record, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROUND_TIMEOUT = 90.0  # s, six times what a round takes on a quiet machine
KILLS = {"in-aggregation": 1, "while-writing": 1, "after-writing": 1, "before-sending": 2, "while-waiting": 2}
RESUMED_AFTER = [0, 0, 1, 1, 1]


@pytest.fixture(scope="module")
def federation(flower: Flower) -> Federation:
    return started(flower)


def undisturbed(federation: Federation, folder: Path, config: dict[str, Any]) -> Left:
    """The same run in this process, with nodes that remember nothing."""
    nodes = {number: federation.node_config(name) for number, name in enumerate(NODES, 1)}
    apart = {number: {**own, "state-dir": str(folder / own["device-class"])} for number, own in nodes.items()}
    return inline_runs.start(folder / "undisturbed", config, apart)


def newest(left: Left) -> Snapshot:
    snapshot = Checkpoints(left.directory.checkpoints).newest()
    assert snapshot is not None
    return snapshot


def test_a_server_that_is_killed_again_and_again_goes_on_to_the_bit(federation: Federation, tmp_path: Path) -> None:
    """In a round of one node and in one of both: no round that was over is done again, and clients keep their state."""
    config = federation.config(strategy="scaffold", num_rounds=2)
    whole = undisturbed(federation, tmp_path, config)
    killed, left = [], None
    for hook, number in KILLS.items():
        killed.append(federation.run_killed(hook, number, config))
        left = left or federation.left_by(killed[0])
        assert left.json("status.json")["state"] == "running"  # it had no time to say anything else
        config["resume"] = str(left.directory.path)
    assert left is not None
    assert ended(federation.run(config))[0] == 0
    assert left.json("status.json")["resumed-after"] == RESUMED_AFTER
    assert left.digest() == whole.digest()
    assert newest(left).committed == newest(whole).committed and len(newest(left).committed) == 3
    for ours, theirs in zip(left.records(), whole.records(), strict=True):
        for measured in ("seconds", "bytes", "uplink"):
            del ours[measured], theirs[measured]
        assert ours == theirs
    kept = {name: federation.folder / f"{name}-state" / file_name(left.directory.path.name) for name in NODES}
    assert all(list(folder.glob("*/2.npz")) for folder in kept.values())
    code, said = ended(killed[0])
    assert code == 1 and f"Go on with 'fedkeras run mine -c resume={left.directory.path}'." in said


def test_a_private_round_that_is_begun_again_is_paid_again(federation: Federation, tmp_path: Path) -> None:
    """Nobody was asked yet when the server was killed, but that is not known: it counts as if all had been sent."""
    config = federation.config(strategy="dp-fedavg", noise_multiplier=1.0, num_rounds=1)
    left = federation.left_by(federation.run_killed("before-sending", 1, config))
    assert ended(federation.run({**config, "resume": str(left.directory.path)}))[0] == 0
    twice = undisturbed(federation, tmp_path, {**config, "num-rounds": 2})
    assert [line["round"] for line in left.records()] == [0, 1]
    assert Ledger.of(newest(left).states.ledger).releases == Ledger.of(newest(twice).states.ledger).releases
    assert left.records()[1]["privacy"]["epsilon"] == twice.records()[2]["privacy"]["epsilon"]


def test_a_run_outlives_a_node_that_hangs_one_that_is_killed_and_its_superlink(federation: Federation) -> None:
    config = federation.config(strategy="fedavg", num_rounds=7, clients_per_round=0, round_timeout=ROUND_TIMEOUT)
    running = federation.run(config)
    left = federation.left_by(running)

    with federation.hanging("west"):
        late = record(running, left, lambda line: bool(line["rejected"]))
    assert late["rejected"] == {"late": 2} and late["accepted"] == 2
    assert late["seconds"]["total"] >= ROUND_TIMEOUT

    number = late["round"] + 1
    federation.until_asked(running, "west", number)
    assert federation.has_sent("west", late["round"])
    federation.server.kill_and_restart()
    back = record(running, left, lambda line: line["round"] == number)
    assert back["accepted"] == 4 and back["rejected"] == {}

    federation.until_asked(running, "west", number + 1)
    federation.nodes["west"].kill()
    lost = record(running, left, lambda line: line["round"] > number)
    assert lost["rejected"] == {"dropout": 2} and lost["accepted"] == 2
    federation.start_node("west")  # refused until now, as the SuperLink took it for online
    record(running, left, lambda line: line["round"] > lost["round"] and line["accepted"] == 4)

    code, said = ended(running)
    assert code == 0 and said.count("The log broke off, but the run goes on") == 1
    assert re.findall(r"^round +(\d)/7 ", said, re.MULTILINE) == list("01234567")
    assert [line["round"] for line in left.records()] == list(range(8))
    assert all(line["rejected"] == {} for line in left.records() if line["round"] not in (late["round"], lost["round"]))
    told = [json.loads(line) for line in left.directory.alerts.read_text(encoding="utf-8").splitlines()]
    turns = [(event["round"], event["state"]) for event in told if event["alert"] == "participation"]
    faults = (late["round"], lost["round"])
    assert turns == [turn for fault in faults for turn in ((fault, "firing"), (fault + 1, "resolved"))]
    states = {(event["alert"], event["subject"]): event["state"] for event in told}
    assert set(states.values()) == {"resolved"}
