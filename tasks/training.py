"""Local training and evaluation of one client: plain arrays in, plain arrays and numbers out."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tasks.batches import (
    Batches,
    ExampleBatches,
    StreamBatches,
    batch_width,
    checked_batch,
    checked_examples,
    ended,
)
from tasks.compiled import CompiledModel
from tasks.data import ClientData, Examples, Stream
from tasks.dp_sgd import DpSgd, PoissonBatches
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.models import build_model, check_fit
from tasks.objective import Terms, objective_for
from tasks.optimizers import make_optimizer
from tasks.phases import Tensors, Trained
from tasks.private_training import PrivateModel
from tasks.stacking import WIDEST, trains_stacked
from tasks.stream_errors import told
from tasks.together import Job, StackedModel, groups

EVALUATION_BATCH_SIZE = 500
MOST_TOGETHER, WAITING_BYTES = 32, 16 * 2**20
"""Clients, and bytes of their trained weights, that `Trainer.train_together` is to be given at a time at most."""
MAX_MU = float(np.finfo(np.float32).max)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a client hands back: its weights in wire order, its number of examples, and how training went.

    ``loss`` and ``accuracy`` are means over the examples as they were seen, in training mode and while the weights
    moved; the loss is the data's alone, without regularisation. Training that diverged gives non-finite numbers and no
    error.
    """

    weights: list[np.ndarray]
    num_examples: int
    loss: float
    accuracy: float
    steps: int


