"""The side-by-side measurement runs on both sides, and ours holds little more than the updates."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
UPDATES = 11
HELD = UPDATES * 1_663_370 * 4 / 2**20  # MiB


def measured(side: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.robust_aggregation", "--measure", side, "bulyan", str(UPDATES)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout
    row: dict[str, float] = json.loads(output.splitlines()[-1])
    return row


@pytest.mark.slow
def test_ours_needs_less_memory_beyond_the_updates_than_flwr() -> None:
    ours, theirs = measured("ours"), measured("flwr")
    assert ours["peak"] - HELD < 60  # a reply, the model a few times, and blocks
    assert theirs["peak"] - HELD > 2 * (ours["peak"] - HELD)
