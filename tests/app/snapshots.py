"""Snapshots of a run that was never trained, and folders of their checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.checkpoints import Checkpoints
from strategies import wire
from strategies.snapshot import PaceMemory, Snapshot
from strategies.states import StrategyStates

LEDGER = {"privacy-cost": np.linspace(0, 1, 7), "participants": np.array(["a", "b"])}


def state(round: int, size: int = 10) -> Snapshot:
    weights = {"kernel": np.full((2, size), round, np.float32), "bias": np.arange(3, dtype=np.float64)}
    states = StrategyStates(privacy={"norm": np.array(round / 3)}, ledger=LEDGER)
    pace = PaceMemory({"steps": round}, {"1/weights": {"w": np.ones(2)}})
    bans = {"clients": np.array(["x"]), "faults": np.array([round]), "last-round": np.array([0])}
    return Snapshot(round, wire.array_record(weights), states, {"a\ud800": round}, bans, round % 2, round / 7, pace)


def same(found: Snapshot | None, expected: Snapshot) -> bool:
    assert found is not None
    assert found.facts() == expected.facts()
    ours, theirs = found.groups(), expected.groups()
    assert ours.keys() == theirs.keys()
    return all(
        ours[group].keys() == theirs[group].keys()
        and all(np.array_equal(ours[group][name], theirs[group][name]) for name in ours[group])
        for group in ours
    )


def written(folder: Path, rounds: int, kept: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints", kept)
    for number in range(rounds):
        checkpoints.write(state(number))
    return checkpoints


def files(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())
