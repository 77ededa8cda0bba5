"""A task: federated data, a model that fits it, and its trainer. Loaded once per process and kept."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import keras

from tasks.data import FederatedData
from tasks.datasets import DataSpec, kept_data
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.training import Trainer, trainer


@dataclass(frozen=True)
class TaskSpec:
    """What decides a task; hashable, so that equal specs are loaded once."""

    data: DataSpec
    model: str
    training: LocalTraining
    seed: int = 0


@dataclass(frozen=True)
class Task:
    """Data and trainer of a spec."""

    spec: TaskSpec
    data: FederatedData
    trainer: Trainer

    def build_model(self) -> keras.Model:
        """Build the model anew, with the initial weights that the spec's seed gives: the same in every process."""
        return build_model(self.spec.model, self.data.input_shape, self.data.num_classes, self.spec.seed)


@functools.lru_cache(maxsize=8)
def load_task(spec: TaskSpec) -> Task:
    """Load the data, and get the trainer with its compiled functions; a warm worker gets both from its caches.

    Raises `TaskError` where the data cannot be loaded, or model, data and optimizer do not go together.
    """
    data = kept_data(spec.data)
    return Task(spec, data, trainer(spec.model, tuple(data.input_shape), data.num_classes, spec.training))
