"""The ClientApp: ordinary Flower handlers around the Keras task; full arrays in, full arrays and metrics out.

TensorFlow is imported by the first message that needs it, so that describing a node takes no longer than its data.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from app.config import RunConfig
from app.errors import UserError
from app.fingerprint import code_fingerprint, code_location, user_modules
from app.hosting import Hosted, hosted_clients, is_simulated
from strategies import wire
from strategies.client import client_mods
from strategies.describe import NodeDescription
from tasks.errors import TaskError

if TYPE_CHECKING:
    from tasks.task import Task
    from tasks.training import EvalResult, TrainResult

app = ClientApp()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Say which clients this node hosts and which code it runs; what keeps it from taking part is said in words."""
    code = code_fingerprint(user_modules(context.run_config)), code_location()
    simulated = is_simulated(context.node_config)
    if simulated:
        _one_thread()
    try:
        worker = _worker(context)
        hosted = worker.hosted
        shape, classes = list(hosted.data.input_shape), hosted.data.num_classes
        description = NodeDescription(
            hosted.clients(), *code, properties={"input-shape": shape, "num-classes": classes}
        )
        if simulated:
            _ = worker.task  # this process stays: load now what the first round needs, as the server does meanwhile
    except (UserError, TaskError) as error:
        description = NodeDescription((), *code, problem=str(error))
    return Message(description.to_content(), reply_to=message)


@app.train(mods=client_mods())
def train(message: Message, context: Context) -> Message:
    """Train one client from the global weights."""
    _one_thread()
    config = wire.config_of(message)
    weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    worker = _worker(context)
    data = worker.hosted.train(str(config[wire.CLIENT]))
    rate, seed = wire.number(config, "learning-rate"), int(wire.number(config, wire.SEED))
    result = worker.task.trainer.train(weights.arrays, data, rate, seed, wire.number(config, wire.SHARE))
    arrays = wire.array_record(dict(zip(weights.layout.names, result.weights, strict=True)))
    return Message(RecordDict({wire.ARRAYS: arrays, wire.METRICS: _metrics(result)}), reply_to=message)


@app.evaluate(mods=client_mods())
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global weights on one client's own test part."""
    _one_thread()
    weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    worker = _worker(context)
    data = worker.hosted.test(str(wire.config_of(message)[wire.CLIENT]))
    result = worker.task.trainer.evaluate(weights.arrays, data)
    return Message(RecordDict({wire.METRICS: _metrics(result)}), reply_to=message)


def _metrics(result: TrainResult | EvalResult) -> MetricRecord:
    return MetricRecord({wire.NUM_EXAMPLES: result.num_examples, "loss": result.loss, "accuracy": result.accuracy})


@dataclass(frozen=True)
class Worker:
    """What this process keeps from message to message: the node's clients and, once it is needed, the Keras task."""

    config: RunConfig
    hosted: Hosted

    @functools.cached_property
    def task(self) -> Task:
        """The task on the node's data, with one compiled function per model."""
        from app.local_task import local_task

        return local_task(self.config, self.hosted.spec)


@functools.cache
def _one_thread() -> None:
    """Keep TensorFlow to one thread in this process, for equal bits everywhere.

    It must come before anything computes, and some data are read by TensorFlow: so it comes before the data.
    """
    from tasks.training import use_one_thread

    use_one_thread()


def _worker(context: Context) -> Worker:
    return _kept_worker(tuple(context.run_config.items()), tuple(context.node_config.items()))


@functools.lru_cache(maxsize=4)
def _kept_worker(run_config: tuple[tuple[str, object], ...], node_config: tuple[tuple[str, object], ...]) -> Worker:
    config = RunConfig.from_run_config(dict(run_config))
    return Worker(config, hosted_clients(config, dict(node_config)))
