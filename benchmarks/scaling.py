"""How the cost of `fedkeras simulate` grows: with the clients of a round (it should, evenly) and the population (not).

    uv run python -m benchmarks.scaling

The MLP workload of `benchmarks.throughput`. First 20, 100 and 500 clients per round of a population of 1,000; then 20
per round of 1,000, 10,000 and 100,000. Ours as users run it; per row the median of the repeats, rows taken in turn.
"""

from __future__ import annotations

import statistics

from benchmarks.throughput import simulated

REPEATS = 3
ROWS = [(1_000, 20, 200), (1_000, 100, 40), (1_000, 500, 10), (10_000, 20, 200), (100_000, 20, 200)]
WARM_UP = 10


def clients_per_second(population: int, cohort: int, rounds: int) -> float:
    """Return the clients trained per second."""
    dataset = f"dataset=benchmarks.workloads:images_{population}"
    return simulated("mlp", rounds, WARM_UP, dataset, cohort=cohort)


def main() -> None:
    """Print the table."""
    measured: dict[tuple[int, int, int], list[float]] = {row: [] for row in ROWS}
    for _ in range(REPEATS):
        for row in ROWS:
            measured[row].append(clients_per_second(*row))
    print("| population | clients per round | ms per client | relative to the first row |\n|---|---|---|---|")
    first = statistics.median(measured[ROWS[0]])
    for (population, cohort, _), values in measured.items():
        speed = statistics.median(values)
        print(f"| {population} | {cohort} | {1000 / speed:.2f} | {first / speed:.2f} |")


if __name__ == "__main__":
    main()
