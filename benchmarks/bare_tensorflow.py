"""What no framework costs: FedAvg by hand in TensorFlow, two processes of one thread each, a pipe between them.

The yardstick of `benchmarks.throughput`. The steps are those of the other candidates (each client's examples in a new
order, batches of 20, SGD 0.05, the mean of the weights), the code is what one writes for one model and one run: raw
operations, the whole local training in one graph, XLA for the dense network and none for the convolutions (where XLA
on the CPU is far slower). No checks, no metrics, no exact sums, no faults survived.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.workloads import images_600

CLIENTS, EXAMPLES, BATCH, RATE = 600, 100, 20, 0.05
Weights = list[npt.NDArray[np.float32]]


def initial_weights(model: str) -> Weights:
    """Draw the weights of a model ("mlp", "cnn")."""
    generator = np.random.default_rng(0)
    shapes = {
        "mlp": [(784, 200), (200,), (200, 200), (200,), (200, 10), (10,)],
        "cnn": [(3, 3, 1, 32), (32,), (3, 3, 32, 64), (64,), (1600, 128), (128,), (128, 10), (10,)],
    }[model]
    return [
        (generator.standard_normal(shape) * (2 / np.prod(shape[:-1])) ** 0.5 * (len(shape) > 1)).astype(np.float32)
        for shape in shapes
    ]


def trainer(model: str) -> Callable[[Weights, Any, Any], Any]:
    """Return the compiled local training: (weights, x in the order of training, y) -> new weights."""
    import tensorflow as tf

    def dense(w: Any, x: Any) -> Any:
        hidden = tf.reshape(x, (-1, 784))
        for index in (0, 2):
            hidden = tf.nn.relu(hidden @ w[index] + w[index + 1])
        return hidden @ w[4] + w[5]

    def convolutional(w: Any, x: Any) -> Any:
        for index in (0, 2):
            x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w[index], 1, "VALID"), w[index + 1]))
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        hidden = tf.nn.relu(tf.reshape(x, (-1, 1600)) @ w[4] + w[5])
        return hidden @ w[6] + w[7]

    forward = {"mlp": dense, "cnn": convolutional}[model]
    specs = [tf.TensorSpec(weight.shape, tf.float32) for weight in initial_weights(model)]

    @tf.function(
        input_signature=[specs, tf.TensorSpec((EXAMPLES, 28, 28, 1), tf.float32), tf.TensorSpec((EXAMPLES,), tf.int32)],
        jit_compile=model == "mlp",
    )
    def train(weights: Any, x: Any, y: Any) -> Any:
        for start in range(0, EXAMPLES, BATCH):
            with tf.GradientTape() as tape:
                tape.watch(weights)
                outputs = forward(weights, x[start : start + BATCH])
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y[start : start + BATCH], outputs)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, weights)
            weights = [weight - RATE * gradient for weight, gradient in zip(weights, gradients, strict=True)]
        return weights

    return train  # type: ignore[no-any-return]


def process(model: str, pipe: Connection) -> None:
    """Train the clients that come through the pipe, and send back the sum of their weights, until None comes."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    train, data, generator = trainer(model), images_600().pool, np.random.default_rng()
    while (task := pipe.recv()) is not None:
        weights, clients = task
        sums = [np.zeros_like(weight) for weight in weights]
        for client in clients:
            order = client * EXAMPLES + generator.permutation(EXAMPLES)
            for total, weight in zip(sums, train(weights, data.x[order], data.y[order]), strict=True):
                np.add(total, weight, out=total)
        pipe.send(sums)


def clients_per_second(model: str, processes: int, rounds: int, warm_up: int, cohort: int) -> float:
    """Run so many rounds and return the clients trained per second after the first ``warm_up`` rounds."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(processes)]
    workers = [context.Process(target=process, args=(model, theirs), daemon=True) for _, theirs in pairs]
    for worker in workers:
        worker.start()
    generator, weights, started = np.random.default_rng(0), initial_weights(model), 0.0
    for number in range(warm_up + rounds):
        if number == warm_up:
            started = time.perf_counter()
        chosen = generator.choice(CLIENTS, cohort, replace=False)
        for index, (ours, _) in enumerate(pairs):
            ours.send((weights, chosen[index::processes]))
        parts = [ours.recv() for ours, _ in pairs]
        weights = [np.add.reduce(part) / np.float32(cohort) for part in zip(*parts, strict=True)]
    seconds = time.perf_counter() - started
    for (ours, _), worker in zip(pairs, workers, strict=True):
        ours.send(None)
        worker.join()
    if not all(np.isfinite(weight).all() for weight in weights):
        raise RuntimeError("The bare loop diverged, so its figure says nothing.")
    return rounds * cohort / seconds
