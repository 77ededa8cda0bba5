"""The ClientApp: ordinary Flower handlers around the Keras task; full arrays in, full arrays and metrics out.

TensorFlow is imported by the first message that needs it, so that describing a node takes no longer than its data.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, ConfigRecordValues, Context, Message, MetricRecord, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from app.client_states import client_states
from app.config import RunConfig
from app.errors import UserError
from app.fingerprint import code_fingerprint, code_location, user_modules
from app.hosting import Hosted, NodeConfig, hosted_clients, is_simulated
from app.last_made import LastMade
from app.promises import keep_promises
from strategies import wire
from strategies.client import asked_together, client_mods
from strategies.describe import SIMULATED, NodeDescription
from strategies.privacy.local_dp import own_noise
from strategies.scaffold import scaffold_mod
from strategies.seeding import generator
from tasks.data import ClientData, Stream
from tasks.errors import TaskError

if TYPE_CHECKING:
    import numpy as np

    from tasks.task import Task
    from tasks.training import EvalResult, TrainResult

NOISE = "local-noise"  # a purpose of a client's seed
OF_GROUP = (wire.LEARNING_RATE, wire.PROXIMAL_MU)  # settings that are the same for all who train together

Hosting = Callable[[RunConfig, NodeConfig], Hosted]


def client_app(hosting: Hosting = hosted_clients, *mods: Mod) -> ClientApp:
    """Return a ClientApp whose nodes host the clients that ``hosting`` says; ``mods`` see each client's own update.

    They stand between ``packing_mod`` and ``delta_mod``, around training only.
    """
    app = ClientApp()
    app.query("describe", mods=[keep_promises])(functools.partial(describe, hosting=hosting))
    own = (*mods, scaffold_mod(client_states), keep_promises)
    app.train(mods=client_mods(*own, noise=client_noise, states=client_states))(
        functools.partial(train, hosting=hosting)
    )
    app.evaluate(mods=client_mods(keep_promises, states=client_states))(functools.partial(evaluate, hosting=hosting))
    return app


def client_noise(message: Message, context: Context) -> np.random.Generator:
    """Return the generator of the noise that a client puts on its own update: what a seed gives is known to others."""
    if not is_simulated(context.node_config):
        return own_noise(message, context)
    config = wire.config_of(message)
    seed, number = (int(wire.number(config, key)) for key in (wire.SEED, wire.ROUND))
    return generator(seed, number, str(config[wire.CLIENT]), NOISE)


def describe(message: Message, context: Context, hosting: Hosting) -> Message:
    """Say which clients this node hosts and which code it runs; what keeps it from taking part is said in words."""
    code = code_fingerprint(user_modules(context.run_config)), code_location()
    simulated = is_simulated(context.node_config)
    if simulated:
        _one_thread()
    try:
        worker = _worker(context, hosting)
        hosted = worker.hosted
        shape, classes = list(hosted.data.input_shape), hosted.data.num_classes
        properties: dict[str, ConfigRecordValues] = {"input-shape": shape, "num-classes": classes}
        if simulated:
            properties[SIMULATED] = True
        description = NodeDescription(hosted.clients(), *code, properties=properties)
        if simulated:
            _ = worker.task  # this process stays: load now what the first round needs, as the server does meanwhile
    except (UserError, TaskError) as error:
        description = NodeDescription((), *code, problem=_of_node(context, error))
    return Message(description.to_content(), reply_to=message)


def _of_node(context: Context, error: Exception) -> str:
    """Say also whose problem it is, where the node has a name: the server knows its number only."""
    name = context.node_config.get("client-id")
    return f"{error}" if name is None else f"{error} (This is the node with client-id '{name}'.)"


def train(message: Message, context: Context, hosting: Hosting) -> Message:
    """Train one client from the global weights; whose gradients are corrected trains alone, as it is its own."""
    _one_thread()
    config, worker = wire.config_of(message), _worker(context, hosting)
    weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    if wire.CORRECTION in message.content:
        correction = wire.arrays_like(weights.layout, wire.arrays_of(message.content, wire.CORRECTION))
        result = _alone(worker, weights.arrays, config, correction)
    else:
        result = _trained(worker, weights.arrays, config)
    arrays = wire.array_record(dict(zip(weights.layout.names, result.weights, strict=True)))
    told = {wire.NUM_EXAMPLES: result.num_examples} if worker.private else _told(result)
    metrics = wire.filled(MetricRecord(), {**told, wire.STEPS: result.steps})
    return Message(wire.filled(RecordDict(), {wire.ARRAYS: arrays, wire.METRICS: metrics}), reply_to=message)


def _trained(worker: Worker, weights: list[np.ndarray], config: ConfigRecord) -> TrainResult:
    """Train a client, and with it some that the message names after it, as they all train sooner so."""
    together, client = asked_together(), str(config[wire.CLIENT])
    if worker.habits.trains_ahead and together.later and client not in together.ahead:
        together.ahead.update(_trained_ahead(worker, weights, config))
    if (made := together.ahead.pop(client, None)) is not None:
        asked, start, result = made
        if asked == config and start is weights:  # no mod has changed what is asked of this client alone
            worker.habits.used += 1
            return result  # type: ignore[no-any-return]
        worker.habits.wasted += 1
    return _alone(worker, weights, config)


def _alone(
    worker: Worker, weights: list[np.ndarray], config: ConfigRecord, correction: Sequence[np.ndarray] = ()
) -> TrainResult:
    data = worker.hosted.train(str(config[wire.CLIENT]))
    return _train(worker, weights, [(config, data)], correction)[0]


def _trained_ahead(
    worker: Worker, weights: list[np.ndarray], config: ConfigRecord
) -> Mapping[str, tuple[ConfigRecord, list[np.ndarray], TrainResult] | None]:
    """Train the client and those after it, and say of what and to what; None where each has to train alone.

    Whose data cannot be had is left out, and fails in its own turn.
    """
    own_data = worker.hosted.train(str(config[wire.CLIENT]))
    if isinstance(own_data, Stream):
        worker.habits.streams = True
        return {}
    asked: list[tuple[ConfigRecord, ClientData]] = [(config, own_data)]
    for own in itertools.islice(asked_together().later, worker.task.trainer.most_together - 1):
        if all(own.get(key) == config.get(key) for key in OF_GROUP):
            with contextlib.suppress(Exception):  # of a user's data, it may be any
                asked.append((own, worker.hosted.train(str(own[wire.CLIENT]))))
    try:
        results = _train(worker, weights, asked)
    except Exception:  # whose it is shows when each trains alone
        return dict.fromkeys(str(own[wire.CLIENT]) for own, _ in asked)
    return {str(own[wire.CLIENT]): (own, weights, result) for (own, _), result in zip(asked, results, strict=True)}


def _train(
    worker: Worker,
    weights: list[np.ndarray],
    asked: Sequence[tuple[ConfigRecord, ClientData]],
    correction: Sequence[np.ndarray] = (),
) -> list[TrainResult]:
    """Train clients for whom the settings `OF_GROUP` are those of the first, with one correction for all."""
    first = asked[0][0]
    rate = wire.number(first, wire.LEARNING_RATE)
    mu = wire.number(first, wire.PROXIMAL_MU) if wire.PROXIMAL_MU in first else 0.0
    seeds = [worker.seed(own) for own, _ in asked]
    shares = [wire.number(own, wire.SHARE) for own, _ in asked]
    data = [own for _, own in asked]
    return worker.task.trainer.train_together(weights, data, rate, seeds, shares, mu, correction)


def evaluate(message: Message, context: Context, hosting: Hosting) -> Message:
    """Evaluate the global weights on one client's own test part, or on what it trains on where the server asks so."""
    _one_thread()
    config = wire.config_of(message)
    weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    worker = _worker(context, hosting)
    part = worker.hosted.train if config.get(wire.DATA_PART) == wire.TRAIN_PART else worker.hosted.test
    data = part(str(config[wire.CLIENT]))
    result = worker.task.trainer.evaluate(weights.arrays, data)
    return Message(RecordDict({wire.METRICS: MetricRecord({**_told(result)})}), reply_to=message)


