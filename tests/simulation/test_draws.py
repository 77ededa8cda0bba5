"""Numbers for many clients: uniform, independent, each client's own, and quick enough for a population.

Statistical tests fail with a probability below 1e-6 for right code; as seeds are fixed, they then do so always.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from simulation.draws import Draws, uniforms

ALMOST_IMPOSSIBLE = 1e-6
IDS = [f"client-{number}" for number in range(20_000)]


def test_the_finalizer_is_that_of_splitmix64() -> None:
    """Steele, Lea and Flood's generator from seed 0: its first numbers, as published with many implementations."""
    from simulation.draws import _finalized

    golden = 0x9E3779B97F4A7C15
    states = np.array([(golden * step) % 2**64 for step in (1, 2, 3)], np.uint64)
    assert [hex(value) for value in _finalized(states).tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_a_clients_number_is_its_own_whoever_else_is_asked_in_whatever_order() -> None:
    draws = Draws(5)
    all_ = dict(zip(IDS, uniforms(draws.crowd(IDS).keys, "online", 3).tolist(), strict=True))
    some = IDS[7000:50:-13]
    assert uniforms(draws.crowd(some).keys, "online", 3).tolist() == [all_[client] for client in some]


@pytest.mark.parametrize(
    ("seed", "purpose", "number"), [(0, "online", 0), (0, "online", 1), (0, "dropout", 0), (1, "online", 0)]
)
def test_numbers_are_uniform(seed: int, purpose: str, number: int) -> None:
    values = uniforms(Draws(seed).crowd(IDS).keys, purpose, number)
    assert ((values > 0) & (values < 1)).all()
    assert stats.kstest(values, "uniform").pvalue > ALMOST_IMPOSSIBLE


@pytest.mark.parametrize(
    "other", [(0, "online", 1), (0, "online", 2**40), (0, "onlinf", 0), (0, "", 0), (1, "online", 0)]
)
def test_numbers_of_another_purpose_number_or_seed_are_independent(other: tuple[int, str, int]) -> None:
    seed, purpose, number = other
    left = uniforms(Draws(0).crowd(IDS).keys, "online", 0)
    right = uniforms(Draws(seed).crowd(IDS).keys, purpose, number)
    table, _, _ = np.histogram2d(left, right, bins=8, range=((0, 1), (0, 1)))
    assert stats.chisquare(table.ravel()).pvalue > ALMOST_IMPOSSIBLE


def test_numbers_of_clients_called_alike_are_independent() -> None:
    values = uniforms(Draws(0).crowd([str(number) for number in range(20_000)]).keys, "online")
    table, _, _ = np.histogram2d(values[:-1], values[1:], bins=8, range=((0, 1), (0, 1)))
    assert stats.chisquare(table.ravel()).pvalue > ALMOST_IMPOSSIBLE


def test_ids_may_hold_anything_and_a_crowd_may_be_empty() -> None:
    draws = Draws(2**63 - 1)
    assert len(draws.crowd(())) == len(draws.crowd(()).keys) == 0
    odd = draws.crowd(["", "Zürich/1", "\ud800", "a" * 10_000])
    assert len(set(odd.keys.tolist())) == 4
