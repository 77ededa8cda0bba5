"""Updates and partial sums; the mean of metrics, which no client can spoil."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.errors import LayoutError
from strategies.fixed_point import FixedPointSum
from strategies.updates import PartialSum, Update, mean_metrics

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


def sum_of(*weights: float) -> FixedPointSum:
    total = FixedPointSum(3)
    for weight in weights:
        total.add(np.ones(3, dtype=np.float32), weight)
    return total


def test_an_update_is_frozen() -> None:
    update = Update("a", np.zeros(3, dtype=np.float32), 1.0)
    assert update.metrics == {}
    with pytest.raises(AttributeError):
        update.weight = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(("delta", "largest"), [([1, -3, 2], 3), ([4, -3, 2], 4), ([-0.0, 0.0, 0.0], 0)])
def test_an_update_knows_its_largest_value(delta: list[float], largest: float) -> None:
    update = Update("a", np.array(delta, dtype=np.float32), 1.0)
    assert update.largest == largest
    assert type(update.largest) is float  # whose product with the weight is a float64, as in the sum


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_largest_value_shows_what_is_not_finite(bad: float) -> None:
    assert not math.isfinite(Update("a", np.array([1, bad, 2], dtype=np.float32), 1.0).largest)


def test_the_largest_value_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr("strategies.updates.largest_absolute", lambda delta: calls.append(1) or 7.0)
    update = Update("a", np.zeros(3, dtype=np.float32), 1.0)
    assert (update.largest, update.largest, len(calls)) == (7.0, 7.0, 1)


def test_a_partial_sum_knows_its_clients() -> None:
    partial = PartialSum(sum_of(2, 1), {"b": 1.0, "a": 2.0}, {"a": {"loss": 0.5}})
    assert partial.clients == ("b", "a")


@pytest.mark.parametrize(
    ("weights", "metrics", "reason"),
    [
        ({"a": 1.0}, {}, "weight"),
        ({"a": 1.0, "b": 1.0}, {}, "weight"),
        ({"a": 1.0, "b": 2.0, "c": 1.0}, {}, "weight"),
        ({"a": 1.0, "b": math.nan}, {}, "weight"),
        ({"a": 1.0, "b": 2.0}, {"c": {"loss": 1.0}}, "malformed"),
    ],
)
def test_a_partial_sum_that_contradicts_itself_is_refused(weights: dict, metrics: dict, reason: str) -> None:
    with pytest.raises(LayoutError) as caught:
        PartialSum(sum_of(1, 2), weights, metrics)
    assert caught.value.reason == reason


def test_mean_of_metrics_by_hand() -> None:
    rows = [(1.0, {"loss": 2.0, "accuracy": 0.5}), (3.0, {"loss": 4.0})]
    assert mean_metrics(rows) == {"accuracy": 0.5, "loss": 3.5}


def test_values_that_are_not_finite_or_absurd_count_as_not_reported() -> None:
    rows = [(1.0, {"loss": 2.0}), *((9.0, {"loss": bad, "odd": bad}) for bad in (math.nan, math.inf, -math.inf, 1e300))]
    assert mean_metrics(rows) == {"loss": 2.0}


def test_names_that_few_clients_report_do_not_fill_the_record() -> None:
    rows = [(1.0, {"loss": 1.0, "zoo": 2.0, **{f"{k}-{j:03}": 0.0 for j in range(1000)}}) for k in range(10)]
    rows += [(1.0, {"zoo": 2.0})]
    means = mean_metrics(rows)
    assert list(means) == [*(f"0-{j:03}" for j in range(198)), "loss", "zoo"]
    assert mean_metrics(reversed(rows)) == means
    assert (means["loss"], means["zoo"]) == (1.0, 2.0)


def test_no_rows_have_no_means() -> None:
    assert mean_metrics([]) == {}


@given(st.lists(st.tuples(st.floats(2.0**-16, 2.0**53), st.dictionaries(st.sampled_from("ab"), ANY_FLOAT)), max_size=9))
def test_the_mean_is_always_finite_and_within_the_values(rows: list[tuple[float, dict[str, float]]]) -> None:
    for name, mean in mean_metrics(rows).items():
        taken = [metrics[name] for _, metrics in rows if abs(metrics.get(name, math.nan)) <= 3.5e38]
        slack = 1e-12 * max(abs(value) for value in taken)
        assert min(taken) - slack <= mean <= max(taken) + slack


@given(
    st.lists(st.tuples(st.floats(0.01, 1e6), st.fixed_dictionaries({"loss": st.floats(-1e3, 1e3)})), min_size=1),
    st.randoms(use_true_random=False),
)
def test_the_mean_does_not_depend_on_order(rows: list[tuple[float, dict[str, float]]], random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert mean_metrics(shuffled) == mean_metrics(rows)
