"""Clients whose losses are quadratics of three parameters, so that an algorithm can be computed by hand in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from strategies import wire
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.population import ClientInfo

Vector = npt.NDArray[np.float64]
Misbehaviour = Callable[[str, int, RecordDict], RecordDict]  # of a client in a round, to its honest answer


@dataclass(frozen=True)
class Quadratic:
    """F(w) = 1/2 sum h (w - b)^2 on so many examples, with so many gradient steps in a round."""

    h: Sequence[float]
    b: Sequence[float]
    steps: int = 1
    examples: int = 1

    def loss(self, w: Vector) -> float:
        return float(0.5 * np.sum(np.array(self.h) * (w - np.array(self.b)) ** 2))

    def gradient(self, w: Vector) -> Vector:
        return np.array(self.h) * (w - np.array(self.b))


THREE = {
    "a": Quadratic((1.0, 0.5, 2.0), (1.0, -2.0, 0.5), steps=2, examples=10),
    "b": Quadratic((3.0, 1.0, 0.2), (-1.0, 4.0, 2.0), steps=5, examples=30),
    "c": Quadratic((0.3, 2.0, 1.0), (2.0, 1.0, -3.0), steps=9, examples=60),
}


def optimum(clients: Mapping[str, Quadratic], weights: Mapping[str, float]) -> Vector:
    """The minimum of the weighted sum of the losses."""
    curvature = sum(weights[name] * np.array(one.h) for name, one in clients.items())
    pull = sum(weights[name] * np.array(one.h) * np.array(one.b) for name, one in clients.items())
    return np.asarray(pull / curvature)


def local_sgd(
    problem: Quadratic,
    start: Vector,
    rate: float,
    steps: int,
    mu: float = 0.0,
    momentum: float = 0.0,
    correction: Vector | None = None,
) -> Vector:
    """What a client's training makes of the weights."""
    w, velocity = start.copy(), np.zeros(3)
    for _ in range(steps):
        gradient = problem.gradient(w) + mu * (w - start) + (0.0 if correction is None else correction)
        velocity = momentum * velocity + gradient
        w = w - rate * velocity
    return w


def start_arrays() -> dict[str, npt.NDArray[np.float32]]:
    return {"matrix": np.zeros((1, 2), np.float32), "bias": np.zeros(1, np.float32)}


def flat(arrays: Sequence[npt.NDArray[np.generic]]) -> Vector:
    return np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)


def app(clients: Mapping[str, Quadratic], *mods: Mod, misbehave: Misbehaviour | None = None) -> ClientApp:
    """A ClientApp in NumPy that trains as it is asked: steps, share, mu, learning rate and correction."""
    client_app = ClientApp()

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        infos = tuple(ClientInfo(name, one.examples) for name, one in clients.items())
        return Message(NodeDescription(infos).to_content(), reply_to=message)

    @client_app.train(mods=client_mods(*mods))
    def train(message: Message, context: Context) -> Message:
        config, content = wire.config_of(message), message.content
        name = wire.text(config, wire.CLIENT)
        steps = max(1, math.floor(clients[name].steps * wire.number(config, wire.SHARE)))
        rate, mu = wire.number(config, "learning-rate"), float(config.get(wire.PROXIMAL_MU, 0.0))  # type: ignore[arg-type]
        weights = wire.read_weights(wire.arrays_of(content, wire.ARRAYS))
        correction = None
        if wire.CORRECTION in content:
            correction = flat([wire.decode(array) for array in wire.arrays_of(content, wire.CORRECTION).values()])
        start = flat(weights.arrays)
        local = local_sgd(clients[name], start, rate, steps, mu, correction=correction).astype(np.float32)
        arrays = {"matrix": local[:2].reshape(1, 2), "bias": local[2:]}
        numbers = {"num-examples": clients[name].examples, "loss": clients[name].loss(start), "steps": steps}
        answer = RecordDict({wire.ARRAYS: wire.array_record(arrays), wire.METRICS: MetricRecord(numbers)})
        if misbehave is not None:
            answer = misbehave(name, int(wire.number(config, wire.ROUND)), answer)
        return Message(answer, reply_to=message)

    return client_app
