"""DP-FTRL and banded matrix factorisation beside DP-FedAvg at equal epsilon: the noise in the model, and the accuracy.

    uv run python -m benchmarks.dp_ftrl [--epsilons 4 16] [--passes 4] [--seeds 1] [--noise-only] [--engine inline]

MNIST, the 2NN (199,210 parameters), 500 clients of 120 examples, 50 of them a round: by Poisson selection in
DP-FedAvg, each once in a pass of 10 rounds in the others. Each mechanism gets the least noise that keeps to epsilon at
delta 1e-5 over all rounds. The noise is that of the sum of all updates so far, in clipping norms: at the end, and its
root mean square over all rounds; it is measured on 20,000 numbers. First, without training, what a numerical search
over the coefficients of the bands would gain over those of the square root.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.linalg import solve_triangular, toeplitz
from scipy.optimize import minimize

from app.config import RunConfig
from app.privacy_command import planned
from benchmarks.papers.lab import Keys, Lab, accuracy, use_cached_images
from simulation.simulate import Simulation
from strategies.privacy.correlated import CorrelatedNoise
from strategies.privacy.matrix_factorization import BandedNoise
from strategies.privacy.plan import with_least_noise
from strategies.privacy.tree import TreeNoise
from strategies.updates import State

CLIENTS, PER_ROUND, NUMBERS = 500, 50, 20_000
PASS = CLIENTS // PER_ROUND
SETTING: Keys = {
    "dataset": "mnist",
    "partition": "iid",
    "num-clients": CLIENTS,
    "client-test-fraction": 0.0,
    "federated-evaluate-every": 0,
    "model": "mlp",
    "learning-rate": 0.1,
    "local-epochs": 1,
    "batch-size": 10,
    "clients-per-round": PER_ROUND,
    "clipping-norm": 0.5,
    "budget-delta": 1e-5,
    "checkpoint-every": 0,
}
MECHANISMS: dict[str, CorrelatedNoise] = {
    "dp-fedavg": BandedNoise(1),  # independent noise
    "dp-ftrl": TreeNoise(PASS),
    "dp-mf": BandedNoise(PASS),
}


def least_noise(strategy: str, rounds: int, epsilon: float) -> float:
    """Return the least noise multiplier that keeps to epsilon, rounded up to four digits."""
    config = RunConfig.from_run_config({**SETTING, "strategy": strategy, "num-rounds": rounds})
    return math.ceil(with_least_noise(planned(config), epsilon).noise_multiplier * 1e4) / 1e4


def prefix_noise(noise: CorrelatedNoise, rounds: int) -> tuple[float, float]:
    """Return the deviation of the noise of all rounds together, and the root mean square over the rounds before."""
    state: State = {}
    total, squares = np.zeros(NUMBERS), []
    for number in range(1, rounds + 1):
        drawn, state = noise.next(number, NUMBERS, state, np.random.default_rng(number))
        total += drawn
        squares.append(float(np.mean(np.square(total))))
    return math.sqrt(squares[-1]), math.sqrt(statistics.fmean(squares))


def column_noise(column: np.ndarray, rounds: int) -> float:
    """Return the root mean square deviation of prefix sums by a Toeplitz factor of these bands, scaled to norm 1."""
    whole = np.zeros(rounds)
    whole[: len(column)] = column
    inverse = solve_triangular(np.tril(toeplitz(whole)), np.eye(rounds), lower=True)
    return float(np.linalg.norm(column) * np.linalg.norm(inverse.cumsum(axis=0)) / math.sqrt(rounds))


def gains(lengths: Sequence[tuple[int, int]] = ((4, 25), (8, 12), (16, 6), (16, 1), (50, 1), (50, 4))) -> Iterator[str]:
    """Yield a row for passes of so many rounds, and so many of them: the square root's coefficients, the best found."""
    for length, passes in lengths:
        start, rounds = BandedNoise(length).column, length * passes

        def objective(others: np.ndarray, first: float = start[0], rounds: int = rounds) -> float:
            return math.log(column_noise(np.append(first, others), rounds))

        ours = column_noise(start, rounds)
        best = math.exp(minimize(objective, start[1:], method="L-BFGS-B", options={"maxiter": 60}).fun)
        yield f"| {length} | {passes} | {ours:.3f} | {best:.3f} | {1 - best / ours:.1%} |"


def reached(lab: Lab, strategy: str, rounds: int, noise_multiplier: float, seeds: int) -> Iterator[float]:
    """Yield the test accuracy at the end of a run for each seed."""
    keys = {**SETTING, "strategy": strategy, "num-rounds": rounds, "evaluate-every": rounds}
    for seed in range(seeds):
        yield accuracy(lab.records({**keys, "noise-multiplier": noise_multiplier, "seed": seed})[-1])


def rows(lab: Lab | None, epsilons: Sequence[float], rounds: int, seeds: int) -> Iterator[str]:
    """Yield the rows of the table; without a lab there are no accuracies."""
    for epsilon in epsilons:
        for strategy, noise in MECHANISMS.items():
            z = least_noise(strategy, rounds, epsilon)
            last, mean = (z * deviation for deviation in prefix_noise(noise, rounds))
            found = sorted(reached(lab, strategy, rounds, z, seeds)) if lab else []
            told = " ".join(f"{value:.3f}" for value in found) or "-"
            yield f"| {epsilon:g} | {strategy} | {z:.3g} | {last:.2f} | {mean:.2f} | {told} |"
    if lab:
        told = " ".join(f"{value:.3f}" for value in reached(lab, "dp-fedavg", rounds, 0.0, seeds))
        yield f"| none | dp-fedavg | 0 | 0 | 0 | {told} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--epsilons", nargs="*", type=float, default=[4.0, 16.0])
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--noise-only", action="store_true", help="without training")
    parser.add_argument("--engine", choices=["ray", "inline"], default="ray")
    args = parser.parse_args()
    started = time.perf_counter()
    print("| rounds in a pass | passes | square root | searched | gain |\n|---:|---:|---:|---:|---:|")
    for row in gains():
        print(row, flush=True)
    print("\n| epsilon | strategy | z | noise at the end | over all rounds | accuracy |\n|---|---|---:|---:|---:|---:|")
    if args.noise_only:
        for row in rows(None, args.epsilons, args.passes * PASS, 0):
            print(row, flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        use_cached_images(Path(folder) / "keras")
        with Simulation(engine=args.engine) as simulation:
            for row in rows(Lab(simulation, Path(folder) / "runs"), args.epsilons, args.passes * PASS, args.seeds):
                print(row, flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
