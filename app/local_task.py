"""The run config's task in this process: data, model and trainer. Importing this module imports TensorFlow."""

from __future__ import annotations

from app.config import RunConfig
from tasks.datasets import DataSpec
from tasks.task import Task, TaskSpec, load_task
from tasks.training import LocalTraining


def local_task(config: RunConfig, data: DataSpec) -> Task:
    """Load the task of a run on the given data; kept within the process, so that a second call costs nothing.

    Raises TaskError where data, model and optimizer do not go together.
    """
    training = LocalTraining(
        batch_size=config.batch_size,
        epochs=config.local_epochs,
        steps=config.local_steps,
        optimizer=config.client_optimizer,
        optimizer_args=config.client_optimizer_args,
        full_training_examples=config.full_training_examples,
    )
    return load_task(TaskSpec(data, config.model, training, config.seed))