def _told(result: TrainResult | EvalResult) -> dict[str, float]:
    return {wire.NUM_EXAMPLES: result.num_examples, "loss": result.loss, "accuracy": result.accuracy}


@dataclass
class Habits:
    """What this process has learnt of a run: how often it ``used`` and ``wasted`` what it had trained ahead.

    Data that are ``streams`` are not trained on ahead: several of them would be open at once.
    """

    used: int = 0
    wasted: int = 0
    streams: bool = False

    @property
    def trains_ahead(self) -> bool:
        """Whether to train clients ahead of their turn; not where mods change most of what is asked."""
        return not self.streams and self.wasted <= self.used


@dataclass(frozen=True)
class Worker:
    """What this process keeps from message to message: the node's clients and, once it is needed, the Keras task."""

    config: RunConfig
    hosted: Hosted
    simulated: bool = False
    habits: Habits = field(default_factory=Habits)

    @property
    def private(self) -> bool:
        """Whether examples are private (DP-SGD): then clients keep their training loss and accuracy to themselves."""
        return self.config.dp_sgd_clip > 0

    def seed(self, asked: ConfigRecord) -> int:
        """Return the seed of a client's training; who knows it knows the noise, so that a deployed client draws it."""
        return secrets.randbits(128) if self.private and not self.simulated else int(wire.number(asked, wire.SEED))

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
    from app.local_task import use_one_thread

    use_one_thread()


def _worker(context: Context, hosting: Hosting = hosted_clients) -> Worker:
    return _last_worker(hosting, context.run_config, context.node_config, is_simulated(context.node_config))


@LastMade
def _last_worker(hosting: Hosting, run_config: UserConfig, node_config: UserConfig, simulated: bool) -> Worker:
    """Return the worker of a node: one of several nodes that take turns in this process finds its own again."""
    return _kept_worker(hosting, tuple(run_config.items()), tuple(node_config.items()), simulated)


@functools.lru_cache(maxsize=4)
def _kept_worker(
    hosting: Hosting,
    run_config: tuple[tuple[str, object], ...],
    node_config: tuple[tuple[str, object], ...],
    simulated: bool,
) -> Worker:
    config = RunConfig.from_run_config(dict(run_config))
    return Worker(config, hosting(config, dict(node_config)), simulated)


app = client_app()
