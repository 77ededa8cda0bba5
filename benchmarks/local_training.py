"""Clients per second of local training alone: our `Trainer.train` beside a bare hand-written TensorFlow loop.

    uv run python -m benchmarks.local_training [--cases mlp cnn ...] [--repeats 9]

One process, one thread. The bare loop is `benchmarks.bare_tensorflow`: raw operations, the whole local training of one
client unrolled in one graph, XLA for the dense network and none for convolutions; it shuffles the client's examples,
trains, reads the weights back and adds them up, and does nothing else. Ours starts from a Keras model, checks weights
and data, takes any number of examples, any optimizer and any batch size, orders the batches by the seed, and sums loss
and accuracy; its weights are added up too. Models that are tiny enough to be trained in groups (`tasks.stacking`) are
also measured so, and without groups.

The candidates of a case alternate, and the figures are medians. They are in seconds of this process's CPU, which other
work on the machine disturbs less than the wall clock; with one thread both are the same on an idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from benchmarks import bare_tensorflow
from benchmarks.workloads import learnable_images
from tasks.data import Examples
from tasks.local_training import LocalTraining
from tasks.training import Trainer, trainer, use_one_thread

Weights = Sequence[np.ndarray]
Train = Callable[[Weights, Sequence[Examples]], Iterable[Weights]]
MESSAGE = 32
"""Clients that are handed to the training at a time, where it takes several."""


@dataclass(frozen=True)
class Case:
    """A model, its data, and how it is trained. ``bare`` names the model of `benchmarks.bare_tensorflow` beside it."""

    model: str
    shape: tuple[int, ...] = (28, 28, 1)
    examples: int = 100
    batch_size: int = 20
    optimizer: str = "sgd"
    bare: str = ""
    clients: int = 50

    def trainer(self) -> Trainer:
        """Return our trainer of the case."""
        return trainer(self.model, self.shape, 10, LocalTraining(self.batch_size, optimizer=self.optimizer))


CASES = {
    "mlp": Case("benchmarks.workloads:mlp", bare="mlp"),
    "mlp-adam": Case("benchmarks.workloads:mlp", optimizer="adam"),
    "cnn": Case("benchmarks.workloads:cnn", bare="cnn", clients=10),
    "cnn-dropout": Case("cnn-cifar", (32, 32, 3), examples=50, batch_size=10, clients=5),
    "logistic": Case("logistic", (8, 8, 1), examples=30, batch_size=5, clients=200),
    "dense-tiny": Case("benchmarks.local_training:tiny", (8, 8, 1), examples=30, batch_size=5, clients=200),
    "mlp-small": Case("mlp-dropout", (8, 8, 1), examples=30, batch_size=5, clients=100),
}


def tiny(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return the dense network 64-32-10 on 8x8 images: 2410 parameters."""
    layers = keras.layers
    parts = [keras.Input(input_shape), layers.Flatten(), layers.Dense(32, "relu"), layers.Dense(num_classes)]
    return keras.Sequential(parts)


def ours(case: Case) -> Train:
    """Return our local training one client by one; of a tiny model each then trains in a group of its own."""
    own = case.trainer()
    return lambda weights, data: (
        own.train(weights, examples, bare_tensorflow.RATE, seed).weights for seed, examples in enumerate(data)
    )


def together(case: Case) -> Train:
    """Return our local training of all clients that a message names."""
    own = case.trainer()

    def run(weights: Weights, data: Sequence[Examples]) -> list[Weights]:
        seeds, shares = range(len(data)), [1.0] * len(data)
        return [r.weights for r in own.train_together(weights, data, bare_tensorflow.RATE, seeds, shares)]

    return run


def ungrouped(case: Case) -> Train:
    """Return our local training with one program call for each client, as of models that are not tiny."""
    own = replace(case.trainer(), stacked=None)
    return lambda weights, data: (
        own.train(weights, examples, bare_tensorflow.RATE, seed).weights for seed, examples in enumerate(data)
    )


def bare(case: Case) -> Train:
    """Return the bare loop."""
    train, generator = bare_tensorflow.trainer(case.bare), np.random.default_rng()

    def one(weights: Weights, data: Examples) -> Weights:
        order = generator.permutation(case.examples)
        return train(list(weights), data.x[order], data.y[order])  # type: ignore[no-any-return]

    return lambda weights, data: (one(weights, examples) for examples in data)


def seconds_per_client(train: Train, weights: Weights, data: Sequence[Examples]) -> float:
    """Train a round of clients, `MESSAGE` at a time, adding up their weights."""
    sums = [np.zeros_like(weight) for weight in weights]
    started = time.process_time()
    for start in range(0, len(data), MESSAGE):
        for trained in train(weights, data[start : start + MESSAGE]):
            for total, weight in zip(sums, trained, strict=True):
                np.add(total, weight, out=total)
    return (time.process_time() - started) / len(data)


def candidates(case: Case) -> dict[str, Train]:
    """Return what is measured side by side."""
    found = {"Trainer.train": ours(case)}
    if case.trainer().stacked is not None:
        found |= {"Trainer.train_together": together(case), "one by one, unstacked": ungrouped(case)}
    return found | ({"bare loop": bare(case)} if case.bare else {})


def _clients(case: Case) -> list[Examples]:
    pool = learnable_images(case.clients * case.examples, case.shape)
    parts = [slice(start, start + case.examples) for start in range(0, len(pool), case.examples)]
    return [Examples(pool.x[part], pool.y[part]) for part in parts]


def _weights(case: Case) -> list[np.ndarray]:
    weights = [np.asarray(weight) for weight in case.trainer().compiled.model.get_weights()]
    drawn = bare_tensorflow.initial_weights(case.bare) if case.bare else [w * 0 + np.float32(0.01) for w in weights]
    for weight in drawn:
        weight.flags.writeable = False  # as they come off the wire
    return drawn


def measure(name: str, repeats: int) -> None:
    """Print the rows of one case."""
    case = CASES[name]
    data, weights = _clients(case), _weights(case)
    measured = candidates(case)
    first: dict[str, float] = {}
    for label, train in measured.items():
        started = time.perf_counter()
        list(train(weights, data[:1]))
        first[label] = time.perf_counter() - started
    taken: dict[str, list[float]] = {label: [] for label in measured}
    for _ in range(repeats):
        for label, train in measured.items():
            taken[label].append(seconds_per_client(train, weights, data))
    medians = {label: statistics.median(values) for label, values in taken.items()}
    for label, median in medians.items():
        ratio = f"{medians['bare loop'] / median:.2f}" if case.bare else "-"
        cells = [name, label, f"{1 / median:.0f}", f"{median * 1e3:.3f}", ratio, f"{first[label]:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    use_one_thread()
    print("| case | candidate | clients/s | ms per client | of the bare loop | first call (s) |")
    print("|---|---|---:|---:|---:|---:|")
    for name in arguments.cases:
        measure(name, arguments.repeats)


if __name__ == "__main__":
    main()
