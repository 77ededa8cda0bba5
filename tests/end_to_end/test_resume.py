"""Simulations whose process is killed with SIGKILL go on to the bit, whatever it was doing; also on another engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from app.checkpoints import Checkpoints
from app.run_directory import RunDirectory
from strategies.privacy.ledger import Ledger
from tests.app.inline_runs import REPOSITORY, SMALL, Left, latest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BASE = {**SMALL, "num-rounds": 5, "federated-evaluate-every": 2, "node-timeout": 60.0, "checkpoint-share": 1.0}
BANS = {"ban-after": 1, "ban-rounds": 2, "max-client-examples": 150}  # half of the clients have more
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "before sending": ("inline", "before-sending", {"strategy": "fedavg", "selection": "power-of-choice", **BANS}),
    "while waiting": ("inline", "while-waiting", {"strategy": "scaffold"}),
    "in aggregation": (
        "inline",
        "in-aggregation",
        {"strategy": "dp-fedavg-adaptive", "noise-multiplier": 0.1, "federated-evaluate-every": 0},
    ),
    "while writing": ("inline", "while-writing", {"strategy": "fedadam", "server-learning-rate": 0.05}),
    "after writing, on Ray": (
        "ray",
        "after-writing",
        {"strategy": "fedbuff", "buffer-size": 2, "concurrency": 4, "example-seconds": 0.1, "compute-spread": 1.0},
    ),
}
KILLED_IN = 3


def runs(folder: Path, engine: str, hook: str, configs: list[dict[str, Any]]) -> list[Left]:
    """Run in a process of its own; none are returned where it was killed."""
    command = [sys.executable, "-m", "tests.end_to_end.killed_runs", engine, hook, str(KILLED_IN), json.dumps(configs)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "FEDKERAS_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    if hook != "none":
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
        return []
    assert done.returncode == 0, done.stderr[-3000:]
    return [Left(RunDirectory(Path(path))) for path in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[Left, Left]]:
    """Of each case the run that was killed and went on, and the one to which nothing happened."""
    folder = tmp_path_factory.mktemp("killed")
    configs = []
    for case, (engine, hook, changes) in CASES.items():
        place = folder / case.replace(" ", "-")
        place.mkdir()
        config = {**BASE, **changes, "runs-dir": str(place)}
        runs(folder, engine, hook, [config])
        directory = latest(place).directory.path
        configs += [{**config, "resume": str(directory)}, {**config, "runs-dir": str(folder)}]
    left = runs(folder, "inline", "none", configs)
    return dict(zip(CASES, zip(left[::2], left[1::2], strict=True), strict=True))


def ledger(left: Left) -> Ledger:
    state = Checkpoints(left.directory.checkpoints).newest()
    assert state is not None
    return Ledger.of(state.states.ledger)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on_to_the_bit(ended: Mapping[str, tuple[Left, Left]], case: str) -> None:
    left, whole = ended[case]
    (resumed_after,) = left.json("status.json")["resumed-after"]
    assert KILLED_IN - 2 <= resumed_after <= KILLED_IN  # a checkpoint is written while the next round is under way
    assert whole.json("status.json")["resumed-after"] == []
    assert left.digest() == whole.digest()
    assert ledger(left).releases == ledger(whole).releases
    for ours, theirs in zip(left.records(), whole.records(), strict=True):
        for measured in ("seconds", "bytes", "uplink"):
            del ours[measured], theirs[measured]
        assert ours == theirs
    assert not list(left.directory.checkpoints.glob(".*"))


def test_the_cases_are_what_they_should_be(ended: Mapping[str, tuple[Left, Left]]) -> None:
    banned = [record["banned"] for record in ended["before sending"][0].records()]
    assert max(banned) > 0
    assert ledger(ended["in aggregation"][0]).rounds == 5
    assert max(record["staleness"]["largest"] for record in ended["after writing, on Ray"][0].records()[1:]) > 0
