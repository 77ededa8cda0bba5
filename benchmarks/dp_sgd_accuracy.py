"""Accuracy against epsilon: MNIST by DP-SGD on one client that holds all of it, as in TensorFlow Privacy's tutorial.

    uv run python -m benchmarks.dp_sgd_accuracy [--epochs 60] [--seed 0]

The tutorial (github.com/tensorflow/privacy, tutorials/README.md) trains its small CNN, of 26,010 parameters, by SGD
with clip 1, noise multiplier 1.1, batches of 256 and the learning rate 0.15. It tells 96.6 % after 60 epochs, at
epsilon 3.01 by the conversion of its day, for delta 1e-5. Here the same is done by the local training that clients do,
with Poisson batches as the accountants assume; there, batches are shuffled. Each epoch is told with its accuracy on the
test set, its epsilon by both accountants, and the seconds of CPU that it took on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.papers.lab import use_cached_images
from strategies.privacy.accounting import Epsilons
from strategies.privacy.example_level import ExampleLevel

if TYPE_CHECKING:
    import keras

    from tasks.data import Examples

CLIP, NOISE, BATCH, RATE, DELTA = 1.0, 1.1, 256, 0.15, 1e-5


def tutorial_cnn(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Return the tutorial's model, which gives logits."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(16, 8, strides=2, padding="same", activation="relu"),
            layers.MaxPool2D(2, 1),
            layers.Conv2D(32, 4, strides=2, padding="valid", activation="relu"),
            layers.MaxPool2D(2, 1),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(num_classes),
        ]
    )


def mnist() -> list[Examples]:
    """Return MNIST's training and test examples, in [0, 1]."""
    import keras
    import numpy as np

    from tasks.data import Examples

    parts = keras.datasets.mnist.load_data()
    return [Examples(x[..., np.newaxis].astype(np.float32) / 255, y.astype(np.int32)) for x, y in parts]


def train(epochs: int, seed: int) -> Iterator[tuple[int, float, Epsilons, float]]:
    """Yield each epoch's number, its accuracy on the test set, its epsilon and its seconds of CPU."""
    from tasks.dp_sgd import DpSgd
    from tasks.local_training import LocalTraining
    from tasks.models import build_model
    from tasks.training import trainer, use_one_thread

    use_one_thread()
    train, test = mnist()
    training = LocalTraining(BATCH, dp_sgd=DpSgd(CLIP, NOISE))
    level = ExampleLevel(BATCH, NOISE, training.steps_for, DELTA)
    name, shape = f"{__spec__.name}:tutorial_cnn", train.x.shape[1:]
    local, weights = trainer(name, shape, 10, training), build_model(name, shape, 10, seed).get_weights()
    for epoch in range(1, epochs + 1):
        started = time.process_time()
        weights = local.train(weights, train, RATE, seed=1000 * seed + epoch).weights
        taken = time.process_time() - started
        yield epoch, local.evaluate(weights, test).accuracy, level.epsilons(len(train), epoch), taken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with TemporaryDirectory() as home:
        use_cached_images(Path(home))
        print("| epochs | accuracy | epsilon by RDP | by PLD | CPU s |\n|---:|---:|---:|---:|---:|", flush=True)
        for epoch, accuracy, found, taken in train(arguments.epochs, arguments.seed):
            row = f"| {epoch} | {accuracy:.4f} | {found.rdp:.3f} | {found.pld:.3f} | {taken:.1f} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
