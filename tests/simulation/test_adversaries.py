"""Attacks by hand: what an attacker sends of updates that are written down, and what it makes of its data."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from app.config import RunConfig
from app.contradictions import ONLY_WITH
from app.errors import ConfigError, UserError
from app.hosting import hosted_clients
from app.world_keys import refuse_world
from simulation.adversaries.alone import Gaussian, Honest, NotANumber, Replay, SignFlip
from simulation.adversaries.attack import Attack
from simulation.adversaries.colluding import (
    ALittleIsEnough,
    Collusion,
    InnerProduct,
    deviation_of,
    hidden_deviation,
    mean_of,
)
from simulation.adversaries.members import attackers_of
from simulation.adversaries.poisoning import (
    Backdoor,
    LabelFlip,
    ModelReplacement,
    PoisonedHosted,
    PoisonedStream,
    triggered,
    triggered_test,
)
from simulation.adversaries.registry import ATTACKS, attack_of, poison_of, probes_of
from simulation.attacked_client import poisoned_clients
from strategies.updates import Update
from tasks.data import Examples, Stream


def update(client: str, *delta: float) -> Update:
    return Update(client, np.array(delta, np.float32), 10.0, {"num-examples": 10.0, "loss": 0.5})


@dataclass
class Known:
    """What the attacker "b" knows, who works with "c" in a round of ten."""

    cohort: int = 10
    attackers: int = 2
    seed: int = 1
    honest: list[Update] = field(default_factory=lambda: [update("b", 1, -2, 0), update("c", 3, 2, 0)])
    place: int = 0

    @property
    def chance(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def own(self) -> Update:
        return self.honest[self.place]

    def colluders(self) -> list[Update]:
        return self.honest

    def first(self) -> Update:
        return update("b", 7, 8, 9)


@pytest.mark.parametrize(
    ("attack", "sent"),
    [
        (SignFlip(), [-4, 8, 0]),
        (SignFlip(1.5), [-1.5, 3, 0]),
        (Replay(), [7, 8, 9]),
        (Honest(), [1, -2, 0]),
        (ModelReplacement(), [5, -10, 0]),  # ten clients, two of whom attack
        (ModelReplacement(3.0), [3, -6, 0]),
        (ALittleIsEnough(1.0), [1, -2, 0]),  # mean 2, 0, 0 and deviation 1, 2, 0
        (ALittleIsEnough(0.5), [1.5, -1, 0]),
        (InnerProduct(), [-1, 0, 0]),
        (InnerProduct(10.0), [-20, 0, 0]),
        (Collusion(), [-8, 0, 0]),
    ],
    ids=str,
)
def test_what_an_attacker_sends(attack: Attack, sent: list[float]) -> None:
    forged = attack.forge(Known())
    assert forged.delta.tolist() == sent
    assert forged.delta.dtype == np.float32
    assert (forged.client, forged.weight, forged.metrics) == ("b", 10.0, {"num-examples": 10.0, "loss": 0.5})


def test_nan_is_nan_everywhere() -> None:
    assert np.isnan(NotANumber().forge(Known()).delta).all()


def test_noise_has_its_deviation_and_is_the_clients_own() -> None:
    known = Known(honest=[Update("b", np.zeros(100_000, np.float32), 1.0)])
    noise = Gaussian(3.0).forge(known).delta
    # The sample deviation of 1e5 normal values is off by more than 2 % with a probability below 1e-18.
    assert noise.std() == pytest.approx(3.0, rel=0.02)
    assert abs(noise.mean()) < 3 * 6 / np.sqrt(len(noise))
    assert noise.dtype == np.float32
    assert np.array_equal(noise, Gaussian(3.0).forge(known).delta)
    known.seed = 2
    assert not np.array_equal(noise, Gaussian(3.0).forge(known).delta)


def test_colluders_send_one_and_the_same_vector() -> None:
    for attack in (ALittleIsEnough(1.5), InnerProduct(), Collusion()):
        one, other = Known(), Known(place=1)
        assert np.array_equal(attack.forge(one).delta, attack.forge(other).delta)
        assert attack.forge(other).client == "c"


def test_the_inner_product_with_the_honest_mean_turns_negative() -> None:
    """Of the papers' own claim: (n - m) honest updates and m of IPM with epsilon above (n - m) / m."""
    honest = [update(str(k), 1 + 0.1 * k, 2 - 0.1 * k) for k in range(8)]
    sent = [InnerProduct(5.0).forge(Known(honest=honest[:2])).delta] * 2
    mean = np.mean([*(u.delta for u in honest), *sent], axis=0)
    assert mean @ np.mean([u.delta for u in honest], axis=0) < 0


