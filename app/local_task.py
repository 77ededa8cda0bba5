"""The run config's task in this process: data, model and trainer. Importing this module imports TensorFlow."""

from __future__ import annotations

from flwr.app import ArrayRecord

from app.compose import local_training
from app.config import RunConfig
from strategies import wire
from tasks.datasets import DataSpec
from tasks.lean_keras import lean_keras

with lean_keras():
    from tasks.task import Task, TaskSpec, load_task
    from tasks.training import use_one_thread

__all__ = ["initial_arrays", "local_task", "use_one_thread"]


def local_task(config: RunConfig, data: DataSpec) -> Task:
    """Load the task of a run on the given data; kept within the process, so that a second call costs nothing.

    Raises TaskError where data, model and optimizer do not go together.
    """
    return load_task(TaskSpec(data, config.model, local_training(config), config.seed))


def initial_arrays(task: Task) -> ArrayRecord:
    """Return the weights that a run of the task begins with: a new model's, by the names of its weights."""
    return wire.array_record({weight.path: weight.numpy() for weight in task.build_model().weights})
