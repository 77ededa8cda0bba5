"""What DP-SGD costs: a client's training with per-example clipping and noise beside the plain one.

    uv run python -m benchmarks.dp_sgd [--models mlp cnn ...] [--batch-sizes 256 20] [--repeats 5]

One process, one thread, the models of McMahan et al. on 28x28 images; four batches of examples, one epoch. The
candidates alternate, and the figures are medians, in seconds of this process's CPU.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks.workloads import learnable_images
from tasks.dp_sgd import DpSgd
from tasks.local_training import LocalTraining
from tasks.training import Trainer, trainer, use_one_thread

SHAPE, RATE, BATCHES = (28, 28, 1), 0.15, 4
CANDIDATES = {
    "plain": None,
    "DP-SGD without noise": DpSgd(1.0, 0.0),
    "DP-SGD": DpSgd(1.0, 1.1),
    "DP-SGD, 4 microbatches": DpSgd(1.0, 1.1, microbatches=4),
}


def measure(model: str, batch_size: int, repeats: int) -> None:
    """Print the rows of a model and a batch size."""
    data = learnable_images(BATCHES * batch_size, SHAPE)
    trainers = {
        name: trainer(model, SHAPE, 10, LocalTraining(batch_size, dp_sgd=dp_sgd)) for name, dp_sgd in CANDIDATES.items()
    }
    weights = trainers["plain"].compiled.model.get_weights()
    taken: dict[str, list[float]] = {name: [] for name in trainers}

    def seconds(own: Trainer) -> float:
        started = time.process_time()
        own.train(weights, data, RATE, seed=0)
        return time.process_time() - started

    for own in trainers.values():
        seconds(own)  # compiles
    for _ in range(repeats):
        for name, own in trainers.items():
            taken[name].append(seconds(own))
    medians = {name: statistics.median(values) / BATCHES for name, values in taken.items()}
    for name, median in medians.items():
        print(f"| {model} | {batch_size} | {name} | {median * 1e3:.2f} | {median / medians['plain']:.2f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="*", default=["mlp", "cnn"])
    parser.add_argument("--batch-sizes", nargs="*", type=int, default=[256, 20])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    use_one_thread()
    print("| model | batch | training | ms per step | of the plain step |")
    print("|---|---:|---|---:|---:|")
    for model in arguments.models:
        for batch_size in arguments.batch_sizes:
            measure(model, batch_size, arguments.repeats)


if __name__ == "__main__":
    main()
