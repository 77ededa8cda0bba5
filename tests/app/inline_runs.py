"""Runs of the whole app inside the test's process: the real server and client halves, without Flower's engine.

As a command it does runs with one thread, as the workers of a simulation do, and prints a digest of each model: results
of convolutions depend on the number of threads, and a process that has used TensorFlow cannot change it any more.

    python -m tests.app.inline_runs RUNS_DIR '[[{"num-rounds": 2}, 1], ...]'     # [config, number of nodes]
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np
from sklearn.datasets import load_digits

from app.client import app as client_app
from app.config import RunConfig
from app.federated_run import FederatedRun
from app.output import Output
from app.run_directory import RunDirectory
from simulation.inline import InlineGrid
from strategies.federated import Observer

REPOSITORY = Path(__file__).resolve().parents[2]
NodeConfigs = Mapping[int, Mapping[str, Any]]

SMALL: dict[str, Any] = {
    "num-clients": 6,
    "clients-per-round": 3,
    "num-rounds": 2,
    "model": "logistic",
    "local-epochs": 1,
    "batch-size": 20,
    "federated-evaluate-every": 2,
    "node-timeout": 0.5,
}
"""A run of a second; ``local-epochs`` is left out where a test sets ``local-steps``."""


@dataclass(frozen=True)
class Left:
    """What a run has left on the disk."""

    directory: RunDirectory

    def json(self, name: str) -> Any:
        return json.loads((self.directory.path / name).read_text())

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.directory.metrics.read_text().splitlines()]

    def model(self) -> keras.Model:
        return keras.models.load_model(self.directory.model)

    def digest(self) -> str:
        return digest(self.model().get_weights())


def simulated(nodes: int) -> NodeConfigs:
    """Return the configs that Flower's simulation gives to its nodes."""
    return {node + 1: {"partition-id": node, "num-partitions": nodes} for node in range(nodes)}


WITHOUT_PAGE = Output(page=False)  # to draw one takes as long as all the rest of a small run


def start(
    runs_dir: Path,
    changes: Mapping[str, Any],
    nodes: NodeConfigs | int = 1,
    observers: Sequence[Observer] = (),
    output: Output = WITHOUT_PAGE,
) -> Left:
    """Run to the end; what ends the run early is raised."""
    config = RunConfig.from_run_config({**changes, "runs-dir": str(runs_dir)})
    directory = RunDirectory.create(runs_dir, "test", datetime.now())
    node_configs = simulated(nodes) if isinstance(nodes, int) else nodes
    grid = InlineGrid(client_app, {n: dict(c) for n, c in node_configs.items()}, config.to_run_config())
    run = FederatedRun(config, directory, observers, output)
    with run.status():
        run.execute(grid)
    return Left(directory)


def latest(runs_dir: Path) -> Left:
    """Return what the newest run has left, however it ended."""
    return Left(RunDirectory(max(runs_dir.iterdir(), key=lambda folder: folder.stat().st_ctime_ns)))


def digest(weights: Iterable[np.ndarray]) -> str:
    """Return the same text for the same weights only: shapes, dtypes and bits."""
    whole = hashlib.sha256()
    for array in weights:
        whole.update(f"{array.shape} {array.dtype.str} ".encode())
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def one_thread_digests(runs_dir: Path, runs: Sequence[tuple[Mapping[str, Any], int]]) -> list[str]:
    """Return the digests of the models of several runs, done in a fresh process with one thread."""
    command = [sys.executable, "-m", "tests.app.inline_runs", str(runs_dir), json.dumps(runs)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def write_digits(file: Path, positions: slice, **more: Any) -> Path:
    """Write some of scikit-learn's digits as a user would: 8x8 images with values from 0 to 1."""
    digits = load_digits()
    x = (digits.images[positions, :, :, np.newaxis] / 16).astype(np.float32)
    np.savez(file, **{"x": x, "y": digits.target[positions], **more})
    return file


if __name__ == "__main__":
    from tasks.training import use_one_thread

    assert use_one_thread()
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps([start(folder, changes, nodes).digest() for changes, nodes in json.loads(sys.argv[2])]))
