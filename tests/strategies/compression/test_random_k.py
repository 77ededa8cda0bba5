"""Random-k: the same places for all clients of a round, each as likely, and the error of the paper."""

import itertools

import numpy as np
import pytest
from scipy import stats

from strategies.compression.compressed import Compressed
from strategies.compression.header import LENGTH
from strategies.compression.lossless import NoLossless
from strategies.compression.positions import SOME
from strategies.compression.quantizer import Float32
from strategies.compression.random_k import RandomK

SIZE = 23


def places(codec: RandomK, size: int, seed: int) -> np.ndarray:
    return np.concatenate(list(codec.agreed(size, seed)))


@pytest.mark.parametrize(("share", "size"), [(0.3, 23), (1.0, 23), (0.01, 1), (0.5, 5 * SOME), (0.999, 3 * SOME + 1)])
def test_places_increase_within_the_model(share: float, size: int) -> None:
    found = places(RandomK(share), size, 1)
    assert len(found) == RandomK(share).count(size)
    assert (np.diff(found, prepend=-1) > 0).all()
    assert found[-1] < size


def test_every_place_is_as_likely() -> None:
    """Chi-square over 4000 rounds, per stretch: a fair choice fails once in a million seeds."""
    rounds, codec = 4000, RandomK(7 / SIZE)
    counts = np.bincount(np.concatenate([places(codec, SIZE, seed) for seed in range(rounds)]), minlength=SIZE)
    bounds = [k * SIZE // 7 for k in range(8)]
    for start, stop in itertools.pairwise(bounds):
        assert counts[start:stop].sum() == rounds
        assert stats.chisquare(counts[start:stop]).pvalue > 1e-6


def test_unbiased_with_the_error_of_the_paper() -> None:
    """E||Q(x) - x||^2 = (n/k - 1) ||x||^2 where k divides n; means over 4000 rounds within 5 standard errors."""
    delta, codec, draws = np.random.default_rng(0).normal(size=24).astype(np.float32), RandomK(0.25), 4000
    decoded = np.zeros((draws, 24))
    for seed in range(draws):
        decoded[seed, places(codec, 24, seed)] = codec.select(delta, seed)[0]
    error = decoded.std(axis=0) / np.sqrt(draws)
    assert (np.abs(decoded.mean(axis=0) - delta) < 5 * error).all()  # wrong once in 70,000 seeds
    squares = np.square(decoded - delta).sum(axis=1)
    expected = 3 * float(delta @ delta)
    assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(draws)


def test_all_clients_of_a_round_send_the_same_places_and_add_up() -> None:
    codec = Compressed(RandomK(0.2), Float32(), NoLossless())
    clients = np.random.default_rng(1).normal(size=(3, 500)).astype(np.float32)
    payloads = [codec.encode(delta, seed=k, round_seed=9) for k, delta in enumerate(clients)]
    decoded = [codec.decode(payload, 500, round_seed=9) for payload in payloads]
    assert {tuple(np.flatnonzero(delta)) for delta in decoded} == {tuple(places(RandomK(0.2), 500, 9))}
    np.testing.assert_allclose(
        sum(decoded), codec.decode(codec.encode(clients.sum(axis=0), 5, 9), 500, 9), rtol=1e-5, atol=1e-5
    )


def test_places_are_not_sent_but_follow_from_the_servers_seed() -> None:
    codec = Compressed(RandomK(0.2), Float32(), NoLossless())
    payload = codec.encode(np.ones(500, np.float32), seed=1, round_seed=9)
    assert len(payload) == LENGTH + 4 * 100
    assert np.flatnonzero(codec.decode(payload, 500, round_seed=10)).tolist() == places(RandomK(0.2), 500, 10).tolist()
    assert (places(RandomK(0.2), 500, 10) != places(RandomK(0.2), 500, 9)).any()


def test_the_places_never_change() -> None:
    """Server and clients may run other versions of NumPy."""
    assert places(RandomK(0.2), 30, 1).tolist() == [1, 9, 13, 17, 21, 26]
