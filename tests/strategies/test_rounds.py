"""One round's book-keeping: what counts, what is rejected under which reason, and what the record says."""

import logging

import numpy as np
import pytest

from strategies.admission import Reason
from strategies.aggregators import WeightedMean
from strategies.fixed_point import FixedPointSum
from strategies.replies import Rejection
from strategies.rounds import RoundProgress
from strategies.updates import PartialSum, Update

MEAN = WeightedMean("examples")


def update(client: str, value: float, weight: float, **metrics: float) -> Update:
    return Update(client, np.full(2, value, np.float32), weight, metrics)


def partial(values: dict[str, tuple[float, float]]) -> PartialSum:
    total = FixedPointSum(2)
    for value, weight in values.values():
        total.add(np.full(2, value, np.float32), weight)
    weights = {client: weight for client, (_, weight) in values.items()}
    return PartialSum(total, weights, {client: {"loss": weight} for client, weight in weights.items()})


def test_updates_and_sums_are_folded_and_their_clients_counted() -> None:
    fold, progress = MEAN.start(2), RoundProgress(1, ["a", "b", "c", "d"])
    progress.take(update("a", 1.0, 1.0, loss=8.0), MEAN, fold)
    progress.take(partial({"b": (2.0, 2.0), "c": (3.0, 5.0)}), MEAN, fold)
    progress.take(Rejection("d", Reason.NORM), MEAN, fold)
    np.testing.assert_array_equal(fold.result(), np.full(2, (1 + 4 + 15) / 8, np.float32))
    record = progress.record(None, None)
    assert record.accepted == ("a", "b", "c") and record.rejected == {"norm": 1}
    assert record.train == {"loss": (8 * 1 + 2 * 2 + 5 * 5) / 8}


def test_what_the_fold_refuses_is_rejected_whole_and_changes_nothing() -> None:
    uniform = WeightedMean("uniform")
    fold, progress = uniform.start(2), RoundProgress(1, ["a", "b", "c"])
    progress.take(update("a", 1.0, 7.0), uniform, fold)
    progress.take(partial({"b": (2.0, 2.0), "c": (3.0, 5.0)}), uniform, fold)
    assert progress.rejected == {"weight": 2}
    np.testing.assert_array_equal(fold.result(), np.ones(2, np.float32))
    assert progress.counted == [("a", 1.0, {})]


def test_a_sum_that_would_leave_its_range_is_rejected_as_norm() -> None:
    fold, progress = MEAN.start(2), RoundProgress(1, ["a", "b"])
    progress.take(update("a", 2.0**30, 1.0), MEAN, fold)
    progress.take(update("b", 2.0**30, 1.0), MEAN, fold)
    assert progress.rejected == {"norm": 1} and [client for client, _, _ in progress.counted] == ["a"]
    np.testing.assert_array_equal(fold.result(), np.full(2, 2.0**30, np.float32))


def test_only_the_first_rejections_of_a_round_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    progress = RoundProgress(4, [])
    with caplog.at_level(logging.WARNING):
        progress.reject(Rejection("0", Reason.ERROR, "ValueError: no disk"))
        progress.reject_unanswered([str(k) for k in range(1, 1000)])
    assert len(caplog.records) == 3
    assert caplog.records[0].getMessage() == "Round 4: rejected (error) client 0: ValueError: no disk"
    assert progress.rejected == {"error": 1, "late": 999}
    assert str(progress.first_rejection) == "client 0: ValueError: no disk"


def test_seconds_of_a_phase_add_up_also_when_it_fails() -> None:
    progress = RoundProgress(1)
    with pytest.raises(KeyError), progress.phase("train"):
        raise KeyError
    first = progress.seconds["train"]
    with progress.phase("train"):
        pass
    assert progress.seconds["train"] > first > 0
    assert progress.record(None, None).seconds["total"] >= progress.seconds["train"]


def test_a_skipped_round_is_recorded_as_such() -> None:
    progress = RoundProgress(1, ["a"])
    assert progress.record(None, None).skipped is False
    progress.skipped = "nobody came"
    assert progress.record({"loss": 1.0}, None).skipped is True