def test_alie_by_the_papers_formula() -> None:
    """n = 50, m = 24: s = 2 more are needed for a majority, so that 24 of the 26 honest ones lie nearer."""
    assert hidden_deviation(50, 24) == pytest.approx(NormalDist().inv_cdf(24 / 26))
    assert hidden_deviation(50, 24) == pytest.approx(1.426, abs=1e-3)
    assert hidden_deviation(20, 4) == pytest.approx(NormalDist().inv_cdf(9 / 16))  # s = 7
    assert hidden_deviation(10, 2) == 0.0  # half of the honest: no deviation at all
    known = Known(cohort=50, attackers=24)
    assert ALittleIsEnough().forge(known).delta.tolist() == pytest.approx([2 - 1.426077, -2 * 1.426077, 0])


@given(st.integers(1, 300), st.integers(1, 300))
def test_alie_has_a_finite_z_for_any_numbers(cohort: int, attackers: int) -> None:
    assert 0 <= hidden_deviation(max(cohort, attackers), attackers) < 4


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1, max_size=8))
def test_mean_and_deviation_are_numpys(rows: list[list[float]]) -> None:
    updates = [update(str(k), *row) for k, row in enumerate(rows)]
    exact = np.array([u.delta for u in updates], np.float64)
    mean = mean_of(updates)
    assert mean == pytest.approx(exact.mean(axis=0), rel=1e-9, abs=1e-6)
    assert deviation_of(updates, mean) == pytest.approx(exact.std(axis=0), rel=1e-6, abs=1e-6)


# Data


def test_flipped_labels() -> None:
    x, y = LabelFlip(10)(np.zeros((3, 2)), np.array([0, 3, 9], np.int32))
    assert y.tolist() == [9, 6, 0] and y.dtype == np.int32 and x.shape == (3, 2)


def test_a_trigger_is_a_white_patch_in_the_corner() -> None:
    images = np.zeros((2, 8, 9, 1), np.float32)
    stamped = triggered(images)
    assert not images.any()
    assert stamped[:, 6:, 7:].min() == 1.0 and stamped.sum() == 2 * 2 * 2
    assert triggered(np.zeros((1, 28, 28, 3), np.float32)).sum() == 4 * 4 * 3
    assert triggered(np.zeros((1, 13), np.float32))[0].tolist() == [0.0] * 11 + [1.0] * 2


def test_a_backdoor_is_in_a_share_of_the_examples() -> None:
    x, y = np.zeros((10, 8, 8, 1), np.float32), np.arange(10, dtype=np.int32)
    poisoned, labels = Backdoor(target=7)(x, y)
    assert labels.tolist() == [7, 7, 7, 7, 4, 5, 6, 7, 8, 9]  # ceil(10 * 20 / 64)
    assert [bool(image.any()) for image in poisoned] == [True] * 4 + [False] * 6
    assert not x.any() and y.tolist() == list(range(10))


@dataclass
class Stored(Stream):
    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, batch_size: int, *, seed: int | None, epochs: int) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((self.x, self.y)).batch(batch_size).repeat(epochs)


IMAGES = np.linspace(0, 0.5, 12 * 64, dtype=np.float32).reshape(12, 8, 8, 1)
LABELS = np.array([0, 0, 0, 0, 1, 2, 0, 3, 4, 5, 6, 0], np.int32)


@dataclass
class Held:
    """Data of which only the central test set matters."""

    test: Examples | Stream

    def central_test(self) -> Examples | Stream:
        return self.test


def test_streams_are_poisoned_batch_by_batch() -> None:
    stream = PoisonedStream(Stored(IMAGES, LABELS), LabelFlip(10), len(LABELS))
    batches = list(stream.batches(5, seed=None, epochs=2))
    assert len(stream) == 12 and [len(y) for _, y in batches] == [5, 5, 2] * 2
    assert np.concatenate([y for _, y in batches[:3]]).tolist() == (9 - LABELS).tolist()
    assert np.array_equal(np.concatenate([x for x, _ in batches[:3]]), IMAGES)


def test_the_backdoors_test_is_of_other_classes_in_memory_and_as_a_stream() -> None:
    found = triggered_test(Held(Examples(IMAGES, LABELS)), 0)  # type: ignore[arg-type]
    assert isinstance(found, Examples)
    assert np.array_equal(found.x, triggered(IMAGES[LABELS != 0]))
    assert found.y.tolist() == [0] * 6 and found.y.dtype == np.int32
    stream = triggered_test(Held(Stored(IMAGES, LABELS)), 0)  # type: ignore[arg-type]
    batches = list(stream.batches(4, seed=None, epochs=1))  # type: ignore[union-attr]
    assert len(stream) == 6 and [len(y) for _, y in batches] == [3, 3]  # a batch that holds none is left out
    assert np.array_equal(np.concatenate([x for x, _ in batches]), found.x)


