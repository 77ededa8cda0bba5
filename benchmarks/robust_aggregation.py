"""Robust aggregation beside flwr's own: seconds and memory of one round's replies, each row in a process of its own.

Run it with ``uv run python -m benchmarks.robust_aggregation [--updates 100] [--rounds 1]``.

The replies are full arrays of the FedAvg paper's CNN with noise, as any Flower app sends them, made one by one when
the strategy takes them; the time for that is not counted. Both sides do the same through the same method, from messages
to new arrays: `aggregate_train` of a Flower strategy. Columns: wall and processor seconds; the peak resident memory
less that before the round (``resource.getrusage``), and what of that is beyond the updates themselves, which every such
rule has to hold. Processor seconds count all threads: in flwr's matrix products some only wait for each other.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from benchmarks.server_memory import MIB, SHAPES, lazy_grid, peak_bytes

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Message, RecordDict
    from flwr.serverapp import Grid

PARAMETERS = 1_663_370
RULES = ("trimmed-mean", "median", "krum", "multi-krum", "bulyan")
OURS_ONLY = ("geometric-median", "centered-clipping")


def initial() -> ArrayRecord:
    """Return the model that the round begins with."""
    import numpy as np
    from flwr.app import ArrayRecord

    return ArrayRecord([np.zeros(shape, np.float32) for shape in SHAPES])


def strategy(side: str, rule: str, updates: int) -> Any:
    """Return the strategy, with a fifth of the clients as attackers to withstand."""
    from flwr.serverapp.strategy import Bulyan, FedMedian, FedTrimmedAvg, Krum, MultiKrum

    from strategies import registry
    from strategies.federated import FederatedStrategy
    from strategies.terms import RoundRules

    attackers = updates // 5
    if side == "ours":
        options = {"attackers-tolerated": attackers, "trim-beta": 0.2}
        return FederatedStrategy(registry.build(rule, options), RoundRules(clients_per_message=1))
    everyone = {"fraction_evaluate": 0.0, "min_train_nodes": updates, "min_available_nodes": updates}
    stock: dict[str, Any] = {
        "trimmed-mean": lambda: FedTrimmedAvg(**everyone, beta=0.2),
        "median": lambda: FedMedian(**everyone),
        "krum": lambda: Krum(**everyone, num_malicious_nodes=attackers),
        "multi-krum": lambda: MultiKrum(
            **everyone, num_malicious_nodes=attackers, num_nodes_to_select=updates - attackers
        ),
        "bulyan": lambda: Bulyan(**everyone, num_malicious_nodes=attackers),
    }
    return stock[rule]()


def noise_of(client: str) -> RecordDict:
    """Return what a stock app answers: all arrays and the number of examples."""
    import numpy as np
    from flwr.app import ArrayRecord, MetricRecord, RecordDict

    noise = np.random.default_rng(int(client))
    arrays = [noise.standard_normal(shape, dtype=np.float32) / 100 for shape in SHAPES]
    metrics = MetricRecord({"num-examples": 100, "loss": 0.5})
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})


class Replies:
    """The replies to a round's messages, made when they are taken, with the time that takes."""

    def __init__(self, grid: Grid, messages: Iterable[Message]) -> None:
        self.grid, self.sent = grid, list(grid.push_messages(messages))
        self.wall = self.cpu = 0.0

    def __iter__(self) -> Iterator[Message]:
        for message_id in self.sent:
            wall, cpu = time.perf_counter(), time.process_time()
            (reply,) = self.grid.pull_messages([message_id])
            self.wall += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu
            yield reply


def measure(side: str, rule: str, updates: int) -> None:
    """Run one row in this process and print it as JSON."""
    from flwr.app import ConfigRecord

    logging.disable(logging.WARNING)
    built, arrays = strategy(side, rule, updates), initial()
    grid = lazy_grid(updates, noise_of)
    replies = Replies(grid, built.configure_train(1, arrays, ConfigRecord(), grid))
    before, wall, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    result, _ = built.aggregate_train(1, replies)
    wall, cpu = time.perf_counter() - wall - replies.wall, time.process_time() - cpu - replies.cpu
    assert result is not None and len(replies.sent) == updates
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": (peak_bytes() - before) / MIB}))


def rows(updates: int, rounds: int) -> Iterator[str]:
    """Yield the table, one line after each measurement; of several rounds the fastest counts."""
    held = updates * PARAMETERS * 4 / MIB
    yield "| rule | strategy | wall (s) | processor (s) | peak (MiB) | beyond the updates (MiB) |"
    yield "|---|---|---:|---:|---:|---:|"
    jobs = [(rule, side) for rule in RULES for side in ("flwr", "ours")] + [(rule, "ours") for rule in OURS_ONLY]
    for rule, side in jobs:
        command = [sys.executable, "-m", "benchmarks.robust_aggregation", "--measure", side, rule, str(updates)]
        outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(rounds)]
        row = min((json.loads(output.splitlines()[-1]) for output in outputs), key=lambda row: float(row["wall"]))
        figures = f"{row['wall']:.1f} | {row['cpu']:.1f} | {row['peak']:.0f} | {row['peak'] - held:.0f}"
        yield f"| {rule} | {side} | {figures} |"


def main() -> None:
    """Print where and with what was measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--measure", nargs=3, metavar=("SIDE", "RULE", "UPDATES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], arguments.measure[1], int(arguments.measure[2]))
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("flwr", "numpy"))
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {packages}")
    print(f"{arguments.updates} updates of {PARAMETERS:,} parameters\n")
    for line in rows(arguments.updates, arguments.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
