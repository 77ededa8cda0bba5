"""Runs whose checkpoints lie rounds apart: clients still have what the server goes back to, and not much more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.checkpoint_file import from_bytes
from app.checkpoints import Checkpoints
from strategies.compression.differences import Chain
from tests.app.inline_runs import Left
from tests.app.test_resume import CASES, SHORT, check, in_aggregation, killed, resumed, run

APART = {**SHORT, "num-rounds": 6, "checkpoint-every": 3, "federated-evaluate-every": 0, "clients-per-round": 0}
ON_NODES = ("scaffold", "error feedback", "differences")


def states_of(left: Left) -> list[list[int]]:
    """The rounds of which each client, and the node, has kept something."""
    folders = (path for path in left.directory.client_states.iterdir() if path.is_dir())
    return [sorted(int(file.stem) for file in folder.iterdir()) for folder in folders]


@pytest.mark.parametrize("case", ON_NODES)
def test_a_server_that_goes_back_several_rounds_finds_what_clients_had_then(case: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {**APART, **CASES[case]}
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", changes)
    left = killed(tmp_path / "killed", changes, in_aggregation, in_round=6)
    kept = states_of(left)
    assert all(3 in rounds for rounds in kept)  # that of the checkpoint
    if case != "differences":
        assert all(len(rounds) == 3 for rounds in kept)  # and of the last two rounds, of which 6 does not count yet
    check(resumed(left, changes), whole)
    assert left.json("status.json")["resumed-after"] == [3]


FEW_LEAD_ON = {**APART, **CASES["differences"], "downlink-bits": 8, "num-rounds": 12, "clients-per-round": 3}
"""Three or four differences of 8 bits weigh less than the model; cohorts of half the clients need them all."""


@pytest.mark.parametrize(
    "changes",
    [
        {"federated-evaluate-every": 0},
        {"federated-evaluate-every": 1},
        {"selection": "power-of-choice"},  # asks for losses before each round
    ],
)
def test_differences_lead_on_from_the_checkpoint_however_often_clients_are_asked(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    changes = {**FEW_LEAD_ON, "checkpoint-every": 6, **changes}
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", changes)
    left = killed(tmp_path / "killed", changes, in_aggregation, in_round=12)
    done = resumed(left, changes)
    check(done, whole)
    assert not any(line["rejected"] for line in done.records())
    assert left.json("status.json")["resumed-after"] == [6]


def led_on_from(file: Path) -> list[int]:
    """The versions that the server had differences to when it wrote a checkpoint, and the one that they led to."""
    chains = [Chain.of(state) for state in from_bytes(file.read_bytes()).groups.values() if "reference" in state]
    return [version for chain in chains for version in (*chain.differences, chain.version)]


@pytest.mark.parametrize(("every", "rounds"), [(1, [20, 21, 22]), (8, [0, 8, 16])])
def test_a_node_keeps_what_its_checkpoints_lead_on_from_and_no_more(
    every: int, rounds: list[int], tmp_path: Path
) -> None:
    changes = {**FEW_LEAD_ON, "checkpoint-every": every, "num-rounds": 24}
    left = killed(tmp_path, changes, in_aggregation, in_round=23)
    checkpoints = Checkpoints(left.directory.checkpoints)
    assert checkpoints.rounds() == rounds
    needed = {version for file in checkpoints.folder.glob("*.checkpoint") for version in led_on_from(file)}
    (versions,) = states_of(left)
    others = [version for version in versions if version not in needed]
    assert needed < set(versions)
    assert len(others) <= 5 and others == [*range(24 - len(others), 24)]  # what the last round itself led on from