@dataclass(frozen=True)
class EvalResult:
    """Mean loss and accuracy over the examples; both are NaN where there are none."""

    num_examples: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Trainer:
    """Trains and evaluates one model.

    A result depends on the arguments alone, never on what the process did before. Trainers that differ only in epochs,
    steps or batch size share compiled functions. May be used from several threads.
    """

    compiled: CompiledModel
    stacked: StackedModel | None
    private: PrivateModel | None
    training: LocalTraining
    num_classes: int

    @functools.cached_property
    def most_together(self) -> int:
        """How many clients to train at a time; all weights of all of them are then there at once.

        Tiny models train in groups. With the others, too, one training after the other goes faster than each followed
        by what is done with its weights, after which nothing of the compiled function is left in the core's caches:
        677 instead of 614 clients/s with the MLP 784-200-200-10, 644 for five at a time.
        """
        size: int = sum(spec.shape.num_elements() * spec.dtype.size for spec in self.compiled.weight_specs)
        return max(1, min(MOST_TOGETHER, WAITING_BYTES // max(1, size)))

    def train(
        self,
        weights: Sequence[np.ndarray],
        data: ClientData,
        learning_rate: float,
        seed: int,
        share: float = 1.0,
        mu: float = 0.0,
        correction: Sequence[np.ndarray] = (),
    ) -> TrainResult:
        """Train from the weights (wire order: ``model.weights``) on the client's data; the arguments stay as they are.

        ``seed`` (at least 0) decides the order of the examples and the dropout masks. With a ``share`` in (0, 1] below
        1 only the first steps are done, that share of them rounded down but at least one: a straggler's partial work.
        ``mu`` is that of FedProx's proximal term, and a ``correction``, arrays like the weights, is added to the
        gradient of those that are trained, in every step (`tasks.objective.Terms`). Weights that are read-only arrays
        must never change: they are not looked at again while they come back. Raises `TaskError` for what does not fit.
        """
        return self.train_together(weights, [data], learning_rate, [seed], [share], mu, correction)[0]

    def train_together(
        self,
        weights: Sequence[np.ndarray],
        data: Sequence[ClientData],
        learning_rate: float,
        seeds: Sequence[int],
        shares: Sequence[float],
        mu: float = 0.0,
        correction: Sequence[np.ndarray] = (),
    ) -> list[TrainResult]:
        """Train several clients from the same weights; each gets what `train` gives it, bit by bit, only sooner.

        Tiny models train in groups (see `tasks.stacking`), all others one by one. Raises what any of them raises.
        """
        jobs = [self._job(*client) for client in zip(data, seeds, shares, strict=True)]
        results: dict[int, TrainResult] = {}
        with self.compiled.lock, told(data):
            start = self._tensors(weights)
            terms = self._terms(start, mu, correction)
            for places in groups(jobs):
                trained = self._trained(start, terms, learning_rate, [jobs[place] for place in places])
                for place, (arrays, sums) in zip(places, trained, strict=True):
                    job = jobs[place]
                    loss, hits = (sums / (job.batches.seen or math.nan)).tolist()
                    results[place] = TrainResult(arrays, len(data[place]), loss, hits, job.steps)
        return [results[place] for place in range(len(jobs))]

    def _job(self, data: ClientData, seed: int, share: float) -> Job:
        if len(data) == 0:
            raise TaskError("A client without training examples cannot train: raise min-client-examples.")
        if not 0 < share <= 1:
            raise TaskError(f"share={share} of a client's local steps is not allowed: it must be above 0, at most 1.")
        steps = max(1, math.floor(self.training.steps_for(len(data)) * share))
        batches, seeds = self._batches(data, steps, seed), self.compiled.seeds(seed)
        if isinstance(batches, PoissonBatches):
            return Job(batches, steps, batches.rows, seeds)
        return Job(batches, steps, batch_width(len(data), self.training.batch_size), seeds)

    def _terms(self, start: Tensors, mu: float, correction: Sequence[np.ndarray]) -> Terms:
        if not 0 <= mu <= MAX_MU:
            raise TaskError(f"proximal-mu={mu} is not allowed: it must be at least 0, and finite.")
        added = self._checked("Correction", correction, [tf.float32] * len(start)) if correction else []
        return self.compiled.terms(start, mu, added)

    def _trained(self, start: Tensors, terms: Terms, learning_rate: float, jobs: Sequence[Job]) -> list[Trained]:
        """Train clients of one width, stacked or one by one."""
        width = jobs[0].width
        if self.stacked is not None and width <= WIDEST and not terms.correction:
            return self.stacked.train(start, terms, learning_rate, jobs)
        model = self.compiled if self.private is None else self.private
        train = model.program(width, bool(terms.proximal), bool(terms.correction)).train
        return [train(start, terms, learning_rate, job.seeds, job.batches, job.steps) for job in jobs]

    def evaluate(self, weights: Sequence[np.ndarray], data: ClientData) -> EvalResult:
        """Evaluate the weights on the data, in batches of `EVALUATION_BATCH_SIZE`; raises as `train` does."""
        if len(data) == 0:
            return EvalResult(0, math.nan, math.nan)
        with self.compiled.lock, told([data]):
            start = self._tensors(weights)
            parts = [self._fitting(data)] if isinstance(data, Examples) else self._evaluation_batches(data)
            sums = sum(
                self.compiled.evaluate(start, tf.constant(part.x), tf.constant(part.y), EVALUATION_BATCH_SIZE)
                for part in parts
            )
        loss, hits, seen = np.asarray(sums).tolist()
        if seen != len(data):
            raise TaskError(ended(len(data)))
        return EvalResult(int(seen), loss / seen, hits / seen)

    def _tensors(self, weights: Sequence[np.ndarray]) -> list[tf.Tensor]:
        dtypes = [spec.dtype for spec in self.compiled.weight_specs]
        return self.compiled.kept.get(weights, lambda: self._checked("Weights", weights, dtypes))

    def _checked(self, named: str, arrays: Sequence[np.ndarray], dtypes: Sequence[tf.DType]) -> list[tf.Tensor]:
        own = self.compiled.weight_specs
        if [np.shape(array) for array in arrays] != [tuple(spec.shape) for spec in own]:
            raise TaskError(
                f"{named} and model of different shapes: {len(arrays)} arrays came, and the model has {len(own)}, "
                f"{sum(s.shape.num_elements() for s in own)} numbers in all: server and client must use the same model."
            )
        return [tf.constant(np.asarray(a, dtype.as_numpy_dtype)) for a, dtype in zip(arrays, dtypes, strict=True)]

    def _batches(self, data: ClientData, steps: int, seed: int) -> Batches:
        size, dp_sgd = self.training.batch_size, self.training.dp_sgd
        if dp_sgd is not None:
            if not isinstance(data, Examples):
                raise TaskError("DP-SGD draws every batch from all examples: it takes no streams, only data in memory.")
            return PoissonBatches(self._fitting(data), size, steps, seed, dp_sgd)
        if isinstance(data, Examples):
            return ExampleBatches(self._fitting(data), size, steps, seed)
        return StreamBatches(data, size, steps, seed, self.compiled.input_shape, self.num_classes)

    def _fitting(self, data: Examples) -> Examples:
        return checked_examples(data, self.compiled.input_shape, self.num_classes)

    def _evaluation_batches(self, stream: Stream) -> Iterator[Examples]:
        for batch in stream.batches(EVALUATION_BATCH_SIZE, seed=None, epochs=1):
            yield checked_batch(batch, self.compiled.input_shape, self.num_classes)


def trainer(model: str, input_shape: tuple[int, ...], num_classes: int, training: LocalTraining) -> Trainer:
    """Return the trainer of a model by name; its compiled functions are kept and shared within the process.

    Raises `TaskError` where model, data shape and optimizer do not go together.
    """
    models = _compiled(
        model, tuple(input_shape), num_classes, training.optimizer, training.optimizer_args, training.dp_sgd
    )
    return Trainer(*models, training, num_classes)


@functools.lru_cache(maxsize=8)
def _compiled(
    name: str, input_shape: tuple[int, ...], num_classes: int, optimizer: str, optimizer_args: str, dp_sgd: DpSgd | None
) -> tuple[CompiledModel, StackedModel | None, PrivateModel | None]:
    model = build_model(name, input_shape, num_classes, seed=0)  # its values do not matter: every call assigns weights
    num_outputs = check_fit(model, name, input_shape, num_classes)
    objective = objective_for(model, num_outputs)
    compiled = CompiledModel(model, input_shape, make_optimizer(optimizer, optimizer_args), objective)
    if dp_sgd is not None:
        return compiled, None, PrivateModel(compiled, dp_sgd)
    return compiled, StackedModel(compiled) if trains_stacked(model, compiled.optimizer) else None, None


def use_one_thread() -> bool:
    """Make TensorFlow compute with one thread, and take GPU memory as it is needed; return whether this took effect.

    Call it before anything computes: once TensorFlow's runtime is up its threads cannot be changed. Then a warning is
    logged and False returned, unless it already has one thread. With one thread sums are added in one order, so
    results are equal to the bit whatever the number of workers, and workers do not take each other's cores. It has to
    hold for all of them or none: convolutions give other bits with two threads than with one.
    """
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError as error:  # the runtime is up
        threads = tf.config.threading
        if (threads.get_intra_op_parallelism_threads(), threads.get_inter_op_parallelism_threads()) == (1, 1):
            return True
        _log.warning("TensorFlow keeps its threads, because it was in use before use_one_thread(): %s", error)
        return False
    return True
