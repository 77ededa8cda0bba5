"""The guard: what it rejects, what it clips, what it remembers, around any aggregator."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.aggregators import Aggregator, Fold, LinearFold, Property, WeightedMean
from strategies.errors import LayoutError, StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.robust import CenteredClipping, CoordinateMedian, Guarded, Krum
from strategies.updates import PartialSum, State
from tests.strategies.robust.federations import normal, updates_of

MEAN = WeightedMean("uniform")


def one_round(rule: Aggregator, state: State, vectors: object, weights: list[float] | None = None) -> tuple[Fold, int]:
    """Add all updates; returns the fold and how many it has refused."""
    fold, refused = rule.start(2, state), 0
    for update in updates_of(vectors, weights):  # type: ignore[arg-type]
        try:
            fold.add(update)
        except LayoutError as error:
            assert error.reason == "zeroed"
            refused += 1
    return fold, refused


def test_zeroing_by_hand() -> None:
    rule = Guarded(MEAN, zeroing=True)
    fold, refused = one_round(rule, rule.init(2), [[1, -2], [3, 21], [0, -21.5], [1e30, 0]])
    assert refused == 2  # the limit is 2 * 10 + 1
    assert fold.result().tolist() == [2.0, 9.5]  # a mean over two and not over four
    # Of four largest values one, 2, is at most 10.
    assert fold.state()["largest-value"] == pytest.approx(10 * 10 ** (0.98 - 0.25))


def test_what_is_zeroed_is_told() -> None:
    fold = Guarded(MEAN, zeroing=True).start(2)
    with pytest.raises(LayoutError) as caught:
        fold.add(updates_of([[0, -35.25]])[0])
    assert str(caught.value) == "Its largest value is 35.2, but 'zeroing' allows 21 in this round."


def test_fixed_clipping_by_hand() -> None:
    rule = Guarded(WeightedMean("examples"), clipping="fixed", clip_norm=5.0)
    fold, _ = one_round(rule, rule.init(2), [[30, 40], [3, 4], [0, 1]], [1, 1, 2])
    np.testing.assert_allclose(fold.result(), [(3 + 3) / 4, (4 + 4 + 2) / 4])
    assert fold.state() == {}


def test_adaptive_clipping_by_hand() -> None:
    rule = Guarded(MEAN, clipping="adaptive", clip_norm=5.0)
    fold, _ = one_round(rule, rule.init(2), [[30, 40], [3, 4], [0, 1], [0, 6]])
    np.testing.assert_allclose(fold.result(), [(3 + 3) / 4, (4 + 4 + 1 + 5) / 4])
    # Norms 50, 5, 1 and 6: half are at most 5.
    assert fold.state()["clip-norm"] == pytest.approx(5 * math.exp(-0.2 * (0.5 - 0.8)))


def test_the_norm_follows_the_updates_and_then_clips_one_in_five() -> None:
    rule = Guarded(MEAN, zeroing=True, clipping="adaptive", clip_norm=0.1)
    state = rule.init(2)
    for number in range(150):
        fold, _ = one_round(rule, state, normal(number, 100, 2, 0.01))
        state = fold.state()
    # Norms of two normal values are Rayleigh: the 0.8 quantile is sigma sqrt(-2 ln 0.2).
    assert state["clip-norm"] == pytest.approx(0.01 * math.sqrt(-2 * math.log(0.2)), rel=0.1)
    assert state["largest-value"] < 0.1


def test_zeroing_follows_updates_that_grow() -> None:
    rule = Guarded(MEAN, zeroing=True)
    state, refused = rule.init(2), []
    for _ in range(4):
        fold, out = one_round(rule, state, [[80, 0], [70, 0], [1, 0]])
        refused.append(out)
        state = fold.state()
    assert refused == [2, 0, 0, 0]


def test_zeroing_gives_way_to_patient_attackers_and_a_fixed_norm_does_not() -> None:
    """Two of ten send 1e5: C takes 22 rounds at 10^(0.98 - 0.8) from 10 to half of that."""
    vectors = [[0.01, 0]] * 8 + [[1e5, 0]] * 2
    zeroing, fixed = Guarded(MEAN, zeroing=True), Guarded(MEAN, clipping="fixed", clip_norm=0.01)
    state, rounds = zeroing.init(2), 0
    refused = 2
    while refused:
        fold, refused = one_round(zeroing, state, vectors)
        fold.result()
        state, rounds = fold.state(), rounds + 1
    assert (rounds, fold.result()[0] > 1e4) == (22, True)
    fold, _ = one_round(fixed, fixed.init(2), vectors)
    assert fold.result()[0] == pytest.approx(0.01)


def test_the_order_of_updates_changes_no_bit() -> None:
    rule, vectors = Guarded(MEAN, zeroing=True, clipping="adaptive"), normal(1, 20, 2, 12.0)
    results = set()
    for seed in range(10):
        fold = rule.start(2, rule.init(2))
        updates = updates_of(vectors)
        for place in np.random.default_rng(seed).permutation(20):
            with contextlib.suppress(LayoutError):
                fold.add(updates[place])
        results.add((fold.result().tobytes(), *(array.tobytes() for array in fold.state().values())))
    assert len(results) == 1


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=2, max_size=2), st.floats(1e-3, 1e3))
def test_what_is_clipped_keeps_its_direction_and_what_is_short_its_bits(vector: list[float], limit: float) -> None:
    rule = Guarded(CoordinateMedian(), clipping="fixed", clip_norm=limit)
    (update,) = updates_of([vector])
    fold = rule.start(2)
    fold.add(update)
    result, norm = fold.result().astype(float), float(np.linalg.norm(update.delta.astype(float)))
    if norm <= limit:
        np.testing.assert_array_equal(result, update.delta)
    else:
        np.testing.assert_allclose(result, update.delta * (limit / norm), rtol=1e-5, atol=1e-40)


def test_the_aggregator_s_own_state_is_kept_beside() -> None:
    rule = Guarded(CenteredClipping(1.0), zeroing=True, clipping="adaptive")
    state = rule.init(2)
    assert set(state) == {"largest-value", "clip-norm", "aggregator-center"}
    fold, _ = one_round(rule, state, [[0.1, 0.2], [0.3, 0.4]])
    fold.result()
    after = fold.state()
    assert set(after) == set(state) and all(isinstance(array, np.ndarray) for array in after.values())
    np.testing.assert_allclose(after["aggregator-center"], [0.2, 0.3], rtol=1e-6)


def test_what_it_passes_on_and_what_it_takes_away() -> None:
    rule = Guarded(MEAN, zeroing=True)
    assert rule.guarantees.gives == {Property.EQUAL_WEIGHTS} and rule.guarantees.needs == {Property.SINGLE_UPDATES}
    assert not isinstance(rule.start(2), LinearFold)
    assert Guarded(Krum(1), zeroing=True).shortfall(4) == Krum(1).shortfall(4) != ""
    assert Guarded(WeightedMean("examples"), zeroing=True).weight_of(updates_of([[1]], [7.0])[0]) == 7.0
    total = FixedPointSum(2)
    total.add(np.ones(2, np.float32), 1.0)
    with pytest.raises(StrategyError, match="A guard needs each client's own update"):
        rule.start(2).merge(PartialSum(total, {"a": 1.0}, {}))


def test_keys() -> None:
    assert Guarded.around(MEAN, {}) is MEAN
    assert Guarded.around(MEAN, {"zeroing": True}) == Guarded(MEAN, zeroing=True)
    keys = {"clipping": "fixed", "clip-norm": 3}
    assert Guarded.around(MEAN, keys) == Guarded(MEAN, clipping="fixed", clip_norm=3.0)
    with pytest.raises(StrategyError, match=r"'clipping' is 'norm', but must be one of \['none', 'fixed', "):
        Guarded.around(MEAN, {"clipping": "norm"})
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(StrategyError, match=r"'clip-norm' is .*, but must be a finite number above 0"):
            Guarded(MEAN, clipping="fixed", clip_norm=bad)
