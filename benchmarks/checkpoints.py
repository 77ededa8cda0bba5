"""What checkpoints cost: to write and to read one, and a simulation's rounds with one after each, and with none.

    uv run python -m benchmarks.checkpoints [--rounds 40] [--repeats 3]

A state is that of FedAdam: the weights and two vectors as long. The rounds are of 10 clients with digits, of a logistic
regression (a round of the least work) and of the CNN of the first command, on two workers; the three ways are run in
turn, on one warm pool, and the ratios are of medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from app.checkpoint_file import Content, to_bytes
from app.checkpoints import Checkpoints
from app.config import RunConfig
from app.output import Output
from simulation.simulate import Simulation, files_only
from strategies import wire
from strategies.records import RoundRecord
from strategies.snapshot import Snapshot
from strategies.states import StrategyStates

SIZES = (650, 159_010, 1_663_370, 25_000_000)
MODELS = {"logistic": {"model": "logistic", "local-epochs": 1, "batch-size": 20}, "cnn-small": {}}
WAYS = {
    "never": (0, Output(files_only, page=False)),
    "meanwhile": (1, Output(files_only, page=False, checkpoints="meanwhile")),
    "before the next round": (1, Output(files_only, page=False)),
}


def state(size: int) -> Snapshot:
    """Return a state with random numbers, which no disk compresses."""
    weights, first, second = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    states = StrategyStates(server_optimizer={"first": first, "second": second})
    return Snapshot(1, wire.array_record({"weights": weights}), states)


def milliseconds(repeats: int, size: int, folder: Path) -> list[float]:
    """Return the medians of making the bytes, of writing a checkpoint with all its syncs, and of reading it."""
    checkpoints, given = Checkpoints(folder), state(size)
    steps = (
        lambda: to_bytes(Content(given.facts(), given.groups())),
        lambda: checkpoints.write(given),
        checkpoints.newest,
    )
    return [statistics.median(seconds(step) for _ in range(repeats)) * 1e3 for step in steps]


def seconds(step: object) -> float:
    """Return how long a call takes."""
    assert callable(step)
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def median_round(simulation: Simulation, folder: str, model: str, way: str, rounds: int) -> float:
    """Return the median milliseconds from the end of a round to the end of the next, the first two left out."""
    ends: list[float] = []

    def note(record: RoundRecord) -> None:
        ends.append(time.perf_counter())

    every, output = WAYS[way]
    config = {"num-rounds": rounds, "federated-evaluate-every": 0, "node-timeout": 60.0, "runs-dir": folder}
    config |= {**MODELS[model], "checkpoint-every": every}
    simulation.run(RunConfig.from_run_config(config), (note,), output)
    return float(np.median(np.diff(ends)[2:])) * 1e3


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("parameters | bytes in memory | on the disk | read again (ms)")
        for size in SIZES:
            print(f"{size} | " + " | ".join(f"{one:.1f}" for one in milliseconds(5, size, Path(folder) / str(size))))
        with Simulation(workers=2) as simulation:
            for model in MODELS:
                found: dict[str, list[float]] = {way: [] for way in WAYS}
                for _ in range(given.repeats):
                    for way in WAYS:
                        found[way].append(median_round(simulation, folder, model, way, given.rounds))
                usual = statistics.median(found["never"])
                for way, medians in found.items():
                    middle = statistics.median(medians)
                    print(f"{model}, checkpoints {way}: {middle:.1f} ms a round, {middle / usual:.2f}", flush=True)


if __name__ == "__main__":
    main()
