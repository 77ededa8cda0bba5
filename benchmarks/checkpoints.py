"""What checkpoints cost: to write and to read one, and a simulation's rounds with one after each, and with none.

    uv run python -m benchmarks.checkpoints [--rounds 40] [--repeats 3]

A state is that of FedAdam: the weights and two vectors as long. The rounds are of 10 clients with digits, of a logistic
regression (a round of the least work), an MLP and the CNN of the first command, on two workers; the three ways are run
in turn, on one warm pool, and the ratios are of medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.checkpoint_file import Content, parts_of
from app.checkpoints import Checkpoints
from app.config import RunConfig
from app.output import Output
from simulation.simulate import Simulation, files_only
from strategies import wire
from strategies.records import RoundRecord
from strategies.snapshot import Snapshot
from strategies.states import StrategyStates

SIZES = (650, 159_010, 1_663_370, 25_000_000)
MODELS = {
    "logistic": {"model": "logistic", "local-epochs": 1, "batch-size": 20},
    "mlp, FedAdam": {"model": "mlp", "local-epochs": 1, "strategy": "fedadam", "server-learning-rate": 0.01},
    "cnn-small": {},
}
WAYS: dict[str, tuple[dict[str, float], Output]] = {
    "never": ({"checkpoint-every": 0}, Output(files_only, page=False)),
    "meanwhile": ({"checkpoint-share": 1.0}, Output(files_only, page=False, checkpoints="meanwhile")),
    "before the next round": ({}, Output(files_only, page=False)),
}


def state(size: int) -> Snapshot:
    """Return a state with random numbers, which no disk compresses."""
    weights, first, second = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    states = StrategyStates(server_optimizer={"first": first, "second": second})
    return Snapshot(1, wire.array_record({"weights": weights}), states)


def milliseconds(repeats: int, size: int, folder: Path) -> list[float]:
    """Return the medians of making the bytes, of writing a checkpoint with all its syncs, and of reading it (all CPU).

    The last is what writing takes until it is on the disk, by the clock.
    """
    checkpoints, given = Checkpoints(folder), state(size)
    steps = (
        lambda: b"".join(parts_of(Content(given.facts(), given.groups()))),
        lambda: checkpoints.write(given),
        checkpoints.newest,
    )
    taken = [[seconds(step) for _ in range(repeats)] for step in steps]
    cpu = [statistics.median(own for own, _ in one) * 1e3 for one in taken]
    return [*cpu, statistics.median(wall for _, wall in taken[1]) * 1e3]


def seconds(step: Callable[[], object]) -> tuple[float, float]:
    """Return how long a call takes, of this process's CPU and by the clock."""
    started = time.process_time(), time.perf_counter()
    step()
    return time.process_time() - started[0], time.perf_counter() - started[1]


def median_round(simulation: Simulation, folder: str, model: str, way: str, rounds: int) -> tuple[float, float]:
    """Return the median milliseconds from the end of a round to the end of the next, the first two left out.

    By the clock, and of the CPU of this process, in which the server is and not the workers.
    """
    ends: list[tuple[float, float]] = []

    def note(record: RoundRecord) -> None:
        ends.append((time.perf_counter(), time.process_time()))

    own, output = WAYS[way]
    config = {"num-rounds": rounds, "federated-evaluate-every": 0, "node-timeout": 60.0, "runs-dir": folder}
    config |= {**MODELS[model], **own}
    simulation.run(RunConfig.from_run_config(config), (note,), output)
    wall, cpu = np.median(np.diff(ends, axis=0)[2:], axis=0) * 1e3
    return float(wall), float(cpu)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What checkpoints cost.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("parameters | bytes in memory | written | read again (CPU ms) | on the disk (ms)")
        for size in SIZES:
            print(f"{size} | " + " | ".join(f"{one:.1f}" for one in milliseconds(5, size, Path(folder) / str(size))))
        with Simulation(workers=2) as simulation:
            for model in MODELS:
                found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
                for _ in range(given.repeats):
                    for way in WAYS:
                        found[way].append(median_round(simulation, folder, model, way, given.rounds))
                middle = {way: np.median(found[way], axis=0) for way in WAYS}
                for way, (wall, cpu) in middle.items():
                    ratio = wall / middle["never"][0]
                    print(f"{model}, checkpoints {way}: {wall:.1f} ms a round, {ratio:.2f}; CPU {cpu:.1f}", flush=True)


if __name__ == "__main__":
    main()
