"""Does the server's memory grow with the number of replies? One round, measured in a process of its own per row.

Run it with ``uv run python benchmarks/server_memory.py [--counts 10 100 1000] [--stock 10 100]``.

Each reply is the update of one client (unpacked: the worst case) of the FedAvg paper's CNN, made when it is pulled, as
a node would send it. Nothing is trained. Beside `FederatedStrategy` stands flwr's own `FedAvg`, fed with full arrays.
The column "peak" is the peak resident memory of the process less that before the round, when everything is imported
and the model exists (``resource.getrusage``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from flwr.app import ArrayRecord, RecordDict

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPES = ((5, 5, 1, 32), (32,), (5, 5, 32, 64), (64,), (3136, 512), (512,), (512, 10), (10,))  # 1,663,370 parameters
MIB = 2**20
SCALE = 2**10 if platform.system() == "Linux" else 1  # the unit of ru_maxrss in bytes


def model() -> dict[str, np.ndarray]:
    """Return the CNN's arrays."""
    import numpy as np

    return {str(index): np.zeros(shape, np.float32) for index, shape in enumerate(SHAPES)}


def update_of(client: str) -> RecordDict:
    """Return the reply of our mods for one client: a flat update of its own."""
    import numpy as np
    from flwr.app import ConfigRecord, MetricRecord, RecordDict

    from strategies import wire

    size = sum(int(np.prod(shape)) for shape in SHAPES)
    delta = np.full(size, (int(client) % 97 + 1) / 1000, np.float32)
    pack = {"version": wire.WIRE_VERSION, "summed": False, "clients": [client], "reasons": [""], "details": [""]}
    return RecordDict(
        {
            wire.PACK: ConfigRecord(pack),  # type: ignore[arg-type]
            wire.METRICS: MetricRecord({wire.NUM_EXAMPLES: [100.0]}),
            wire.UPDATE: wire.array_record({"0/delta": delta}),
        }
    )


def full_arrays_of(client: str) -> RecordDict:
    """Return what a stock app answers: all arrays and the number of examples."""
    from flwr.app import MetricRecord, RecordDict

    from strategies import wire

    arrays = {name: array + int(client) % 97 / 1000 for name, array in model().items()}
    return RecordDict({"arrays": wire.array_record(arrays), "metrics": MetricRecord({"num-examples": 100})})


def lazy_grid(count: int, answer: Any) -> Any:
    """Return a grid of so many nodes with one client each, that makes a reply when it is pulled."""
    from flwr.app import Message

    from simulation.inline import InlineGrid
    from strategies.describe import DESCRIBE, NodeDescription
    from strategies.population import ClientInfo

    class LazyGrid(InlineGrid):
        def _execute(self, message: Message) -> Message:
            client = str(message.metadata.dst_node_id)
            if message.metadata.message_type == DESCRIBE:
                return Message(NodeDescription((ClientInfo(client, 100),)).to_content(), reply_to=message)
            return Message(answer(client), reply_to=message)

    return LazyGrid(None, {node: {} for node in range(1, count + 1)})  # type: ignore[arg-type]


def ours(count: int, initial: ArrayRecord) -> None:
    """Run one round of FedAvg as `FederatedStrategy` runs it."""
    from strategies import registry
    from strategies.federated import FederatedStrategy

    records: list[Any] = []
    strategy = FederatedStrategy(registry.build("fedavg", {}), observers=[records.append])
    strategy.start(lazy_grid(count, update_of), initial, num_rounds=1)
    assert len(records[1].accepted) == count


def stock(count: int, initial: ArrayRecord) -> None:
    """Run one round of flwr's own FedAvg."""
    from flwr.serverapp.strategy import FedAvg

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
    result = strategy.start(lazy_grid(count, full_arrays_of), initial, num_rounds=1)
    assert result.train_metrics_clientapp


def measure(strategy: str, count: int) -> None:
    """Run one row in this process and print it as JSON."""
    sys.path.insert(0, str(REPOSITORY))
    from flwr.serverapp.strategy import FedAvg  # noqa: F401  imported before the baseline is taken

    from strategies import wire

    logging.disable(logging.WARNING)
    wire.read_weights(initial := wire.array_record(model()))
    update_of("0"), full_arrays_of("0")
    before, start = peak_bytes(), time.perf_counter()
    {"FederatedStrategy": ours, "flwr FedAvg": stock}[strategy](count, initial)
    seconds = time.perf_counter() - start
    print(json.dumps({"peak": (peak_bytes() - before) / MIB, "baseline": before / MIB, "seconds": seconds}))


def peak_bytes() -> int:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * SCALE


def rows(counts: Iterable[int], stock_counts: Iterable[int]) -> Iterable[str]:
    """Yield the table, one line after each measurement."""
    yield "| strategy | replies | peak - baseline (MiB) | baseline (MiB) | round (s) | ms per reply |"
    yield "|---|---:|---:|---:|---:|---:|"
    jobs = [("FederatedStrategy", count) for count in counts] + [("flwr FedAvg", count) for count in stock_counts]
    for strategy, count in jobs:
        command = [sys.executable, __file__, "--measure", strategy, str(count)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row = json.loads(output.splitlines()[-1])
        each = 1000 * row["seconds"] / count
        figures = f"{row['peak']:.0f} | {row['baseline']:.0f} | {row['seconds']:.1f} | {each:.1f}"
        yield f"| {strategy} | {count} | {figures} |"


def main() -> None:
    """Print where and with what was measured, then the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--stock", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--measure", nargs=2, metavar=("STRATEGY", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure[0], int(arguments.measure[1]))
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("flwr", "numpy"))
    print(f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {packages}\n")
    for line in rows(arguments.counts, arguments.stock):
        print(line, flush=True)


if __name__ == "__main__":
    main()
