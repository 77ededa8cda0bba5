"""What canaries prove beside what is accounted: audited runs on digits, and how many canaries a proof takes.

Run it with ``uv run python -m benchmarks.audit [--canaries 200] [--rounds 10]``; it takes a few minutes.

The runs are ordinary ones of 100 clients with as many canaries beside them as is said, trained inline: the MLP on
digits dealt evenly. Then audits of a single Gaussian release, whose epsilon is known exactly: the median bound of 200,
and in how many of these the bound exceeded the truth.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.config import RunConfig
from simulation.audit.outcome import Outcome
from simulation.simulate import ONE_OF_MANY, Simulation
from strategies.privacy.audit import Gaussian, gaussian_epsilon, lower_bound

CASES = [
    *(("dp-fedavg", z, 60) for z in (0.0, 0.1, 0.3, 0.5, 1.0)),
    ("dp-fedavg", 0.5, 100),
    ("dp-fedavg-adaptive", 0.5, 60),
    ("dp-ftrl", 0.5, 60),
    ("dp-mf", 0.5, 60),
    ("local-dp", 1.0, 60),
]
"""Strategy, noise multiplier, clients per round."""

CLIENTS, REPEATS, SIZE, DELTA = 100, 200, 20_000, 1e-5


def audited(simulation: Simulation, folder: Path, strategy: str, noise: float, per_round: int, **keys: int) -> str:
    """Return a row: what was accounted, estimated and proved."""
    values = {
        **{"dataset": "digits", "model": "mlp", "partition": "iid", "num-clients": CLIENTS, "learning-rate": 0.1},
        **{"strategy": strategy, "noise-multiplier": noise, "clients-per-round": per_round},
        **{"checkpoint-every": 0, "federated-evaluate-every": 0, "runs-dir": str(folder)},
        **{key.replace("_", "-"): value for key, value in keys.items()},
    }
    run = simulation.run(RunConfig.from_run_config(values), output=ONE_OF_MANY)
    told = Outcome.of_json(json.loads(run.directory.audit.read_text()))
    assert told.promised is not None and run.last is not None and run.last.central is not None
    found = [
        *(told.promised.tightest, told.final_model.estimate, told.final_model.bound),
        *(told.all_models.estimate, told.all_models.bound, 100 * run.last.central["accuracy"]),
    ]
    return f"| {strategy} | {noise:g} | {per_round} | {' | '.join(f'{number:.3g}' for number in found)} |"


def single_releases(noise: float) -> Iterator[str]:
    """Yield a row for each number of canaries, of one release in which each has noise of its own."""
    generator = np.random.default_rng(1)
    truth = gaussian_epsilon(Gaussian(0, noise), Gaussian(1, noise), DELTA)
    for canaries in (50, 100, 300, 1000, 3000):
        along = 1 + noise * generator.standard_normal((REPEATS, canaries))
        across = noise**2 * generator.chisquare(SIZE - 1, along.shape)
        bounds = [lower_bound(scores, SIZE, DELTA) for scores in along / np.sqrt(along**2 + across)]
        exceeded = sum(bound > truth for bound in bounds)
        yield f"| {noise:g} | {canaries} | {truth:.3g} | {np.median(bounds):.3g} | {exceeded} of {REPEATS} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--canaries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print("| strategy | z | clients | accounted | final: estimate | bound | all: estimate | bound | accuracy % |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, Simulation(engine="inline") as simulation:
        for case in CASES:
            row = audited(simulation, Path(folder), *case, canaries=asked.canaries, num_rounds=asked.rounds)
            print(row, flush=True)
    print("\n| z | canaries | epsilon | median bound | exceeded it |\n|---:|---:|---:|---:|---:|")
    for noise in (0.5, 1.0, 2.0):
        for row in single_releases(noise):
            print(row, flush=True)


if __name__ == "__main__":
    main()
