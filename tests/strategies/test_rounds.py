"""One round's book-keeping: what counts, what is rejected under which reason, and what the record says."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from strategies.admission import Reason
from strategies.aggregators import WeightedMean
from strategies.bans import BanRules, Bans
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.local_objective import Unobserved
from strategies.population import ClientInfo, Population
from strategies.replies import Rejection
from strategies.rounds import RoundProgress, rate_of
from strategies.step_fold import StepFold
from strategies.updates import PartialSum, Update
from strategies.wire import UPDATE_NORM

MEAN = WeightedMean("examples")
PEOPLE = Population(map(ClientInfo, "abc"), [1])


def begun(rule: WeightedMean = MEAN) -> StepFold:
    return StepFold(rule, rule.start(2), Unobserved())


def update(client: str, value: float, weight: float, **metrics: float) -> Update:
    return Update(client, np.full(2, value, np.float32), weight, metrics)


def partial(values: dict[str, tuple[float, float]]) -> PartialSum:
    total = FixedPointSum(2)
    for value, weight in values.values():
        total.add(np.full(2, value, np.float32), weight)
    weights = {client: weight for client, (_, weight) in values.items()}
    return PartialSum(total, weights, {client: {"loss": weight} for client, weight in weights.items()})


def test_updates_and_sums_are_folded_and_their_clients_counted() -> None:
    step, progress = begun(), RoundProgress(1, ["a", "b", "c", "d"])
    progress.take(update("a", 1.0, 1.0, loss=8.0), step)
    progress.take(partial({"b": (2.0, 2.0), "c": (3.0, 5.0)}), step)
    progress.take(Rejection("d", Reason.NORM), step)
    np.testing.assert_array_equal(step.fold.result(), np.full(2, (1 + 4 + 15) / 8, np.float32))
    record = progress.record(None, None)
    assert record.accepted == ("a", "b", "c") and record.rejected == {"norm": 1}
    assert record.train == {"loss": (8 * 1 + 2 * 2 + 5 * 5) / 8}


def test_what_the_fold_refuses_is_rejected_whole_and_changes_nothing() -> None:
    uniform = WeightedMean("uniform")
    step, progress = begun(uniform), RoundProgress(1, ["a", "b", "c"])
    progress.take(update("a", 1.0, 7.0), step)
    progress.take(partial({"b": (2.0, 2.0), "c": (3.0, 5.0)}), step)
    assert progress.rejected == {"weight": 2}
    np.testing.assert_array_equal(step.fold.result(), np.ones(2, np.float32))
    assert progress.counted == [("a", 1.0, {})]


def test_a_sum_that_would_leave_its_range_is_rejected_as_norm() -> None:
    step, progress = begun(), RoundProgress(1, ["a", "b"])
    progress.take(update("a", 2.0**30, 1.0), step)
    progress.take(update("b", 2.0**30, 1.0), step)
    assert progress.rejected == {"norm": 1} and [client for client, _, _ in progress.counted] == ["a"]
    np.testing.assert_array_equal(step.fold.result(), np.full(2, 2.0**30, np.float32))


def test_only_the_first_rejections_of_a_round_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    progress = RoundProgress(4, [])
    with caplog.at_level(logging.WARNING):
        progress.reject(Rejection("0", Reason.ERROR, "ValueError: no disk"))
        progress.reject_unanswered([str(k) for k in range(1, 1000)])
    assert len(caplog.records) == 3
    assert caplog.records[0].getMessage() == "Round 4: rejected (error) client 0: ValueError: no disk"
    assert progress.rejected == {"error": 1, "late": 999}
    assert str(progress.first_rejection) == "client 0: ValueError: no disk"


def test_replies_that_come_again_are_counted_beside_the_rejections_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    progress = RoundProgress(4, ["a", "b"], bans=Bans(BanRules(after=1)))
    with caplog.at_level(logging.WARNING):
        for clients in ([], ["a", "b"], ["a"]):
            progress.note_repeated(clients)
    assert caplog.messages == ["Round 4: replies came again, as of client a; the first alone is taken"]
    record = progress.record(None, None)
    assert (record.repeated, dict(record.rejected), progress.first_rejection) == (3, {}, None)
    assert not progress.bans.banned(5)


def test_a_round_tells_its_bans_what_became_of_each_client() -> None:
    """Who counts is cleared, also in a sum; who is rejected by its own doing is held to account, also by the fold."""
    bans = Bans(BanRules(after=2))
    for client in "abcdef":
        bans.hold_against(client, Reason.ERROR, 1)
    step, progress = begun(), RoundProgress(2, list("abcdef"), bans=bans)
    progress.take(update("a", 1.0, 1.0), step)
    progress.take(partial({"b": (1.0, 1.0)}), step)
    progress.take(update("c", 2.0**31, 1.0), step)  # beyond the range of the sum
    progress.take(Rejection("d", Reason.DTYPE), step)
    progress.reject_unanswered(["e"])
    assert bans.state()["clients"].tolist() == ["c", "d", "e", "f"]
    assert bans.banned(3) == {"c", "d"}
    following = RoundProgress(3, bans=bans)
    assert following.note_banned(Population([ClientInfo("a"), ClientInfo("d")], [1])) == {"c", "d"}
    assert following.banned == following.record(None, None).banned == 1  # "c" is gone


def test_why_a_round_has_no_clients() -> None:
    assert "no node with clients" in RoundProgress(1).shortfall(1, MEAN)
    assert "no client is online" in RoundProgress(1, population=PEOPLE).shortfall(1, MEAN)
    assert "is banned ('ban-after'" in RoundProgress(1, population=PEOPLE, banned=2).shortfall(1, MEAN)
    drawn = RoundProgress(1, population=PEOPLE, banned=2, offered=1)
    assert drawn.drawn_empty and "chance has drawn no client" in drawn.shortfall(1, MEAN)
    assert not RoundProgress(1, ["a"], population=PEOPLE, offered=3).drawn_empty


WORLDLY = [Rejection(str(k), reason) for k, reason in enumerate((Reason.LATE, Reason.DROPOUT, Reason.SURPLUS) * 2)]


def test_what_a_simulated_world_does_to_its_clients_is_counted_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    progress = RoundProgress(4, simulated=True)
    with caplog.at_level(logging.DEBUG, logger="strategies.rounds"):
        for rejection in (*WORLDLY, Rejection("9", Reason.NOT_FINITE), Rejection("10", Reason.ERROR)):
            progress.reject(rejection)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [warning[:31] for warning in warnings] == [
        "Round 4: rejected (not-finite) ",
        "Round 4: rejected (error) clien",
    ]
    assert len(caplog.records) == 8
    assert progress.rejected == {"late": 2, "dropout": 2, "surplus": 2, "not-finite": 1, "error": 1}
    assert progress.first_rejection == Rejection("9", Reason.NOT_FINITE)


def test_in_real_life_who_is_late_or_lost_is_worth_a_warning_but_not_who_was_not_needed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    progress = RoundProgress(4)
    with caplog.at_level(logging.WARNING):
        for rejection in reversed(WORLDLY):
            progress.reject(rejection)
    assert ["surplus" in record.getMessage() for record in caplog.records] == [False] * 3
    assert progress.first_rejection == WORLDLY[4]


def test_where_the_world_alone_rejects_its_first_rejection_is_told() -> None:
    progress = RoundProgress(4, simulated=True)
    for rejection in WORLDLY:
        progress.reject(rejection)
    assert progress.first_rejection == WORLDLY[0]


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


def test_a_round_with_a_goal_is_complete_when_so_many_count() -> None:
    step, progress = begun(), RoundProgress(1, ["a", "b", "c", "d", "e"], goal=2)
    progress.take(update("a", 1.0, 1.0), step)
    progress.take(Rejection("b", Reason.NORM), step)
    assert not progress.complete
    progress.take(update("c", 3.0, 1.0), step)
    assert progress.complete
    progress.take(update("d", 100.0, 1.0), step)
    progress.take(Rejection("f", Reason.ERROR), step)
    progress.reject_unanswered(["e"])
    np.testing.assert_array_equal(step.fold.result(), np.full(2, 2.0, np.float32))
    assert progress.rejected == {"norm": 1, "surplus": 2, "error": 1}
    assert progress.record(None, None).accepted == ("a", "c")


def test_a_partial_sum_counts_whole_or_not_at_all() -> None:
    step, progress = begun(), RoundProgress(1, ["a", "b", "c", "d"], goal=1)
    progress.take(partial({"a": (1.0, 1.0), "b": (3.0, 1.0)}), step)
    progress.take(partial({"c": (9.0, 1.0), "d": (9.0, 1.0)}), step)
    assert [client for client, _, _ in progress.counted] == ["a", "b"] and progress.rejected == {"surplus": 2}


def test_without_a_goal_a_round_wants_all() -> None:
    step, progress = begun(), RoundProgress(1, ["a"])
    progress.take(update("a", 1.0, 1.0), step)
    assert not progress.complete


@pytest.mark.parametrize(
    ("cohort", "population", "good", "needed", "why"),
    [
        ([], 0, 0, 1, "no node with clients was connected"),
        ([], 5, 0, 1, "no client is online, and none will ever be ('availability', 'availability-trace')"),
        (["a", "b"], 2, 0, 0, "0 of 2 clients gave a good reply, but 1 are needed ('min-replies')"),
        (["a", "b"], 2, 1, 2, "1 of 2 clients gave a good reply, but 2 are needed ('min-replies')"),
        (["a", "b"], 2, 1, 1, ""),
    ],
)
def test_why_a_round_falls_short(cohort: list[str], population: int, good: int, needed: int, why: str) -> None:
    progress = RoundProgress(1, cohort, population=Population(map(ClientInfo, PEOPLE.ids[:population]), [1]))
    progress.counted.extend(("a", 1.0, {}) for _ in range(good))
    assert progress.shortfall(needed, MEAN) == why


def test_a_run_ends_with_the_last_skipped_round_it_may_have() -> None:
    progress = RoundProgress(1)
    progress.end_run_if_hopeless(0, 0)
    progress.skip("nobody came")
    progress.end_run_if_hopeless(1, 2)
    with pytest.raises(StrategyError, match=r"after 2 skipped rounds in a row .* the last because nobody came"):
        progress.end_run_if_hopeless(2, 2)


def test_staleness_is_told_by_mean_and_largest() -> None:
    progress = RoundProgress(1)
    assert progress.record(None, None).staleness is None
    progress.staleness.extend([0, 3, 1])
    assert progress.record(None, None).staleness == {"mean": pytest.approx(4 / 3), "largest": 3.0}


def test_norms_of_updates_that_count_of_a_sum_as_it_tells_them() -> None:
    step, progress = begun(), RoundProgress(1, list("abcd"))
    progress.take(Update("a", np.array([3.0, 4.0], np.float32), 7.0), step)
    progress.take(update("b", -5.0, 2.0), step)
    silent = partial({"c": (2.0, 2.0)})
    progress.take(silent, step)
    progress.take(replace(silent, metrics={"c": {UPDATE_NORM: 2.5}}), step)
    progress.take(Rejection("d", Reason.NORM), step)
    assert progress.record(None, None).norms == pytest.approx((5.0, 5 * 2**0.5, 2.5))


def test_norms_and_groups_are_withheld_as_all_that_tells_of_single_clients() -> None:
    people = Population([ClientInfo("a", region="north"), ClientInfo("b", region="south")], [1])
    step, progress = begun(), RoundProgress(1, ["a"], withheld=True, population=people)
    progress.take(update("a", 1.0, 1.0), step)
    record = progress.record(None, None)
    assert len(progress.counted) == 1 and record.norms == () and record.diversity is None


def test_a_record_tells_who_was_there_and_of_which_kinds() -> None:
    kinds = [ClientInfo("a", region="north"), ClientInfo("b", region="south"), ClientInfo("c", region="south")]
    step, progress = begun(), RoundProgress(1, ["a", "b"], population=Population(kinds, [1]), offered=3)
    progress.take(update("b", 1.0, 1.0), step)
    record = progress.record(None, None)
    assert record.offered == 3 and record.diversity is not None
    assert record.diversity["regions"]["groups"]["south"] == {"clients": 2, "selected": 1, "counted": 1}


def test_the_learning_rate_of_settings_is_a_number_or_not_known() -> None:
    assert rate_of({"learning-rate": 1}) == 1.0
    assert rate_of({"learning-rate": "fast"}) is None and rate_of({}) is None
