"""The quick ones of the papers' figures, by the script that anyone can run, held to the same lines as there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.papers.__main__ import EXPERIMENTS

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK = [name for name, experiment in EXPERIMENTS.items() if experiment.quick_lines]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def output(shared_data: Path, keras_home: Path) -> str:
    """What ``python -m benchmarks.papers --quick`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.papers", "--quick", "--engine", "inline"],
        cwd=REPOSITORY,
        env={**os.environ, "KERAS_HOME": str(keras_home), "FEDKERAS_TEST_DATA": str(shared_data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr[-3000:]
    return done.stdout


def test_six_experiments_are_quick() -> None:
    assert QUICK == ["heart", "fedavg", "fedprox", "robust", "compression", "femnist"]


@pytest.mark.parametrize("name", QUICK)
def test_every_line_passes(output: str, name: str) -> None:
    _, table = output.split(f"\n{EXPERIMENTS[name].title}\n\n")
    lines = table.split("\n\n")[0].splitlines()
    assert any(line.endswith("| pass |") for line in lines), output
    assert not [line for line in lines if line.endswith("| FAIL |")]
