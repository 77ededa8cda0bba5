"""The preset 'phones' with real models: a world's keys reach the run, its records, its population and its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
RUN = """
import sys
from pathlib import Path
from app.config import RunConfig
from app.overrides import merged_config
from simulation.simulate import SILENT, Simulation

config = merged_config(["phones"], Path.cwd(), Path.cwd()).to_run_config()
config |= {"num-rounds": 6, "federated-evaluate-every": 0, "runs-dir": sys.argv[1]}
with Simulation(engine="inline") as simulation:
    print(simulation.run(RunConfig.from_run_config(config), output=SILENT).directory.path)
"""


@pytest.mark.slow
def test_phones(keras_home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path)],
        cwd=REPOSITORY, env={**os.environ, "KERAS_HOME": str(keras_home), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    left = Path(done.stdout.splitlines()[-1])
    start, *records = map(json.loads, (left / "metrics.jsonl").read_text().splitlines())
    clock = [start["simulated-seconds"], *(record["simulated-seconds"] for record in records)]
    assert clock[0] == 0
    assert all(0 < later - earlier <= 60 for earlier, later in pairwise(clock))
    assert all(record["selected"] == 13 and record["accepted"] <= 10 for record in records)
    missing = {reason for record in records for reason in record["rejected"]}
    assert missing <= {"late", "dropout", "surplus"} and "surplus" in missing
    population = json.loads((left / "population.json").read_text())
    assert set(population["device-classes"]) == {"fast", "old", ""}
    assert set(population["regions"]) == {"europe", "asia", "america"}
    assert (left / "report.html").exists()
