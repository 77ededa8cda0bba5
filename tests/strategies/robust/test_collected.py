"""The rows and the fold: order of clients, blocks, means; and what every rule owes its users."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.aggregators import Aggregator, Fold, Property
from strategies.composition import Composition, Dense, NoPrivacy
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.robust import Bulyan, CenteredClipping, CoordinateMedian, GeometricMedian, Krum, TrimmedMean, collected
from strategies.robust.collected import CollectingAggregator, too_few
from strategies.samplers import UniformSampler
from strategies.server_optimizers import ServerSGD
from strategies.updates import PartialSum
from tests.strategies.robust.federations import aggregated, normal, rows_of, updates_of, whole

RULES: dict[str, CollectingAggregator] = {
    "trimmed mean": TrimmedMean(0.2, tolerated=1),
    "trimmed mean by examples": TrimmedMean(0.2, tolerated=1, weighting="examples"),
    "median": CoordinateMedian(tolerated=1),
    "geometric median": GeometricMedian(tolerated=1),
    "geometric median by examples": GeometricMedian(tolerated=1, weighting="examples"),
    "Krum": Krum(tolerated=1),
    "Multi-Krum": Krum(tolerated=1, selected=0),
    "Multi-Krum by examples": Krum(tolerated=1, selected=3, weighting="examples"),
    "Bulyan": Bulyan(tolerated=1),
    "centered clipping": CenteredClipping(clip_norm=2.0, iterations=3, tolerated=1),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def test_rows_are_cut_into_blocks_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(np.arange(15).reshape(3, 5))
    for values, widths in ((1, [1, 1, 1, 1, 1]), (6, [2, 2, 1]), (100, [5])):
        monkeypatch.setattr(collected, "VALUES_AT_A_TIME", values)
        parts, blocks = zip(*((part, block.copy()) for part, block in rows.blocks()), strict=True)
        assert [part.stop - part.start for part in parts] == widths
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), np.arange(15).reshape(3, 5))
        first_less_last = rows.by_column(lambda block: block[:, 0] - block[:, 2])
        assert first_less_last.tolist() == [-10.0] * 5 and first_less_last.dtype == np.float32


def test_a_mean_is_rounded_once() -> None:
    mean = rows_of([[2.0**24], [1.0], [1.0]]).mean(np.ones(3))  # 2^24 + 1 is no float32
    assert mean.tolist() == [(2**24 + 2) / 3] and mean.dtype == np.float32


def test_rows_can_be_chosen_and_one_be_added() -> None:
    rows = rows_of([[1.0], [2.0], [3.0]], [4.0, 5.0, 6.0]).take([2, 0])
    assert [vector.tolist() for vector in rows.vectors] == [[3.0], [1.0]] and rows.weights.tolist() == [6.0, 4.0]
    more = rows.with_row(np.array([9.0], dtype=np.float32))
    assert len(more) == 3 and more.size == 1 and more.weights.tolist() == [6.0, 4.0, 0.0]


@every_rule
def test_the_order_of_arrival_changes_no_bit(rule: CollectingAggregator) -> None:
    updates = updates_of(normal(0, 7, 40), [3, 1, 4, 1, 5, 9, 2])
    expected = aggregated(rule, updates, rule.init(40)).tobytes()
    shuffle = np.random.default_rng(1)
    for _ in range(20):
        shuffled = [updates[place] for place in shuffle.permutation(7)]
        assert aggregated(rule, shuffled, rule.init(40)).tobytes() == expected


@every_rule
def test_blocks_of_any_size_give_the_same(rule: CollectingAggregator, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = updates_of(normal(2, 7, 101), [3, 1, 4, 1, 5, 9, 2])
    expected = aggregated(rule, updates, rule.init(101))
    by_rank = not isinstance(rule, GeometricMedian | CenteredClipping)  # whose weights are sums over the blocks
    for values in (1, 7 * 3, 7 * 100, 7 * 101):
        monkeypatch.setattr(collected, "VALUES_AT_A_TIME", values)
        np.testing.assert_allclose(aggregated(rule, updates, rule.init(101)), expected, rtol=0 if by_rank else 1e-6)


@every_rule
def test_equal_updates_are_their_own_aggregate(rule: CollectingAggregator) -> None:
    vector = normal(3, 1, 9, scale=0.1)[0]
    updates = updates_of([vector] * 7, [3, 1, 4, 1, 5, 9, 2])
    np.testing.assert_allclose(aggregated(rule, updates, rule.init(9)), vector, rtol=1e-7)


WEIGHTS = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0]
# Not Bulyan: of two updates that are each other's only neighbour, the one with the smaller id is selected.
ALL_BUT_BULYAN = {name: rule for name, rule in RULES.items() if name != "Bulyan"}
every_rule_but_bulyan = pytest.mark.parametrize("rule", ALL_BUT_BULYAN.values(), ids=ALL_BUT_BULYAN)


@every_rule_but_bulyan
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_ids_do_not_matter(rule: CollectingAggregator, seed: int) -> None:
    vectors, places = normal(seed, 7, 5), np.random.default_rng(seed).permutation(7)
    expected = aggregated(rule, updates_of(vectors, WEIGHTS), rule.init(5))
    renamed = aggregated(rule, updates_of(vectors[places], [WEIGHTS[place] for place in places]), rule.init(5))
    np.testing.assert_allclose(renamed, expected, rtol=1e-5, atol=1e-6)


@every_rule
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-50, 50))
def test_where_all_updates_move_the_aggregate_moves_with_them(
    rule: CollectingAggregator, seed: int, shift: int
) -> None:
    vectors = whole(seed, 7, 5)  # which stay exact, and so do their ties
    at_home = aggregated(rule, updates_of(vectors, WEIGHTS), rule.init(5))
    away = aggregated(rule, updates_of(vectors + shift, WEIGHTS), {"center": np.full(5, shift, np.float32)})
    np.testing.assert_allclose(away - np.float32(shift), at_home, atol=2e-5)


@every_rule
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1, 2e4, width=32), place=st.integers(0, 6))
def test_one_attacker_has_no_more_influence_than_the_honest_ones_differ(
    rule: CollectingAggregator, seed: int, size: float, place: int
) -> None:
    honest = normal(seed, 7, 5)
    attacked = honest.copy()
    attacked[place] = normal(seed + 1, 1, 5)[0] * np.float32(size)
    result = aggregated(rule, updates_of(attacked), rule.init(5))
    spread = max(float(np.linalg.norm(one - other)) for one, other in permutations(np.delete(honest, place, axis=0), 2))
    center = np.delete(honest, place, axis=0).mean(axis=0)
    assert np.linalg.norm(result - center) <= 3 * spread


@every_rule
def test_it_needs_single_updates_and_takes_no_sums(rule: CollectingAggregator) -> None:
    assert rule.guarantees.needs == {Property.SINGLE_UPDATES}
    assert rule.guarantees.gives == ({Property.EQUAL_WEIGHTS} if rule.weighting == "uniform" else set())
    parts = (UniformSampler(), Dense(), rule, NoPrivacy(), ServerSGD())
    assert not Composition("test", *parts).takes_partial_sums
    total = FixedPointSum(2)
    total.add(np.ones(2, np.float32), 1.0)
    with pytest.raises(StrategyError, match="needs each client's own update"):
        rule.start(2).merge(PartialSum(total, {"a": 1.0}, {}))


@every_rule
def test_it_fits_the_protocols(rule: CollectingAggregator) -> None:
    aggregator: Aggregator = rule
    fold: Fold = aggregator.start(3, aggregator.init(3))
    assert aggregator.weight_of(updates_of([[1.0]], [7.0])[0]) == (7.0 if rule.weighting == "examples" else 1.0)
    for update in updates_of(whole(4, 7, 3)):
        fold.add(update)
    result = fold.result()
    assert result.dtype == np.float32 and result.shape == (3,)
    state = fold.state()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    assert set(state) == set(aggregator.init(3))


@every_rule
def test_it_asks_for_enough_updates_and_says_so(rule: CollectingAggregator) -> None:
    sentences = [rule.shortfall(updates) for updates in range(1, 12)]
    assert sentences[0] and sentences[-1] == ""
    least = 1 + sentences.index("")
    assert all(sentences[: least - 1]) and not any(sentences[least - 1 :])
    assert aggregated(rule, updates_of(normal(5, least, 4), [1.0] * least), rule.init(4)).shape == (4,)


@every_rule
def test_its_temporary_memory_does_not_grow_with_the_model(
    rule: CollectingAggregator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collected, "VALUES_AT_A_TIME", 2**12)
    monkeypatch.setattr(collected, "BLOCK", 2**9)
    peaks = []
    for size in (20_000, 200_000):
        updates, state = updates_of(normal(6, 11, size), [1.0] * 5 + [2.0] * 6), rule.init(size)
        aggregated(rule, updates_of(normal(6, 11, 8), [1.0] * 11), rule.init(8))  # imports and caches
        tracemalloc.start()
        aggregated(rule, updates, state)
        peaks.append(tracemalloc.get_traced_memory()[1] - 4 * size)  # beside the result itself
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000


@pytest.mark.parametrize("make", [CoordinateMedian, Bulyan, Krum, GeometricMedian, CenteredClipping, TrimmedMean])
def test_fewer_than_no_attackers_are_refused(make: type[CollectingAggregator]) -> None:
    with pytest.raises(StrategyError, match="'attackers-tolerated' is -1, but must be 0 or more"):
        make(tolerated=-1)  # type: ignore[call-arg]


@pytest.mark.parametrize("make", [Krum, GeometricMedian, TrimmedMean])
def test_unknown_weightings_are_refused(make: type[CollectingAggregator]) -> None:
    with pytest.raises(StrategyError, match="'weighting' is 'size', but must be one of \\['examples', 'uniform'\\]"):
        make(weighting="size")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("of", "name"),
    [
        (CoordinateMedian.of, "the median"),
        (Krum.one, "Krum"),
        (Bulyan.of, "Bulyan"),
        (CenteredClipping.of, "centered clipping"),
    ],
)
def test_weights_where_a_rule_knows_none_are_refused(of: object, name: str) -> None:
    assert callable(of)
    assert of({"weighting": "auto"}) == of({"weighting": "uniform"}) == of({})
    with pytest.raises(StrategyError) as caught:
        of({"weighting": "examples"})
    assert str(caught.value) == (
        f"The key 'weighting' is 'examples', but {name} counts every client the same: set it to 'auto' or 'uniform'."
    )


def test_too_few_updates_in_words() -> None:
    assert too_few("Krum", 4, "2f + 3", 11, 11) == ""
    assert too_few("Krum", 4, "2f + 3", 11, 6) == (
        "Krum tolerates f = 4 attackers ('attackers-tolerated') only among 2f + 3 = 11 updates or more, but a round "
        "has 6"
    )


def test_a_client_that_is_there_twice_counts_twice() -> None:
    """As in a buffer of FedBuff, in which a fast client has finished two trainings."""
    once, again = updates_of([[1.0], [5.0]])
    twice = [once, type(once)(once.client, np.array([7.0], np.float32), 1.0), again]
    assert aggregated(CoordinateMedian(), twice).tolist() == [5.0]
