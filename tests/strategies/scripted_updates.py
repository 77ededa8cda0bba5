"""Clients whose updates are written down beforehand, so that what becomes of each can be followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from strategies import wire
from strategies.describe import NodeDescription
from strategies.population import ClientInfo

SIZE = 24

Misbehaviour = Callable[[str, int, RecordDict], RecordDict]


@dataclass(frozen=True)
class Script:
    """Which clients there are and what each answers: normal numbers, in ``spoilt`` rounds with one that is not."""

    clients: tuple[str, ...] = ("0", "1", "2", "3", "4", "5")
    misbehave: Misbehaviour = lambda client, number, answer: answer
    spoilt: Mapping[tuple[str, int], float] = field(default_factory=dict)
    scale: float = 1.0

    def delta(self, client: str, number: int) -> np.ndarray:
        """The update of a client in a round, float32 [SIZE]."""
        values = np.random.default_rng([int(client), number]).standard_normal(SIZE) * self.scale
        if (client, number) in self.spoilt:
            values[3] = self.spoilt[client, number]
        return values.astype(np.float32)


def start_arrays() -> dict[str, np.ndarray]:
    return {"kernel": np.zeros((4, 5), np.float32), "bias": np.zeros(4, np.float32)}


def flat(record: ArrayRecord) -> np.ndarray:
    return np.concatenate([wire.decode(array).ravel() for array in record.values()]).astype(np.float64)


def app(script: Script, mods: Sequence[Mod]) -> ClientApp:
    """A ClientApp that answers by the script, whatever the weights are."""
    client_app = ClientApp()

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        infos = tuple(ClientInfo(client, 10) for client in script.clients)
        return Message(NodeDescription(infos).to_content(), reply_to=message)

    @client_app.train(mods=list(mods))
    def train(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        client, number = wire.text(config, wire.CLIENT), int(wire.number(config, wire.ROUND))
        weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
        local = weights.layout.unflatten(weights.flat + script.delta(client, number))
        arrays = wire.array_record(dict(zip(weights.layout.names, local, strict=True)))
        answer = RecordDict({wire.ARRAYS: arrays, wire.METRICS: MetricRecord({"num-examples": 10.0})})
        return Message(script.misbehave(client, number, answer), reply_to=message)

    return client_app
