"""Admission: every reason, the order of the checks, and that what is admitted can be summed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies.admission import Limits, Reason, judge, judge_partial, norm
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum, share
from strategies.updates import PartialSum, Update

LIMITS = Limits(max_weight=1000, max_norm=5)


def update(*delta: float, weight: float = 10) -> Update:
    return Update("a", np.array(delta, dtype=np.float32), weight)


def partial(*deltas: tuple[float, ...], weight: float = 10) -> PartialSum:
    total = FixedPointSum(3)
    for delta in deltas:
        total.add(np.array(delta, dtype=np.float32), weight)
    return PartialSum(total, {str(number): weight for number in range(len(deltas))}, {})


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        (update(3, 4, 0), None),
        (update(0, 0, 0), None),
        (Update("a", [0.0, 0.0, 0.0], 1), Reason.MALFORMED),  # type: ignore[arg-type]
        (Update("a", np.zeros(3), 1), Reason.DTYPE),
        (Update("a", np.zeros(3, dtype=object), 1), Reason.DTYPE),
        (Update("a", np.zeros((3, 1), dtype=np.float32), 1), Reason.SHAPE),
        (update(1), Reason.SHAPE),
        (update(1, 2, 3, 4), Reason.SHAPE),
        (update(0, math.nan, 0), Reason.NOT_FINITE),
        (update(math.inf, 0, 0), Reason.NOT_FINITE),
        (update(0, 0, -math.inf), Reason.NOT_FINITE),
        (update(0, 0, 0, weight=0), Reason.WEIGHT),
        (update(0, 0, 0, weight=-5), Reason.WEIGHT),
        (update(0, 0, 0, weight=1e12), Reason.WEIGHT),
        (update(0, 0, 0, weight=1000.001), Reason.WEIGHT),
        (update(0, 0, 0, weight=math.nan), Reason.WEIGHT),
        (update(0, 0, 0, weight=math.inf), Reason.WEIGHT),
        (update(0, 0, 0, weight=1e-300), Reason.WEIGHT),
        (update(3, 4, 0.01), Reason.NORM),
        (update(3e38, 3e38, 3e38), Reason.NORM),
    ],
)
def test_every_reason_by_hand(given_: Update, reason: Reason | None) -> None:
    assert judge(given_, 3, LIMITS) is reason


def test_the_first_check_that_fails_names_the_reason() -> None:
    assert judge(update(math.nan, 1, 1, weight=-1), 3, LIMITS) is Reason.NOT_FINITE
    assert judge(update(9, 9, 9, weight=-1), 3, LIMITS) is Reason.WEIGHT


def test_metrics_are_not_judged() -> None:
    odd = Update("a", np.zeros(3, dtype=np.float32), 1, {"loss": math.nan})
    assert judge(odd, 3, LIMITS) is None


def test_no_norm_limit_by_default() -> None:
    assert judge(update(3e38, 3e38, 3e38), 3, Limits(1000)) is None


def test_a_contribution_counts_at_least_once() -> None:
    limits = Limits(1000, max_contribution=100)
    assert judge(update(10, 0, 0, weight=10), 3, limits) is None
    assert judge(update(0, -10.5, 0, weight=10), 3, limits) is Reason.NORM
    # Under uniform weighting a tiny claimed weight still counts as 1.
    assert judge(update(101, 0, 0, weight=0.5), 3, limits) is Reason.NORM


def test_norm_does_not_overflow_and_agrees_with_hypot() -> None:
    assert norm(np.full(3, 3e38, dtype=np.float32)) == pytest.approx(math.sqrt(3) * 3e38)
    long = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    assert norm(long) == pytest.approx(math.hypot(*long.tolist()), rel=1e-12)
    assert norm(np.zeros(0, dtype=np.float32)) == 0


def test_partial_sums_keep_what_their_clients_could() -> None:
    assert judge_partial(partial((3, 4, 0), (3, 4, 0)), 3, LIMITS) is None
    assert judge_partial(partial((3, 4, 0), (3, 4, 1)), 3, LIMITS) is Reason.NORM
    assert judge_partial(partial((3, 4, 0)), 2, LIMITS) is Reason.SHAPE
    assert judge_partial(partial((3, 4, 0), weight=1001), 3, LIMITS) is Reason.WEIGHT
    assert judge_partial(partial(), 3, LIMITS) is Reason.MALFORMED
    limits = Limits(1000, max_contribution=100)
    assert judge_partial(partial((10, 0, 0), (10, 0, 0)), 3, limits) is None
    assert judge_partial(partial((10, 0, 0), (10.5, 0, 0)), 3, limits) is Reason.NORM


def test_a_sum_that_was_rounded_up_to_just_over_the_limit_still_counts() -> None:
    edge = 3 * 2.0**-33  # rounds to 4 * 2^-33 in a sum
    for limits in (Limits(1000, max_norm=edge), Limits(1000, max_contribution=edge)):
        assert judge(update(edge, 0, 0, weight=1), 3, limits) is None
        assert judge_partial(partial((edge, 0, 0), weight=1), 3, limits) is None


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"max_weight": 0}, "max-client-examples"),
        ({"max_weight": math.nan}, "max-client-examples"),
        ({"max_weight": math.inf}, "max-client-examples"),
        ({"max_weight": 1, "max_norm": -1}, "max-update-norm"),
        ({"max_weight": 1, "max_norm": math.nan}, "max-update-norm"),
    ],
)
def test_limits_that_limit_nothing_sensible_are_refused(settings: dict[str, float], key: str) -> None:
    with pytest.raises(StrategyError, match=f"The key '{key}' is"):
        Limits(**settings)


def test_reasons_are_the_keys_of_the_count() -> None:
    of_replies = ["error", "late", "not-sent", "malformed", "too-large", "shape", "dtype", "not-finite", "weight"]
    assert [str(reason) for reason in Reason] == [
        *of_replies, "norm", "dropout", "surplus", "stale", "zeroed", "noise", "no-reference",
    ]  # fmt: skip


@given(
    hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e6, 1e6, width=32)),
    st.one_of(st.floats(0.1, 10), st.sampled_from([1.0, 1 - 2.0**-53, 1 + 2.0**-52, 1 - 2.0**-40])),
)
def test_the_bound_that_saves_the_norm_changes_no_verdict(delta: np.ndarray, factor: float) -> None:
    """Norms at, just below and just above the limit; all elements equal is where the bound is tight."""
    for one in (delta, np.full_like(delta, delta[0])):
        limit = norm(one) * factor
        if limit > 0:
            verdict = judge(Update("a", one, 1.0), len(one), Limits(10, max_norm=limit))
            assert verdict == (Reason.NORM if norm(one) > limit else None)


any_delta = hnp.arrays(np.float32, 3, elements=st.floats(width=32))
any_update = st.tuples(any_delta, st.floats())


@given(st.lists(any_update, min_size=1, max_size=6))
def test_what_is_admitted_can_always_be_summed_alone_or_packed(given_: list[tuple[np.ndarray, float]]) -> None:
    limits = Limits(max_weight=1e7, max_norm=1e9, max_contribution=share(len(given_)))
    updates = [Update(str(number), delta, weight) for number, (delta, weight) in enumerate(given_)]
    admitted = [one for one in updates if judge(one, 3, limits) is None]
    total = FixedPointSum(3)
    for one in admitted:
        total.add(one.delta, one.weight)
    if admitted:
        assert np.isfinite(total.mean()).all()
        packed = PartialSum(total, {one.client: one.weight for one in admitted}, {})
        assert judge_partial(packed, 3, limits) is None


def test_the_weight_is_at_most_what_the_client_described() -> None:
    mine = update(1, 1, 1, weight=5)
    for described, reason in (({}, None), ({mine.client: 5}, None), ({mine.client: 4}, Reason.WEIGHT)):
        assert judge(mine, 3, LIMITS, described) is reason
    assert judge(update(1, 1, weight=5), 3, LIMITS, {mine.client: 4}) is Reason.SHAPE  # the order of checks stays
