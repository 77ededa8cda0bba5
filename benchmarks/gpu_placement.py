"""Clients per second of `fedkeras simulate` with 1, 2 and 4 workers on one GPU.

    python -m benchmarks.gpu_placement [--rounds 40]

The models of `benchmarks.throughput`, 32 clients of 100 examples a round; the first rounds, which load and compile, do
not count. Prints one sentence where there is no GPU.
"""

from __future__ import annotations

import argparse

from benchmarks.throughput import round_ends
from simulation.cluster import this_machine

PER_GPU = (1, 2, 4)
COHORT = 32
WARM_UP = 10


def clients_per_second(model: str, workers: int, rounds: int) -> float:
    """Return the speed of so many workers that share one GPU."""
    settings = {
        "dataset": "benchmarks.workloads:images_600",
        "partition": "natural",
        "client-test-fraction": 0.0,
        "model": f"benchmarks.workloads:{model}",
        "learning-rate": 0.05,
        "local-epochs": 1,
        "batch-size": 20,
        "num-rounds": WARM_UP + rounds,
        "clients-per-round": COHORT,
        "evaluate-every": 0,
        "federated-evaluate-every": 0,
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    times = dict(round_ends(overrides, "--gpus", "1", "--workers", str(workers)))
    return COHORT * rounds / (times[WARM_UP + rounds] - times[WARM_UP])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    if this_machine().gpus == 0:
        print("There is no GPU here (nvidia-smi finds none), so there is nothing to place workers on.")
        return
    print("| workers on one GPU | mlp (clients/s) | cnn (clients/s) |")
    print("|---:|---:|---:|")
    for workers in PER_GPU:
        speeds = [clients_per_second(model, workers, rounds) for model in ("mlp", "cnn")]
        print(f"| {workers} | {speeds[0]:.0f} | {speeds[1]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
