"""The ClientApp of a simulated run with adversaries: that of every run, but that some of its clients attack."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from app.client import client_app
from app.compose import composition, data_spec, learning_rate
from app.config import RunConfig
from app.hosting import Hosted, NodeConfig, hosted_clients
from simulation.adversaries.members import attackers_of
from simulation.adversaries.mod import Company
from simulation.adversaries.poisoning import PoisonedHosted
from simulation.adversaries.registry import attack_of, poison_of
from simulation.wrapped import TRAIN
from strategies import wire
from strategies.seeding import child_seed

FIRST = 1


def attack_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let the attackers of the run attack."""
    return _company(tuple(context.run_config.items())).mod(message, context, call_next)


def poisoned_clients(config: RunConfig, node_config: NodeConfig) -> Hosted:
    """Return the clients of a node, with the attackers' data poisoned where the attack does that."""
    hosted = hosted_clients(config, node_config)
    poison = poison_of(config, hosted.data.num_classes)
    if poison is None:
        return hosted
    return PoisonedHosted(**vars(hosted), attackers=frozenset(attackers_of(config)), poison=poison)


@functools.lru_cache(maxsize=2)
def _company(run_config: tuple[tuple[str, object], ...]) -> Company:
    config = RunConfig.from_run_config(dict(run_config))
    return Company(attack_of(config), frozenset(attackers_of(config)), first_request(config))


def first_request(config: RunConfig) -> Callable[[str], RecordDict]:
    """Return what makes the request that a client would have got in round 1, the same whenever it is asked for.

    There is nothing beside the weights: what a server remembers is empty then.
    """

    @functools.cache
    def initial() -> ArrayRecord:
        from app.local_task import initial_arrays, local_task  # TensorFlow

        return initial_arrays(local_task(config, data_spec(config)))

    def request(client: str) -> RecordDict:
        objective = composition(config).objective
        size = sum(math.prod(array.shape) for array in initial().values())
        settings = {
            wire.CLIENT: client,
            wire.ROUND: FIRST,
            wire.SEED: child_seed(config.seed, FIRST, client, TRAIN),
            wire.SHARE: 1.0,
            wire.LEARNING_RATE: learning_rate(config).at(FIRST),
            **objective.config(objective.init(size)),
        }
        return RecordDict({wire.ARRAYS: initial(), wire.CONFIG: wire.filled(ConfigRecord(), settings)})

    return request


app = client_app(poisoned_clients, attack_mod)
