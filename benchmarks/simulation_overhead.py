"""What `fedkeras simulate` itself costs: ms per client whose training is nothing, and ms per message of nothing.

    python -m benchmarks.simulation_overhead [--clients 20] [--rounds 300] [--workers 2] [--profile]

The model has the 199,210 parameters of the MLP 784-200-200-10 in its six arrays. Clients answer with the weights they
got, so that what is left is messages, deltas, admission, exact sums, the server's step and the round's record.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from simulation import cluster
from simulation.resources import Placement, Wish
from strategies import registry, wire
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.terms import RoundRules

SHAPES = ((784, 200), (200,), (200, 200), (200,), (200, 10), (10,))
POPULATION = 600
EXAMPLES = 100
WARM_UP = 20

app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Host all clients, equally large."""
    clients = tuple(ClientInfo(str(client), EXAMPLES) for client in range(POPULATION))
    return Message(NodeDescription(clients).to_content(), reply_to=message)


@app.query("nothing")
def nothing(message: Message, context: Context) -> Message:
    """Answer at once."""
    return Message(RecordDict({}), reply_to=message)


@app.train(mods=client_mods())
def train(message: Message, context: Context) -> Message:
    """Answer with the weights that came."""
    weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    arrays = wire.array_record(dict(zip(weights.layout.names, weights.arrays, strict=True)))
    metrics = MetricRecord({wire.NUM_EXAMPLES: EXAMPLES, "loss": 1.0, "accuracy": 0.5})
    return Message(RecordDict({wire.ARRAYS: arrays, wire.METRICS: metrics}), reply_to=message)


def start_arrays() -> ArrayRecord:
    """Return random weights of the model's shapes."""
    draw = np.random.default_rng(0)
    return wire.array_record({str(i): draw.normal(size=shape).astype(np.float32) for i, shape in enumerate(SHAPES)})


def ms_per_client(grid: Grid, clients: int, rounds: int) -> float:
    """Return the median over the rounds, after some to warm up."""
    records: list[RoundRecord] = []
    rules = RoundRules(evaluate_every=0)
    strategy = FederatedStrategy(
        registry.build("fedavg", {"clients-per-round": clients}), rules, observers=[records.append]
    )
    strategy.start(grid, start_arrays(), WARM_UP + rounds)
    assert all(len(record.accepted) == clients for record in records[1:])
    return statistics.median(record.seconds["total"] for record in records[WARM_UP + 1 :]) / clients * 1000


def round_trip_ms(grid: Grid, count: int = 300) -> float:
    """Return the median time in which every node answers a message of nothing."""
    times = []
    for _ in range(count):
        start = time.perf_counter()
        list(grid.send_and_receive([Message(RecordDict({}), node, "query.nothing") for node in grid.get_node_ids()]))
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def profiled(call: Callable[[], object]) -> None:
    """Print what takes the driver's time."""
    profile = cProfile.Profile()
    profile.runcall(call)
    pstats.Stats(profile).sort_stats("tottime").print_stats(35)


def main() -> None:
    """Measure and print."""
    from simulation.grid import RayGrid
    from simulation.inline import InlineGrid
    from simulation.pool import WorkerPool

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--clients", 20), ("--rounds", 300), ("--workers", 2)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--profile", action="store_true", help="profile the driver")
    given = parser.parse_args()
    print(
        f"inline, no processes: {ms_per_client(InlineGrid.of(app, 1), given.clients, given.rounds):.3f} ms per client"
    )
    cluster.start(Wish(given.workers))
    for shared in (True, False):
        pool = WorkerPool(Placement(given.workers), cluster.WORKER_ENVIRONMENT, shared_memory=shared)
        grid = RayGrid(pool, "benchmarks.simulation_overhead:app", {})
        way = "shared memory" if shared else "Ray's store alone"
        print(f"{way}: {ms_per_client(grid, given.clients, given.rounds):.3f} ms per client")
        print(f"{way}: {round_trip_ms(grid):.2f} ms for a message of nothing to each of {given.workers} workers")
        if given.profile and shared:
            profiled(lambda grid=grid: ms_per_client(grid, given.clients, given.rounds))  # type: ignore[misc]
        pool.close()
    cluster.stop()


if __name__ == "__main__":
    main()
