"""Evaluation on the server: loss and accuracy on the central test set, and accuracy on what probes make of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, MetricRecord

from strategies import wire
from strategies.federated import CentralEvaluation
from tasks.data import ClientData, FederatedData

if TYPE_CHECKING:
    from tasks.task import Task

Probe = Callable[[FederatedData], ClientData]
"""Makes examples of the task's data, such as those of a backdoor; the accuracy on them is told."""


def central_evaluation(task: Task, probes: Mapping[str, Probe]) -> CentralEvaluation | None:
    """Return what evaluates weights, also on what each probe makes, under its name; None where there is no test set."""
    data, trainer = task.data, task.trainer
    test = data.central_test()
    if len(test) == 0:
        return None
    probed = {name: examples(data) for name, examples in probes.items()}

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        weights = wire.read_weights(arrays).arrays
        result = trainer.evaluate(weights, test)
        found = {name: trainer.evaluate(weights, examples).accuracy for name, examples in probed.items()}
        return MetricRecord({"loss": result.loss, "accuracy": result.accuracy, **found})

    return evaluate
