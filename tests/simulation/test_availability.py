"""Who is online by chance and by the time of day.

Statistical tests fail with a probability below 1e-6 for right code; as seeds are fixed, they then do so always.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from app.world_keys import regions
from simulation.availability import DAY, HOUR, SLOT_SECONDS, ByChance
from simulation.devices import Devices
from simulation.draws import Draws

ALMOST_IMPOSSIBLE = 1e-6
DRAWS = Draws(11)
CROWD = DRAWS.crowd([str(number) for number in range(10_000)])
ONE = DRAWS.crowd(["7"])
TWO_REGIONS = Devices(regions=regions("lisbon:0.5:0,tokyo:0.5:9"))


def test_by_default_everybody_is_always_online() -> None:
    always = ByChance()
    assert all(always.online(CROWD, time).all() for time in (0.0, 12345.6, 1e9))
    assert always.next_online(CROWD, 5.0) == 5.0
    assert (always.leaving(CROWD, 5.0) == np.inf).all()


@pytest.mark.parametrize("availability", [0.05, 0.5, 0.95])
def test_the_share_that_is_online_is_the_probability(availability: float) -> None:
    for slot in (0, 1, 1000):
        online = int(ByChance(availability).online(CROWD, slot * SLOT_SECONDS).sum())
        assert stats.binomtest(online, len(CROWD), availability).pvalue > ALMOST_IMPOSSIBLE


def test_over_time_every_client_is_online_equally_often() -> None:
    slots = 400
    days = np.array([ByChance(0.3).online(CROWD, slot * SLOT_SECONDS) for slot in range(slots)])
    counts = np.bincount(days.sum(axis=0), minlength=slots + 1)
    expected = len(CROWD) * stats.binom(slots, 0.3).pmf(np.arange(slots + 1))
    usual = expected >= 20
    left, right = counts[usual], expected[usual]
    assert stats.chisquare(
        np.append(left, len(CROWD) - left.sum()), np.append(right, len(CROWD) - right.sum())
    ).pvalue > (ALMOST_IMPOSSIBLE)


def test_a_client_stays_for_a_slot_and_is_drawn_anew_in_the_next() -> None:
    half = ByChance(0.5)
    start = half.online(CROWD, 7 * SLOT_SECONDS)
    assert (half.online(CROWD, 8 * SLOT_SECONDS - 0.001) == start).all()
    both = int((half.online(CROWD, 8 * SLOT_SECONDS) & start).sum())
    assert stats.binomtest(both, int(start.sum()), 0.5).pvalue > ALMOST_IMPOSSIBLE


def test_day_and_night_in_closed_form() -> None:
    """The most at 2 o'clock local time, the least at 14 o'clock, the mean of both at 8 and 20 o'clock."""
    world = ByChance(0.8, 0.75)
    for hour, expected in {2: 0.8, 8: 0.5, 14: 0.2, 20: 0.5, 26: 0.8}.items():
        assert world.probability(ONE, hour * HOUR)[0] == pytest.approx(expected)
    assert world.probability(ONE, 0.0)[0] == pytest.approx(0.8 * (1 - 0.75 * (1 - np.cos(np.pi / 6)) / 2))


def test_a_day_in_two_regions_follows_each_ones_sun() -> None:
    world = ByChance(0.6, 0.9, TWO_REGIONS)
    places = np.array([place.name for place in TWO_REGIONS.regions_of(CROWD)])
    most = {}
    for place, offset in (("lisbon", 0), ("tokyo", 9)):
        there = places == place
        counts = {}
        for hour in range(24):
            online = int(world.online(CROWD, DAY + hour * HOUR)[there].sum())
            local = (hour + offset) % 24
            expected = 0.6 * (1 - 0.9 * (1 - np.cos(2 * np.pi * (local - 2) / 24)) / 2)
            assert stats.binomtest(online, int(there.sum()), expected).pvalue > ALMOST_IMPOSSIBLE
            counts[hour] = online
        most[place] = max(counts, key=lambda hour: counts[hour])
    assert abs(most["lisbon"] - 2) <= 2  # night in Lisbon; in Tokyo it is then 11 in the morning
    assert abs(most["tokyo"] - 17) <= 2


def test_the_next_time_somebody_is_online_is_the_first() -> None:
    rare = ByChance(0.01)
    for now in (0.0, 100.0, 123_456.0):
        found = rare.next_online(ONE, now)
        assert found is not None and rare.online(ONE, found)[0]
        first = int(now // SLOT_SECONDS)
        slots = [
            now,
            *(slot * SLOT_SECONDS for slot in range(first + 1, first + 100_000) if slot * SLOT_SECONDS < found),
        ]
        assert found == now or not any(rare.online(ONE, time)[0] for time in slots)


def test_nobody_is_waited_for_longer_than_a_year() -> None:
    assert ByChance(1e-12).next_online(ONE, 0.0) is None
    assert ByChance(0.5).next_online(DRAWS.crowd(()), 0.0) is None
