"""Paces: what is left of an old update, and which combinations are unsound."""

import math
from dataclasses import dataclass, field

import pytest

from strategies.aggregators import WeightedMean
from strategies.composition import Composition, Dense, NoPrivacy
from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.pace import Buffered, Pace, Synchronous
from strategies.samplers import UniformSampler
from strategies.server_optimizers import ServerSGD


@dataclass(frozen=True)
class Promising(NoPrivacy):
    """A privacy part with these guarantees."""

    promises: Guarantees = field(default_factory=Guarantees)

    @property
    def guarantees(self) -> Guarantees:
        return self.promises


def composed(pace: Pace, gives: set[Property] = frozenset(), needs: set[Property] = frozenset(), takes=frozenset()):
    privacy = Promising(Guarantees(frozenset(gives), frozenset(needs), frozenset(takes)))
    return Composition("test", UniformSampler(), Dense(), WeightedMean(), privacy, ServerSGD(), pace)


@pytest.mark.parametrize(
    ("exponent", "missed", "left"),
    [(0.5, 0, 1.0), (0.5, 3, 0.5), (0.5, 8, 1 / 3), (1.0, 1, 0.5), (1.0, 9, 0.1), (0.0, 100, 1.0), (2.0, 1, 0.25)],
)
def test_what_is_left_of_an_update(exponent: float, missed: int, left: float) -> None:
    assert Buffered(staleness_exponent=exponent).discount(missed) == pytest.approx(left, rel=1e-15)


def test_an_update_that_missed_nothing_is_whole_to_the_bit() -> None:
    assert all(Buffered(staleness_exponent=exponent).discount(0) == 1.0 for exponent in (0.0, 0.3, 0.5, 7.0))


def test_the_bound_on_staleness_is_the_most_that_is_allowed() -> None:
    assert [Buffered(max_staleness=2).too_stale(missed) for missed in range(4)] == [False, False, False, True]
    assert not any(Buffered(max_staleness=0).too_stale(missed) for missed in (0, 1, 10**6))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"buffer_size": 0}, "'buffer-size' is 0, but must be 1 or more"),
        ({"concurrency": -1}, "'concurrency' is -1, but must be 0"),
        ({"staleness_exponent": -0.5}, r"'staleness-exponent' is -0\.5"),
        ({"staleness_exponent": math.nan}, "'staleness-exponent' is nan"),
        ({"staleness_exponent": math.inf}, "'staleness-exponent' is inf"),
        ({"max_staleness": -2}, "'max-staleness' is -2"),
    ],
)
def test_bad_values_name_their_key(options: dict, sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence):
        Buffered(**options)


def test_only_in_rounds_may_nodes_add_up() -> None:
    sums = {Property.NODE_SUMS}
    assert composed(Synchronous(), gives=sums).takes_partial_sums
    assert not composed(Buffered(), gives=sums).takes_partial_sums


def test_a_buffer_needs_to_see_each_update() -> None:
    composed(Synchronous(), takes={Property.SINGLE_UPDATES})
    with pytest.raises(StrategyError, match=r"Buffered needs every client's own update .* Promising takes away"):
        composed(Buffered(), takes={Property.SINGLE_UPDATES})


@pytest.mark.parametrize("known", [Property.KNOWN_SAMPLING, Property.BOUNDED_PARTICIPATION])
def test_accounting_by_who_takes_part_in_a_round_is_not_sound_with_a_buffer(known: Property) -> None:
    composed(Synchronous(), gives={known}, needs={known})
    with pytest.raises(StrategyError, match=r"Promising needs a cohort .* which Buffered takes away"):
        composed(Buffered(), gives={known}, needs={known})


def test_rounds_are_the_default() -> None:
    plain = Composition("test", UniformSampler(), Dense(), WeightedMean(), NoPrivacy(), ServerSGD())
    assert plain.pace == Synchronous() and plain.parts[-1] is plain.pace
