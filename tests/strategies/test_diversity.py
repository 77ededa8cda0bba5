"""Device classes and regions of a round, and how many of them there are in effect."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from strategies.diversity import MOST, diversity, effective_number
from strategies.population import ClientInfo, Population

PHONES = [
    ClientInfo("0", 10, "fast", "europe"),
    ClientInfo("1", 10, "slow", "europe"),
    ClientInfo("2", 10, "slow", "asia"),
    ClientInfo("3", 10),
]


def test_groups_by_hand() -> None:
    told = diversity(Population(PHONES, [1]), ["0", "1", "2"], ["0", "1"])
    assert told is not None
    assert told["device-classes"]["groups"] == {
        "": {"clients": 1, "selected": 0, "counted": 0},
        "fast": {"clients": 1, "selected": 1, "counted": 1},
        "slow": {"clients": 2, "selected": 2, "counted": 1},
    }
    assert told["device-classes"]["effective"] == pytest.approx(2.0)
    assert told["regions"]["effective"] == pytest.approx(1.0)


def test_nothing_is_told_of_what_no_client_names() -> None:
    assert diversity(Population([ClientInfo("a"), ClientInfo("b")], [1]), ["a"], ["a"]) is None
    assert diversity(Population((), ()), [], []) is None
    told = diversity(Population([ClientInfo("a", region="north")], [1]), ["a"], [])
    assert told == {"regions": {"effective": 0.0, "groups": {"north": {"clients": 1, "selected": 1, "counted": 0}}}}


def test_clients_that_are_gone_do_not_count_and_those_that_come_twice_do_so_twice() -> None:
    told = diversity(Population(PHONES, [1]), ["0", "0", "gone"], ["0", "0"])
    assert told is not None
    assert told["device-classes"]["groups"]["fast"] == {"clients": 1, "selected": 2, "counted": 2}


def test_names_without_end_are_cut_to_the_largest_groups() -> None:
    crowd = [ClientInfo(str(number), region=f"place {number}") for number in range(3 * MOST)]
    crowd += [ClientInfo(f"more {number}", region="z") for number in range(2)]
    told = diversity(Population(crowd, [1]), [client.id for client in crowd], [client.id for client in crowd])
    assert told is not None
    assert len(told["regions"]["groups"]) == MOST and "z" in told["regions"]["groups"]
    assert told["regions"]["effective"] > 3 * MOST - 1  # of all of them


@given(st.lists(st.integers(0, 10**6), max_size=20))
def test_the_effective_number_is_the_exponential_of_scipys_entropy(counts: list[int]) -> None:
    if not sum(counts):
        assert effective_number(counts) == 0.0
        return
    assert effective_number(counts) == pytest.approx(math.exp(entropy(counts)))
    assert 1 - 1e-12 <= effective_number(counts) <= sum(count > 0 for count in counts) * (1 + 1e-12)
