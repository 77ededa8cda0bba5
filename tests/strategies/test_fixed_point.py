"""Exact sums: the same bits in any order, grouping and tree; within the stated error of fractions; no overflow."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import strategies.fixed_point
from strategies.errors import LayoutError
from strategies.fixed_point import MAX_WEIGHT, MIN_WEIGHT, FixedPointSum, largest_absolute, share

Contribution = tuple[list[float], float]

values = st.floats(-100, 100, width=32)
weights = st.one_of(st.integers(1, 100_000).map(float), st.floats(0.01, 1000))
contributions = st.lists(st.tuples(st.lists(values, min_size=3, max_size=3), weights), min_size=1, max_size=8)


def vector(*elements: float) -> np.ndarray:
    return np.array(elements, dtype=np.float32)


def summed(given: list[Contribution]) -> FixedPointSum:
    total = FixedPointSum(3)
    for delta, weight in given:
        total.add(vector(*delta), weight)
    return total


def state(total: FixedPointSum) -> tuple[list[int], float, bytes]:
    arrays = total.to_arrays()
    return arrays["total"].tolist(), total.total_weight(), total.mean().tobytes()


def test_mean_of_two_clients_by_hand() -> None:
    total = FixedPointSum(3)
    total.add(vector(1, 2, 3), 1)
    total.add(vector(5, -2, 0.5), 3)
    assert total.mean().tolist() == [4.0, -1.0, 1.125]
    assert total.mean().dtype == np.float32
    assert (total.total_weight(), total.count, total.size) == (4.0, 2, 3)


def test_the_accumulators_hold_multiples_of_two_to_the_minus_32_rounded_to_even() -> None:
    total = FixedPointSum(4)
    total.add(vector(1, 2.0**-33, 3 * 2.0**-33, -(2.0**-32)), 1)
    assert total.to_arrays()["total"].tolist() == [2**32, 0, 2, -1]


def test_cancellation_is_exact_where_floats_lose_it() -> None:
    total = summed([([1e6, 1, 0], 1000.0), ([2.0**-32, 1, 0], 1.0), ([-1e6, 1, 0], 1000.0)])
    assert total.to_arrays()["total"].tolist() == [1, 2001 * 2**32, 0]


@given(contributions, st.randoms(use_true_random=False))
def test_any_order_gives_the_same_bits(given_: list[Contribution], random: object) -> None:
    shuffled = list(given_)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert state(summed(shuffled)) == state(summed(given_))


@given(contributions, st.data())
def test_any_grouping_and_merge_tree_gives_the_same_bits(given_: list[Contribution], data: st.DataObject) -> None:
    partials = [summed([one]) for one in data.draw(st.permutations(given_))]
    while len(partials) > 1:
        first = partials.pop(data.draw(st.integers(0, len(partials) - 1)))
        second = data.draw(st.integers(0, len(partials) - 1))
        if data.draw(st.booleans()):  # as if it had travelled
            first = FixedPointSum.from_arrays(first.to_arrays(), 3)
        partials[second].merge(first)
    assert state(partials[0]) == state(summed(given_))


# The definition, in Python's own integers and fractions: no NumPy, no floats but to round the product once.


def rounded(weight: float, value: float) -> int:
    """``weight * value`` as a multiple of 2^-32, halves to even."""
    return round(Fraction(weight * value) * 2**32)


def exact_sum(given_: list[Contribution]) -> list[int]:
    return [sum(rounded(weight, delta[column]) for delta, weight in given_) for column in range(3)]


tiny_steps = st.integers(-(2**20), 2**20).map(lambda k: k * 2.0**-34)  # halves of a multiple are common
wide = st.one_of(
    tiny_steps, values, st.floats(-(2.0**20), 2.0**20, width=32), st.floats(-(2.0**-20), 2.0**-20, width=32)
)
many_weights = st.one_of(st.integers(1, 600).map(float), st.sampled_from([1.0, 2.0**-16, 0.5, 1e-3, 2.0**10 + 0.1]))
wide_contributions = st.lists(
    st.tuples(st.lists(wide, min_size=3, max_size=3), many_weights), min_size=1, max_size=12
).filter(lambda given_: sum(weight * max(map(abs, delta)) for delta, weight in given_) < 2.0**31 - 1)


@given(wide_contributions)
@example([([0.0, 2.0**21, 0.0], 1.0), ([2.0**-32, 2.0**-32, 0.0], 1.0)])  # beyond what float64 adds exactly
@example([([0.25, 2.0**19, 0.0], 1.0), ([2.0**-33, 3 * 2.0**-33, -(2.0**-33)], 1.0)] * 3)  # rounded in both ways
@example([([1.0, 2.0**20, 0.0], 1.0)] * 4)
def test_the_sum_is_that_of_pythons_integers(given_: list[Contribution]) -> None:
    assert summed(given_).to_arrays()["total"].tolist() == exact_sum(given_)


@given(wide_contributions, wide_contributions, st.booleans(), st.booleans())
def test_a_merged_sum_is_that_of_pythons_integers(
    left: list[Contribution], right: list[Contribution], left_travels: bool, right_travels: bool
) -> None:
    """Small and large sums, travelled or not, in all mixtures."""
    first, second = summed(left), summed(right)
    if left_travels:
        first = FixedPointSum.from_arrays(first.to_arrays(), 3)
    if right_travels:
        second = FixedPointSum.from_arrays(second.to_arrays(), 3)
    try:
        first.merge(second)
    except OverflowError:
        bounds = [sum(rounded(weight, max(map(abs, delta))) for delta, weight in part) for part in (left, right)]
        assert sum(bounds) > 2**63 - 1
        return
    assert first.to_arrays()["total"].tolist() == exact_sum(left + right)
    assert second.to_arrays()["total"].tolist() == exact_sum(right)


@given(wide_contributions, st.floats(1e-3, 1e9))
def test_a_quotient_is_the_correctly_rounded_one(given_: list[Contribution], divisor: float) -> None:
    expected = [np.float32(number / (divisor * 2.0**32)) for number in map(float, exact_sum(given_))]
    assert summed(given_).divided_by(divisor).tolist() == [float(number) for number in expected]


@pytest.mark.parametrize("steps", [1, 3, 2**20 + 1])
def test_a_sum_beyond_two_to_the_53_loses_nothing(steps: int) -> None:
    """2^53 is the last number up to which float64 holds every integer: 2^53 + 1 would be lost."""
    total = FixedPointSum(2)
    total.add(vector(2.0**21, -(2.0**21)), 1.0)
    for _ in range(2):
        total.add(vector(steps * 2.0**-32, steps * 2.0**-32), 1.0)
    assert total.to_arrays()["total"].tolist() == [2**53 + 2 * steps, -(2**53) + 2 * steps]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("delta", "weight"),
    [
        (14586017 * 2.0**-33, 308761441.0),  # 2^51 + 1/2, as 2^52 + 1 = 17 * 858001 * 308761441
        (2.0**19, 1.0),
        (2.0**19 - 2.0**-5, 1.0),
        ((2.0**24 - 1) * 2.0**-33, 2.0**28),  # just below 2^51
        ((2.0**24 - 1) * 2.0**-34, 2.0**29 - 1),  # ends in a quarter
    ],
)
def test_rounding_is_the_same_where_its_way_changes(delta: float, weight: float, sign: int) -> None:
    """Below 2^51 numbers are rounded by an addition, and from there on by NumPy."""
    total = FixedPointSum(3)
    for _ in range(3):
        total.add(vector(sign * delta, -sign * delta, sign * 2.0**-33), weight)
    expected = [3 * rounded(weight, number) for number in (sign * delta, -sign * delta, sign * 2.0**-33)]
    assert total.to_arrays()["total"].tolist() == expected


def test_many_small_updates_wrap_nothing_around() -> None:
    """The bits of what rounds are added with each update, and exceed int64 from the second on."""
    total, rng = FixedPointSum(5), np.random.default_rng(0)
    deltas = rng.normal(size=(500, 5)).astype(np.float32)
    for place, delta in enumerate(deltas):
        total.add(delta, 3.0)
        if place % 100 == 50:
            total.merge(FixedPointSum.from_arrays(total.to_arrays(), 5))
    expected = [0] * 5
    for place, delta in enumerate(deltas.tolist()):
        expected = [before + rounded(3.0, value) for before, value in zip(expected, delta, strict=True)]
        expected = [2 * number for number in expected] if place % 100 == 50 else expected
    assert total.to_arrays()["total"].tolist() == expected


@given(st.lists(st.floats(width=32), max_size=5))
def test_the_largest_absolute_value(elements: list[float]) -> None:
    found = largest_absolute(vector(*elements))
    if any(np.isnan(elements)):
        assert np.isnan(found)
    else:
        assert found == max(map(abs, elements), default=0)


def test_a_largest_value_that_is_known_is_believed_and_not_sought() -> None:
    total = FixedPointSum(2)
    total.add(vector(1, -3), 2.0, largest=3.0)
    with pytest.raises(OverflowError):
        total.add(vector(1, 1), 1.0, largest=2.0**31)
    with pytest.raises(ValueError, match="NaN"):
        total.add(vector(1, 1), 1.0, largest=float("nan"))
    assert total.to_arrays()["total"].tolist() == [2 * 2**32, -6 * 2**32]


def test_what_was_given_away_stays_as_it_was() -> None:
    """Arrays and merged sums share memory with the sum until it changes: then it goes on with its own."""
    total = summed([([1, 2, 3], 1.0)])
    arrays = total.to_arrays()
    first, second = FixedPointSum(3), FixedPointSum(3)
    first.merge(total)
    second.merge(first)
    travelled = FixedPointSum.from_arrays(arrays, 3)
    for one in (total, first, second, travelled):
        one.add(vector(1, 0, 0), 1.0)
        one.merge(summed([([0, 1, 0], 1.0)]))
        assert one.to_arrays()["total"].tolist() == [2 * 2**32, 3 * 2**32, 3 * 2**32]
        assert arrays["total"].tolist() == [2**32, 2 * 2**32, 3 * 2**32]


def test_a_sum_is_adopted_without_a_copy() -> None:
    arrays = summed([([1, 2, 3], 1.0)]).to_arrays()
    total = FixedPointSum(3)
    total.merge(FixedPointSum.from_arrays(arrays, 3))
    assert np.shares_memory(total.to_arrays()["total"], arrays["total"])


def test_a_sum_merged_with_itself_and_with_nothing() -> None:
    total = summed([([1, 2, 3], 1.0)])
    total.merge(total)
    total.merge(FixedPointSum(3))
    assert total.to_arrays()["total"].tolist() == [2 * 2**32, 4 * 2**32, 6 * 2**32]
    nothing = FixedPointSum(3)
    nothing.merge(FixedPointSum(3))
    assert nothing.to_arrays()["total"].tolist() == [0, 0, 0] and nothing.largest() == 0 and nothing.norm() == 0


@given(wide_contributions)
def test_the_largest_of_a_sum_follows_what_is_added(given_: list[Contribution]) -> None:
    total = FixedPointSum.from_arrays(summed(given_).to_arrays(), 3)
    assert total.largest() == max(map(abs, exact_sum(given_))) / 2**32
    total.add(vector(0, 0, 7), 1.0)
    assert total.largest() == max(map(abs, exact_sum([*given_, ([0, 0, 7], 1.0)]))) / 2**32


small = st.floats(-0.25, 0.25, width=32)
exact_contributions = st.one_of(
    st.tuples(st.lists(values, min_size=3, max_size=3), st.integers(1, 100_000)),
    st.tuples(st.lists(small, min_size=3, max_size=3), st.integers(1, 2**29)),
)


@given(st.lists(exact_contributions, min_size=1, max_size=8))
@example([([2.0**-34, 1e-30, -(2.0**-33)], 1)] * 8)
def test_the_mean_is_within_the_stated_error_of_exact_fractions(given_: list[tuple[list[float], int]]) -> None:
    total = summed([(delta, float(weight)) for delta, weight in given_])
    exact_weight = sum(weight for _, weight in given_)
    assert total.total_weight() == exact_weight
    integers = total.to_arrays()["total"].tolist()
    for column in range(3):
        exact = sum(Fraction(delta[column]) * weight for delta, weight in given_) / exact_weight
        bound = Fraction(len(given_), 2**33) / exact_weight
        assert abs(Fraction(integers[column], 2**32) / exact_weight - exact) <= bound
        rounding = (abs(exact) + bound) * Fraction(1, 2**23)
        assert abs(Fraction(float(total.mean()[column])) - exact) <= bound + rounding


@given(contributions)
def test_the_mean_agrees_with_numpy_average(given_: list[Contribution]) -> None:
    deltas, chosen = (np.array(column, dtype=np.float64) for column in zip(*given_, strict=True))
    error = 2.0**-33 * len(given_) / chosen.sum()
    np.testing.assert_allclose(
        summed(given_).mean(), np.average(deltas, axis=0, weights=chosen), rtol=1e-6, atol=1e-7 + error
    )


@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 23])
def test_blocks_do_not_show(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    deltas = rng.normal(size=(3, size)).astype(np.float32)

    def run() -> tuple[bytes, bytes]:
        total = FixedPointSum(size)
        for weight, delta in enumerate(deltas, 1):
            total.add(delta, weight)
        return total.mean().tobytes(), total.to_arrays()["total"].tobytes()

    whole = run()
    monkeypatch.setattr(strategies.fixed_point, "BLOCK", 8)
    assert run() == whole


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_what_is_not_finite_is_refused_and_nothing_added(bad: float, position: int) -> None:
    total = summed([([1, 2, 3], 1.0)])
    before = state(total)
    delta = vector(7, 7, 7)
    delta[position] = bad
    with pytest.raises(ValueError, match="NaN or an infinite"):
        total.add(delta, 1.0)
    assert state(total) == before


@pytest.mark.parametrize(
    "weight", [0.0, -5.0, float("nan"), float("inf"), MIN_WEIGHT / 2, MAX_WEIGHT * 2, 1e300, -float("inf")]
)
def test_weights_that_cannot_be_meant_are_refused(weight: float) -> None:
    with pytest.raises(LayoutError, match="weight of an update") as caught:
        FixedPointSum(3).add(vector(0, 0, 0), weight)
    assert caught.value.reason == "weight"


def test_shapes_and_dtypes_are_strict() -> None:
    for delta, reason in [(vector(1), "shape"), (vector(1, 2, 3)[None], "shape"), (np.ones(3), "dtype")]:
        with pytest.raises(LayoutError) as caught:
            FixedPointSum(3).add(delta, 1.0)
        assert caught.value.reason == reason
    with pytest.raises(LayoutError, match="3 elements cannot take in one of 2"):
        FixedPointSum(3).merge(FixedPointSum(2))


def test_overflow_is_refused_before_it_happens_and_changes_nothing() -> None:
    total = FixedPointSum(3)
    total.add(vector(2.0**30, 0, 0), 1)
    total.add(vector(-(2.0**29), 0, 0), 1)  # the sum shrinks, the bound does not: it holds for any order
    before = state(total)
    for bad in (vector(0, 2.0**29, 0), vector(0, 0, -(2.0**29)), vector(3e38, 0, 0)):
        with pytest.raises(OverflowError, match="must stay below 2\\^31"):
            total.add(bad, 1)
    other = FixedPointSum(3)
    other.add(vector(2.0**29, 0, 0), 1)
    with pytest.raises(OverflowError):
        total.merge(other)
    assert state(total) == before
    total.add(vector(np.nextafter(np.float32(2.0**29), np.float32(0)), 0, 0), 1)


def test_the_largest_sum_that_fits_is_exact() -> None:
    total = FixedPointSum(1)
    below = np.nextafter(np.float32(2.0**31), np.float32(0))
    total.add(vector(below), 1)
    assert total.to_arrays()["total"].tolist() == [int(below) * 2**32]
    assert total.largest() == float(below)


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=50))
def test_clients_that_keep_to_their_share_never_overflow(signs: list[float]) -> None:
    total = FixedPointSum(1)
    for sign in signs:
        total.add(vector(sign * share(len(signs))), 1.0)
    assert np.isfinite(total.mean()).all()


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="mean of no updates"):
        FixedPointSum(3).mean()
    assert FixedPointSum(3).total_weight() == 0.0


def test_another_divisor_and_the_norm() -> None:
    total = summed([([3, 0, 4], 1.0), ([3, 0, 4], 1.0)])
    assert total.divided_by(4.0).tolist() == [1.5, 0.0, 2.0]
    assert total.norm() == 10.0
    assert total.largest() == 8.0
    assert summed([([-3, 0, 1], 1.0)]).largest() == 3.0


def test_travelling_keeps_the_sum_and_shares_no_memory() -> None:
    total = summed([([1, 2, 3], 2.0), ([0, 0, 1], 5.0)])
    arrays = {name: array.copy() for name, array in total.to_arrays().items()}
    for array in arrays.values():
        array.flags.writeable = False
    copy = FixedPointSum.from_arrays(arrays, 3)
    assert state(copy) == state(total)
    assert copy.weights == [2.0, 5.0]
    copy.add(vector(1, 1, 1), 1.0)
    assert state(copy) != state(total)


GOOD = {"total": np.zeros(3, dtype=np.int64), "weights": np.ones(2)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"total": np.zeros(2, dtype=np.int64)}, "shape"),
        ({"total": np.zeros((3, 1), dtype=np.int64)}, "shape"),
        ({"weights": np.ones((2, 1))}, "shape"),
        ({"total": np.zeros(3)}, "dtype"),
        ({"total": np.zeros(3, dtype=np.uint64)}, "dtype"),
        ({"weights": np.ones(2, dtype=np.float32)}, "dtype"),
        ({"weights": np.array(["1", "2"])}, "dtype"),
        ({"weights": np.array([1.0, np.nan])}, "weight"),
        ({"weights": np.array([1.0, -1.0])}, "weight"),
        ({"extra": np.ones(1)}, "malformed"),
        ({"total": np.array([0, 0, -(2**63)])}, "malformed"),
        ({"total": np.ones(3, dtype=np.int64), "weights": np.ones(0)}, "malformed"),
    ],
)
def test_a_sum_from_elsewhere_is_not_believed(changes: dict[str, np.ndarray], reason: str) -> None:
    FixedPointSum.from_arrays(GOOD, 3)
    with pytest.raises(LayoutError) as caught:
        FixedPointSum.from_arrays({**GOOD, **changes}, 3)
    assert caught.value.reason == reason


def test_a_hostile_sum_cannot_overflow_ours() -> None:
    hostile = FixedPointSum.from_arrays({"total": np.array([0, 0, 2**63 - 1]), "weights": np.ones(1)}, 3)
    total = summed([([0, 0, 1], 1.0)])
    with pytest.raises(OverflowError):
        total.merge(hostile)
    assert total.mean().tolist() == [0, 0, 1]
