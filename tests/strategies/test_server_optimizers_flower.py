"""Flower's FedAvgM, FedAdagrad, FedAdam and FedYogi beside ours on the same random updates.

These say where Flower follows the papers and where not, as the docstrings of `strategies.server_optimizers` tell.
"""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as stock

from strategies.aggregators import WeightedMean
from strategies.server_optimizers import FedAdagrad, FedAdam, FedAvgM, FedYogi, ServerOptimizer
from strategies.updates import State, Update
from tests.strategies.toy_federation import message_with

SIZE, ROUNDS, CLIENTS = 30, 8, 5
BETA1, BETA2, TAU = 0.8, 0.95, 0.01


def local_weights(start: np.ndarray, seed: int, scale: float = 0.1) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [start + (scale * random.normal(size=SIZE)).astype(np.float32) for _ in range(CLIENTS)]


def examples(client: int) -> int:
    return 10 * (client + 1)


class Stock:
    """One of Flower's strategies, fed with the messages of a round."""

    def __init__(self, strategy: stock.FedAvg, start: np.ndarray) -> None:
        self.strategy, self.weights, self.round = strategy, start, 0

    def step(self, local: Sequence[np.ndarray]) -> np.ndarray:
        self.round += 1
        record = ArrayRecord({"w": _array(self.weights)})
        is_momentum = isinstance(self.strategy, stock.FedAvgM)
        self.strategy.current_arrays = record if is_momentum else {"w": self.weights}  # as configure_train does
        request = message_with(RecordDict({"arrays": record}))
        replies = [
            Message(
                RecordDict(
                    {
                        "arrays": ArrayRecord({"w": _array(weights)}),
                        "metrics": MetricRecord({"num-examples": examples(client)}),
                    }
                ),
                reply_to=request,
            )
            for client, weights in enumerate(local)
        ]
        arrays, _ = self.strategy.aggregate_train(self.round, replies)
        self.weights = arrays["w"].numpy()
        return self.weights


def _array(values: np.ndarray):
    return ArrayRecord([values])["0"]


def our_step(
    optimizer: ServerOptimizer, weights: np.ndarray, local: Sequence[np.ndarray], state: State
) -> tuple[np.ndarray, State]:
    fold = WeightedMean().start(SIZE)
    for client, array in enumerate(local):
        fold.add(Update(str(client), array - weights, examples(client)))
    return optimizer.step(weights, fold.result(), state)


def start() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


def without_its_floor(optimizer: ServerOptimizer) -> State:
    """The state with which Flower begins: v = 0."""
    return {name: np.zeros_like(array) for name, array in optimizer.init(SIZE).items()}


def test_fedavgm_is_ours() -> None:
    theirs = Stock(stock.FedAvgM(server_learning_rate=0.7, server_momentum=0.9), start())
    optimizer, weights = FedAvgM(0.7, 0.9), start()
    state = optimizer.init(SIZE)
    for turn in range(1, ROUNDS + 1):
        local = local_weights(weights, turn)
        weights, state = our_step(optimizer, weights, local, state)
        np.testing.assert_allclose(theirs.step(local), weights, atol=1e-6)
        theirs.weights = weights  # so that differences of rounding do not add up


@pytest.mark.parametrize(
    ("strategy", "ours"),
    [
        (stock.FedAdagrad(eta=0.03, tau=TAU), FedAdagrad(0.03, epsilon=TAU)),
        (stock.FedYogi(eta=0.03, beta_1=BETA1, beta_2=BETA2, tau=TAU), FedYogi(0.03, BETA1, TAU, BETA2)),
        (stock.FedAdam(eta=0.03, beta_1=BETA1, beta_2=BETA2, tau=TAU), FedAdam(0.03, BETA1, TAU, BETA2)),
    ],
)
def test_from_their_first_state_and_but_for_their_correction_the_steps_are_ours(
    strategy: stock.FedAvg, ours: FedAdagrad | FedAdam | FedYogi
) -> None:
    theirs, weights, state = Stock(strategy, start()), start(), without_its_floor(ours)
    for turn in range(1, ROUNDS + 1):
        local = local_weights(weights, turn)
        stepped, state = our_step(ours, weights, local, state)
        factor = 1.0
        if isinstance(ours, FedAdam):  # Kingma and Ba's correction, with an exponent that is one too large
            factor = math.sqrt(1 - BETA2 ** (turn + 1)) / (1 - BETA1 ** (turn + 1))
        np.testing.assert_allclose(theirs.step(local), weights + factor * (stepped - weights), atol=1e-6)
        weights = theirs.weights = stepped


@pytest.mark.parametrize(
    ("strategy", "ours"),
    [
        (stock.FedAdagrad(eta=1.0, tau=TAU), FedAdagrad(1.0, epsilon=TAU)),
        (stock.FedYogi(eta=1.0, beta_1=BETA1, beta_2=BETA2, tau=TAU), FedYogi(1.0, BETA1, TAU, BETA2)),
    ],
)
def test_their_first_step_along_small_deltas_is_twice_the_papers(
    strategy: stock.FedAvg, ours: FedAdagrad | FedYogi
) -> None:
    origin = np.zeros(SIZE, np.float32)
    local = local_weights(origin, 1, scale=1e-6)
    papers, _ = our_step(ours, origin, local, ours.init(SIZE))
    np.testing.assert_allclose(Stock(strategy, origin).step(local), 2 * papers, rtol=1e-3)


def test_their_fedadam_is_not_the_papers_in_the_first_round() -> None:
    """With these betas its learning rate is 0.867 times the one that was asked for, which nobody told it."""
    origin, ours = np.zeros(SIZE, np.float32), FedAdam(1.0, BETA1, TAU, BETA2)
    local = local_weights(origin, 1, scale=1e4)  # where the floor of v does not count
    theirs = Stock(stock.FedAdam(eta=1.0, beta_1=BETA1, beta_2=BETA2, tau=TAU), origin).step(local)
    papers, _ = our_step(ours, origin, local, ours.init(SIZE))
    np.testing.assert_allclose(theirs, 0.8674 * papers, rtol=1e-2)