def config(**keys: object) -> RunConfig:
    return RunConfig.from_run_config({key.replace("_", "-"): value for key, value in keys.items()})


def test_only_attackers_train_on_poisoned_data() -> None:
    attacked = config(attack="label-flip", num_clients=10, attackers=0.3)
    node = {"partition-id": 0, "num-partitions": 1}
    poisoned, honest = poisoned_clients(attacked, node), hosted_clients(attacked, node)
    assert isinstance(poisoned, PoisonedHosted)
    for client in honest.names:
        left, right = poisoned.train(client), honest.train(client)
        assert isinstance(left, Examples) and isinstance(right, Examples)
        flipped = client in attackers_of(attacked)
        assert left.y.tolist() == [9 - y if flipped else y for y in right.y.tolist()]
        assert np.array_equal(poisoned.test(client).y, honest.test(client).y)  # type: ignore[union-attr]
    assert not isinstance(poisoned_clients(config(attack="nan", num_clients=10), node), PoisonedHosted)


# Who attacks


def test_exactly_the_share_attacks_whatever_the_order_and_the_attack() -> None:
    for clients, share, number in ((50, 0.2, 10), (100, 0.29, 29), (7, 0.5, 3), (10, 1.0, 10), (10, 0.0, 0)):
        attackers = attackers_of(config(attack="nan", num_clients=clients, clients_per_round=0, attackers=share))
        assert len(set(attackers)) == len(attackers) == number
        assert set(attackers) <= {str(client) for client in range(clients)}
        assert list(attackers) == sorted(attackers)


def test_the_same_clients_attack_whatever_the_attack_and_fewer_are_among_more() -> None:
    some = attackers_of(config(attack="nan"))
    assert some == attackers_of(config(attack="alie", num_rounds=3, model="mlp"))
    assert some != attackers_of(config(attack="nan", seed=1))
    assert set(some) < set(attackers_of(config(attack="nan", attackers=0.5)))
    assert attackers_of(config()) == ()


def test_a_share_that_is_nobody_and_a_target_that_is_no_class_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        attackers_of(config(attack="nan", num_clients=6, clients_per_round=0, attackers=0.1))
    assert str(caught.value) == (
        "The key 'attackers' is 0.1, but of 6 clients that is nobody: raise it to 0.1667 at least, or set 'attack' to "
        "'none'."
    )
    assert len(attackers_of(config(attack="nan", num_clients=6, clients_per_round=0, attackers=0.1667))) == 1
    with pytest.raises(UserError, match="'attack-target' is 10, but the data set 'digits' has the classes 0 to 9"):
        attackers_of(config(attack="backdoor", attack_target=10))


# Names and keys


def test_every_name_of_the_key_is_an_attack() -> None:
    names = [name for name in get_args(RunConfig.model_fields["attack"].annotation) if name != "none"]
    assert sorted(ATTACKS) == sorted(names)
    assert set(ONLY_WITH["attackers"]["attack"]) == set(names)
    for name in names:
        assert attack_of(config(attack=name)) == ATTACKS[name]()
    for name in ONLY_WITH["attack-scale"]["attack"]:
        assert attack_of(config(attack=name, attack_scale=2.5)) == ATTACKS[name](2.5)


def test_which_attacks_poison_data_and_what_they_are_probed_with() -> None:
    poisoning = [name for name in ATTACKS if poison_of(config(attack=name), 10) is not None]
    assert poisoning == ["label-flip", "backdoor"]
    assert poison_of(config(attack="backdoor", attack_target=3), 10) == Backdoor(3)
    assert [name for name in ATTACKS if probes_of(config(attack=name))] == ["backdoor"]
    assert probes_of(config()) == {}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"attack": "sing-flip"}, "did you mean 'sign-flip'?"),
        ({"attack": "nan", "attackers": 1.5}, "'attackers' is 1.5, but must be a number, at least 0 and at most 1."),
        ({"attackers": 0.4}, "The key 'attackers' is 0.4, but does nothing with attack 'none'"),
        ({"attack": "nan", "attack-scale": 2.0}, "The key 'attack-scale' is 2.0, but does nothing with attack 'nan'"),
        ({"attack": "alie", "attack-target": 2}, "The key 'attack-target' is 2, but does nothing with attack 'alie'"),
        ({"attacker": 0.2}, "did you mean 'attackers'?"),
    ],
)
def test_mistakes_are_told(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_run_config(keys)
    assert sentence in str(caught.value)


def test_only_a_simulation_of_ours_has_adversaries() -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_world(config(attack="sign-flip", attackers=0.4))
    assert str(caught.value) == (
        "Only 'fedkeras simulate' has adversaries, but the run sets 'attack' ('sign-flip'), 'attackers' (0.4): leave "
        "that out, or run it with 'fedkeras simulate'."
    )
