"""What a round costs on the server as the population grows: drawing 20 clients and writing their requests.

    python -m benchmarks.population_cost [--cohort 20] [--rounds 200]

Nothing is trained. Nodes are described once; after that a round should cost the same whatever the population. The order
of sizes is shuffled from block to block, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.census import Census
from strategies.describe import NodeDescription
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo

POPULATIONS = (1_000, 10_000, 100_000)
BLOCKS = 10
PARAMETERS = 199_210  # of the MLP 784-200-200-10


def described_by(num_clients: int) -> ClientApp:
    """Return an app whose nodes host so many clients and train none."""
    app = ClientApp()
    infos = tuple(ClientInfo(str(number), 100 + number % 7) for number in range(num_clients))

    @app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        return Message(NodeDescription(infos).to_content(), reply_to=message)

    return app


def strategy_for(num_clients: int, cohort: int) -> tuple[FederatedStrategy, InlineGrid]:
    """Return a strategy that has learnt the population."""
    grid = InlineGrid.of(described_by(num_clients), 2)
    census = Census(grid, 60.0)
    census.start(1, 1.0)
    return FederatedStrategy(registry.build("fedavg", {"clients-per-round": cohort}), seed=1, census=census), grid


def main() -> None:
    """Print the milliseconds of configure_train for each size of the population."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohort", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=200)
    args = parser.parse_args()
    arrays = wire.array_record({"weights": np.zeros(PARAMETERS, np.float32)})
    runs = {size: strategy_for(size, args.cohort) for size in POPULATIONS}
    taken: dict[int, list[float]] = {size: [] for size in POPULATIONS}
    numbers = iter(range(1, 10**9))
    for _ in range(BLOCKS):
        for size in random.sample(POPULATIONS, len(POPULATIONS)):
            strategy, grid = runs[size]
            for _ in range(max(1, args.rounds // BLOCKS)):
                start = time.perf_counter()
                list(strategy.configure_train(next(numbers), arrays, ConfigRecord(), grid))
                taken[size].append(1000 * (time.perf_counter() - start))
    first = statistics.median(taken[POPULATIONS[0]])
    for size in POPULATIONS:
        median = statistics.median(taken[size])
        print(f"{size:>7} clients: {median:.3f} ms per round of {args.cohort}, {median / first:.2f} of the smallest")


if __name__ == "__main__":
    main()
