"""FedNova: the lengths of the paper, the normalized mean by hand, and the minimum that FedAvg misses."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.aggregators import WeightedMean
from strategies.errors import LayoutError, StrategyError
from strategies.fednova import NormalizedMean, path_length
from strategies.fixed_point import FixedPointSum
from strategies.updates import PartialSum, Update
from tests.strategies.quadratics import THREE, Quadratic, Vector, local_sgd, optimum


def update(client: str, delta: list[float], examples: float, steps: float) -> Update:
    return Update(client, np.array(delta, np.float32), examples, {"steps": steps})


A = update("a", [1, 2, 3], 1, 2)
B = update("b", [4, -2, 0.5], 3, 4)


def result(rule: NormalizedMean | WeightedMean, *updates: Update) -> np.ndarray:
    fold = rule.start(len(updates[0].delta))
    for one in updates:
        fold.add(one)
    return fold.result()


# The lengths.


@pytest.mark.parametrize("steps", [1, 2, 17, 1000])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 0.99])
def test_with_momentum_the_length_is_the_papers(steps: int, momentum: float) -> None:
    """Section 4: a = [1 - r^tau, 1 - r^(tau-1), ..., 1 - r] / (1 - r)."""
    coefficients = [(1 - momentum ** (steps - k)) / (1 - momentum) for k in range(steps)]
    assert path_length(steps, momentum) == pytest.approx(math.fsum(coefficients), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 17, 1000])
@pytest.mark.parametrize("alpha", [0.001, 0.1, 1.0])
def test_with_a_proximal_term_the_length_is_the_papers(steps: int, alpha: float) -> None:
    """Section 4: a = [(1 - alpha)^(tau-1), ..., (1 - alpha), 1] with alpha = lr * mu."""
    coefficients = [(1 - alpha) ** (steps - 1 - k) for k in range(steps)]
    assert path_length(steps, 0.0, alpha) == pytest.approx(math.fsum(coefficients), rel=1e-12)


def test_plain_steps_are_counted_exactly_however_many() -> None:
    assert [path_length(steps) for steps in (1, 2, 999, 2**53)] == [1, 2, 999, 2**53]


@pytest.mark.parametrize(("momentum", "alpha"), [(0.9, 0.002), (0.5, 0.05), (0.5, (1 - math.sqrt(0.5)) ** 2)])
def test_with_both_it_is_the_sum_of_what_every_gradient_does(momentum: float, alpha: float) -> None:
    """Brute force: let one gradient after the other be 1 and all others 0, and see how far each moves the weights."""
    steps, coefficients = 40, []
    for pulse in range(steps):
        moved = velocity = 0.0
        for step in range(steps):
            velocity = momentum * velocity + (step == pulse) - alpha * moved
            moved += velocity
        coefficients.append(moved)
    assert min(coefficients) >= -1e-15  # so that their sum is the norm
    assert path_length(steps, momentum, alpha) == pytest.approx(math.fsum(coefficients), rel=1e-12)


# The mean.


KEYS = {"local-epochs": 2, "batch-size": 20}


def liar_among(claimed: float, rule: NormalizedMean) -> float:
    """The mean where nine clients of 100 examples do the 10 steps of 2 epochs that they are asked for, and one more."""
    honest = [update(str(place), [1.0], 100, 10) for place in range(9)]
    return float(result(rule, *honest, update("liar", [1.0], 100, claimed))[0])


@pytest.mark.parametrize("keys", [KEYS, {**KEYS, "local-steps": 10}, {**KEYS, "weighting": "uniform"}])
def test_no_claim_of_steps_lengthens_the_step_of_the_others(keys: dict[str, int | str]) -> None:
    """tau_eff stays 10: without the bound 50,000 steps would make it 5,009, and the mean 450 times as long."""
    rule = NormalizedMean.of(keys)
    assert liar_among(10, rule) == 1.0
    assert liar_among(20, rule) == pytest.approx(0.9 + 0.1 * 10 / 20)
    assert liar_among(50_000, rule) == pytest.approx(0.9 + 0.1 * 10 / 50_000)
    assert liar_among(50_000, NormalizedMean()) > 450  # who tells nothing of the training believes all


def test_who_does_less_than_asked_counts_for_that() -> None:
    """tau_eff is 9.5, and the update of 5 steps counts twice: as in the paper."""
    assert liar_among(5, NormalizedMean.of(KEYS)) == pytest.approx(9.5 * (0.9 / 10 + 0.1 / 5))


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("examples", [3.5 * (1 / 4 * 0.5 + 3 / 4 * 1.0), 3.5 * (1 / 4 - 3 / 4 * 0.5), 3.5 * (3 / 8 + 3 / 4 * 0.125)]),
        ("uniform", [3.0 * 0.75, 3.0 * 0.25, 3.0 * 0.8125]),
    ],
)
def test_two_clients_by_hand(weighting: str, expected: list[float]) -> None:
    """Per step they are [.5, 1, 1.5] and [1, -.5, .125]; tau_eff is 1/4 * 2 + 3/4 * 4 = 3.5, or 3."""
    found = result(NormalizedMean(weighting), A, B)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_with_equal_steps_it_is_the_mean(momentum: float) -> None:
    chance = np.random.default_rng(1)
    updates = [Update(str(n), chance.normal(size=50).astype(np.float32), n + 1.0, {"steps": 7.0}) for n in range(9)]
    np.testing.assert_allclose(
        result(NormalizedMean(momentum=momentum), *updates), result(WeightedMean(), *updates), rtol=1e-6, atol=1e-8
    )


rows = st.tuples(
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3), st.integers(1, 500), st.integers(1, 300)
)


@given(st.lists(rows, min_size=1, max_size=7), st.sampled_from([0.0, 0.9]), st.randoms())
def test_the_paper_in_float64_in_any_order_to_the_same_bit(
    clients: list[tuple[list[float], int, int]], momentum: float, chance: random.Random
) -> None:
    updates = [update(str(place), *client) for place, client in enumerate(clients)]
    rule = NormalizedMean("examples", momentum)
    found = result(rule, *updates)
    share = np.array([client[1] for client in clients], np.float64) / sum(client[1] for client in clients)
    length = np.array([path_length(client[2], momentum) for client in clients])
    direction = sum(p * np.array(delta) / a for p, a, (delta, _, _) in zip(share, length, clients, strict=True))
    rounding = 2.0**-33 * float(share @ length) * len(clients)
    np.testing.assert_allclose(found, (share @ length) * direction, rtol=2e-7, atol=rounding)
    chance.shuffle(updates)
    assert result(rule, *updates).tobytes() == found.tobytes()


@pytest.mark.parametrize("steps", [0, -1, 2.5, math.nan, math.inf])
def test_absurd_steps_are_malformed_and_change_nothing(steps: float) -> None:
    fold = NormalizedMean().start(3)
    fold.add(A)
    before = fold.result().tobytes()
    with pytest.raises(LayoutError, match="'steps' must be a whole number") as caught:
        fold.add(update("bad", [1, 1, 1], 5, steps))
    assert caught.value.reason == "malformed"
    assert fold.result().tobytes() == before


def test_so_many_steps_that_nothing_would_be_left_are_refused() -> None:
    fold = NormalizedMean().start(3)
    with pytest.raises(LayoutError) as caught:
        fold.add(update("bad", [1, 1, 1], 1, 2.0**40))
    assert caught.value.reason == "weight"


def test_a_partial_sum_says_nothing_of_steps() -> None:
    total = FixedPointSum(3)
    total.add(A.delta, 1.0)
    with pytest.raises(StrategyError, match="each client's own update"):
        NormalizedMean().start(3).merge(PartialSum(total, {"a": 1.0}, {}))


def test_a_client_counts_what_it_weighs_and_remembers_nothing() -> None:
    rule = NormalizedMean("uniform")
    assert (rule.weight_of(B), NormalizedMean().weight_of(B), rule.shortfall(1)) == (1.0, 3.0, "")
    fold = rule.start(3, rule.init(3))
    fold.add(A)
    fold.result()
    assert fold.state() == {}


# The options.


def test_the_options_say_how_long_a_step_is() -> None:
    momentum = {"client-optimizer": "sgd", "client-optimizer-args": "momentum=0.5"}
    near = {"learning-rate": 0.1, "proximal-mu": 0.5}
    assert NormalizedMean.of({}) == NormalizedMean("examples")
    assert NormalizedMean.of({**momentum, "weighting": "uniform"}) == NormalizedMean("uniform", 0.5)
    assert NormalizedMean.of({"strategy": "fednova", **near}) == NormalizedMean()  # which has no proximal term
    assert NormalizedMean.of({"strategy": "fedprox", **momentum, **near}) == NormalizedMean("examples", 0.5, 0.05)


@pytest.mark.parametrize("key", ["lr-decay", "lr-warmup-rounds", "adaptive-mu"])
def test_a_proximal_term_that_changes_over_the_rounds_is_refused(key: str) -> None:
    moving = {"lr-decay": "cosine", "lr-warmup-rounds": 3, "adaptive-mu": True}[key]
    with pytest.raises(StrategyError, match=f"one learning rate and one mu for all rounds, but '{key}' is"):
        NormalizedMean.of({"strategy": "fedprox", key: moving})
    assert NormalizedMean.of({"strategy": "fednova", key: moving}) == NormalizedMean()


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"weighting": "size"}, "'weighting' is 'size'"),
        ({"momentum": 1.0}, "momentum is 1.0, but must be from 0 on and below 1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"proximal": 1.5}, "'learning-rate' \\* 'proximal-mu' of at most 1 at momentum 0, but it is 1.5"),
        ({"momentum": 0.81, "proximal": 0.02}, "of at most 0.01 at momentum 0.81, but it is 0.02"),
        ({"proximal": math.nan}, "but it is nan"),
    ],
)
def test_what_the_formula_does_not_hold_for_is_refused(rule: dict[str, object], sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        NormalizedMean(**rule)  # type: ignore[arg-type]


# The objective.


def end_of(rule: NormalizedMean | WeightedMean, rate: float, momentum: float = 0.0, mu: float = 0.0) -> Vector:
    """Where federated training of three quadratics ends, whose clients do 2, 5 and 9 steps in a round.

    The server's step is affine in each weight, so two of them tell where it is 0.
    """

    def step(w: Vector) -> Vector:
        deltas = {name: local_sgd(one, w, rate, one.steps, mu, momentum) - w for name, one in THREE.items()}
        return result(
            rule, *(update(name, list(deltas[name]), one.examples, one.steps) for name, one in THREE.items())
        ).astype(np.float64)

    origin, slope = step(np.zeros(3)), step(np.ones(3)) - step(np.zeros(3))
    assert (slope < 0).all() and (slope > -1).all()  # so it does get there
    return np.asarray(-origin / slope)


TRUE = optimum(THREE, {name: one.examples for name, one in THREE.items()})


@pytest.mark.parametrize(("momentum", "mu"), [(0.0, 0.0), (0.6, 0.0), (0.0, 2.0)])
def test_fedavg_ends_at_another_minimum_than_it_should_and_fednova_does_not(momentum: float, mu: float) -> None:
    """Theorem 1 and its limit for small rates: FedAvg weighs client i by p_i ||a_i||_1."""
    rate = 0.0004
    averaged = end_of(WeightedMean(), rate, momentum, mu)
    normalized = end_of(NormalizedMean("examples", momentum, rate * mu), rate, momentum, mu)
    weights = {name: one.examples * path_length(one.steps, momentum, rate * mu) for name, one in THREE.items()}
    np.testing.assert_allclose(averaged, optimum(THREE, weights), atol=0.01)
    np.testing.assert_allclose(normalized, TRUE, atol=0.01)
    assert np.abs(averaged - TRUE).max() > 0.25


def test_what_is_left_of_the_error_is_in_proportion_to_the_learning_rate() -> None:
    """The steps of a client are not quite parallel; that part of its drift is SCAFFOLD's business."""
    errors = [np.abs(end_of(NormalizedMean(), rate) - TRUE).max() for rate in (0.004, 0.002)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_one_client_alone_is_trained_as_ever() -> None:
    alone = Quadratic((1.0, 1.0, 1.0), (1.0, 2.0, 3.0))
    delta = local_sgd(alone, np.zeros(3), 0.1, 5).astype(np.float32)
    one = Update("a", delta, 8.0, {"steps": 5.0})
    np.testing.assert_allclose(result(NormalizedMean(), one), delta, rtol=1e-6)
