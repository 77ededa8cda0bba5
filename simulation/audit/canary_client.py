"""The ClientApp of an audited run: that of every run, but that some more clients are canaries."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from app.client import client_app
from app.compose import composition, data_spec
from app.config import RunConfig
from app.errors import UserError
from app.hosting import Hosted, NodeConfig, hosted_clients
from strategies.population import ClientInfo
from strategies.privacy.canaries import Canaries
from tasks.data import ClientData, Examples
from tasks.datasets import kept_data


@dataclass(frozen=True)
class CanaryHosted(Hosted):
    """The clients of a node, and the canaries, who have no data: `canary_mod` answers for them when they are to train.

    Asked to evaluate, they do as clients without examples do.
    """

    canaries: Canaries = field(kw_only=True)

    def clients(self) -> tuple[ClientInfo, ...]:
        """Return what the node tells the server of its clients: canaries are as large as the average."""
        told = (ClientInfo(canary, self.canaries.examples) for canary in self.canaries.ids)
        return (*super().clients(), *told)

    def train(self, client: str) -> ClientData:
        """Return a client's training part."""
        return self._nothing() if client in self.canaries else super().train(client)

    def test(self, client: str) -> ClientData:
        """Return a client's own test part."""
        return self._nothing() if client in self.canaries else super().test(client)

    def _nothing(self) -> Examples:
        return Examples(np.zeros((0, *self.data.input_shape), np.float32), np.zeros(0, np.int32))


@functools.lru_cache(maxsize=2)
def canaries_of(config: RunConfig) -> Canaries:
    """Return the canaries of a run.

    Raises UserError where one of its clients is called like one of them, or the noise is not that of its clients.
    """
    if composition(config).privacy.scale != 1:
        raise UserError(
            "The noise of a larger cohort than this run's cannot be audited by the clients that there are: leave "
            "'noise-cohort-size' at 0, or 'canaries'."
        )
    data = kept_data(data_spec(config))
    examples = sum(map(data.num_train, data.client_ids)) / len(data.client_ids)
    canaries = Canaries(config.seed, config.canaries, config.clipping_norm, max(1, round(examples)))
    if taken := sorted(set(canaries.ids) & set(data.client_ids)):
        raise UserError(
            f"The data set '{config.dataset}' has a client '{taken[0]}', as canaries are called: rename it."
        )
    return canaries


def clients_and_canaries(config: RunConfig, node_config: NodeConfig) -> Hosted:
    """Return the clients of a node with all canaries."""
    hosted = hosted_clients(config, node_config)
    return CanaryHosted(**vars(hosted), canaries=canaries_of(config))


def canary_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Let canaries betray themselves."""
    return _canaries(tuple(context.run_config.items())).mod(message, context, call_next)


@functools.lru_cache(maxsize=2)
def _canaries(run_config: tuple[tuple[str, object], ...]) -> Canaries:
    return canaries_of(RunConfig.from_run_config(dict(run_config)))


app = client_app(clients_and_canaries, canary_mod)
