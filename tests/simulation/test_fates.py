"""Who finishes, is late, lost or not needed: by hand, and against a brute force that walks through time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.fates import Fates, Terms, Work, fates

NEVER = math.inf


def fate(
    times: list[float],
    terms: Terms,
    *,
    network: float = 0.0,
    lost: list[float] | None = None,
    rank: object = None,
    done: list[float] | None = None,
) -> Fates:
    compute = np.array(times)
    work = Work(
        compute,
        np.full(len(times), network),
        np.array(lost or [NEVER] * len(times)),
        np.arange(len(times), dtype=float) if rank is None else np.array(rank, float),
        np.array(done or [1.0] * len(times)),
    )
    return fates(work, terms)


def test_without_terms_all_count_and_the_slowest_ends_the_round() -> None:
    done = fate([3.0, 1.0, 2.0], Terms(), network=0.5)
    assert done.reasons == ["", "", ""]
    assert done.answered.tolist() == [3.5, 1.5, 2.5]
    assert (done.end, done.shares.tolist()) == (3.5, [1, 1, 1])


def test_a_world_without_durations_is_over_at_once() -> None:
    assert fate([0.0, 0.0], Terms()).end == 0.0
    assert fate([], Terms(deadline=5.0, goal=3)).end == 0.0


def test_who_takes_longer_than_the_deadline_is_late_and_awaited_until_then() -> None:
    done = fate([3.0, 10.0, 4.0], Terms(deadline=4.0))
    assert done.reasons == ["", "late", ""]
    assert done.answered.tolist() == [3.0, 4.0, 4.0]
    assert done.end == 4.0


def test_with_everybody_in_time_the_round_does_not_last_until_the_deadline() -> None:
    assert fate([3.0, 2.0], Terms(deadline=100.0)).end == 3.0


def test_the_first_to_finish_end_the_round_and_the_others_are_surplus() -> None:
    done = fate([5.0, 1.0, 9.0, 2.0], Terms(goal=2))
    assert done.reasons == ["surplus", "", "surplus", ""]
    assert done.answered.tolist() == [2.0, 1.0, 2.0, 2.0]
    assert done.end == 2.0


def test_of_equally_fast_clients_the_rank_decides() -> None:
    assert fate([1.0, 1.0, 1.0], Terms(goal=1), rank=[0.7, 0.9, 0.2]).reasons == ["surplus", "surplus", ""]


def test_a_dropout_is_noticed_at_once_or_at_the_deadline() -> None:
    times, lost = [5.0, 2.0, 4.0], [1.5, NEVER, 3.0]
    at_once = fate(times, Terms(), lost=lost)
    assert at_once.reasons == ["dropout", "", "dropout"]
    assert (at_once.answered.tolist(), at_once.end) == ([1.5, 2.0, 3.0], 3.0)
    waited = fate(times, Terms(deadline=20.0), lost=lost)
    assert (waited.answered.tolist(), waited.end) == ([20.0, 2.0, 20.0], 20.0)


def test_nobody_waits_for_the_missing_once_enough_have_finished() -> None:
    done = fate([5.0, 2.0, 40.0, 1.0], Terms(deadline=20.0, goal=2), lost=[1.5, NEVER, NEVER, NEVER])
    assert done.reasons == ["dropout", "", "late", ""]
    assert (done.answered.tolist(), done.end) == ([2.0, 2.0, 2.0, 1.0], 2.0)


def test_where_too_few_finish_all_of_them_count_and_the_deadline_ends_the_round() -> None:
    done = fate([1.0, 30.0, 2.0], Terms(deadline=20.0, goal=3))
    assert (done.reasons, done.end) == (["", "late", ""], 20.0)


def test_nobody_is_waited_for_longer_than_the_patience() -> None:
    done = fate([1.0, 700.0], Terms(patience=600.0))
    assert (done.reasons, done.answered.tolist()) == (["", "late"], [1.0, 600.0])


def test_stragglers_may_send_what_they_have_done_when_they_must_send() -> None:
    done = fate([3.0, 16.0, 8.0], Terms(deadline=10.0, partial=True), network=2.0)
    assert done.reasons == ["", "", ""]
    assert done.shares.tolist() == [1.0, 0.5, 1.0]
    assert done.answered.tolist() == [5.0, 10.0, 10.0]


def test_who_cannot_even_send_in_time_is_late_all_the_same() -> None:
    assert fate([3.0], Terms(deadline=10.0, partial=True), network=10.0).reasons == ["late"]


def test_a_straggler_that_is_lost_before_the_deadline_sends_nothing() -> None:
    terms = Terms(deadline=10.0, partial=True)
    assert fate([100.0, 100.0], terms, lost=[9.0, 50.0]).reasons == ["dropout", ""]


def test_who_gets_only_a_part_done_in_its_time_is_late_or_sends_the_part() -> None:
    dropped = fate([3.0, 5.0, 2.0], Terms(), done=[1.0, 0.35, 0.5])
    assert dropped.reasons == ["", "late", "late"]
    assert dropped.answered.tolist() == [3.0, 5.0, 2.0]
    kept = fate([3.0, 5.0, 2.0], Terms(partial=True), done=[1.0, 0.35, 0.5])
    assert (kept.reasons, kept.shares.tolist()) == (["", "", ""], [1.0, 0.35, 0.5])
    assert (kept.answered.tolist(), kept.end) == ([3.0, 5.0, 2.0], 5.0)


def test_who_is_slow_and_gets_only_a_part_done_sends_a_part_of_the_part() -> None:
    done = fate([16.0, 3.0], Terms(deadline=10.0, partial=True), network=2.0, done=[0.5, 0.5])
    assert done.shares.tolist() == [0.25, 0.5]
    assert fate([16.0, 3.0], Terms(deadline=10.0), network=2.0, done=[0.5, 0.5]).answered.tolist() == [10.0, 5.0]


def test_a_client_without_work_can_be_lost_too() -> None:
    assert fate([0.0, 0.0], Terms(), lost=[0.0, NEVER]).reasons == ["dropout", ""]


seconds = st.integers(0, 8).map(float)
client = st.tuples(seconds, seconds, st.one_of(st.just(NEVER), seconds), st.sampled_from([1.0, 1.0, 0.5]))
terms = st.builds(
    Terms,
    deadline=st.integers(0, 9).map(float),
    goal=st.integers(0, 5),
    patience=st.sampled_from([NEVER, 5.0, 10.0]),
    partial=st.booleans(),
)


def event(compute: float, network: float, lost: float, done: float, terms: Terms) -> tuple[float, str]:
    """When the server hears of a client that it waits for, and what."""
    limit = min([terms.patience, *([terms.deadline] if terms.deadline else [])])
    due = compute + network
    if due > limit and terms.partial and terms.deadline and network < limit:
        due = limit
    if lost <= due and lost <= limit:
        return terms.deadline or lost, "dropout"
    if due > limit:
        return limit, "late"
    return due, "" if done == 1 or terms.partial else "late"


@given(st.lists(client, max_size=8), terms, st.randoms(use_true_random=False))
def test_against_events_in_a_queue(
    clients: list[tuple[float, float, float, float]], terms: Terms, random: object
) -> None:
    rank = list(range(len(clients)))
    random.shuffle(rank)  # type: ignore[attr-defined]
    events = [(*event(*client, terms), rank[index], index) for index, client in enumerate(clients)]
    events.sort(key=lambda entry: (entry[0], entry[2]))
    reasons = {index: what for _, what, _, index in events}
    finishers = [(time, index) for time, what, _, index in events if not what]
    end = max((time for time, *_ in events), default=0.0)
    if terms.goal and len(finishers) >= terms.goal:
        end = finishers[terms.goal - 1][0]
        reasons.update((index, "surplus") for _, index in finishers[terms.goal :])
    compute, network, lost, part = (np.array([client[column] for client in clients]) for column in range(4))
    done = fates(Work(compute, network, lost, np.array(rank, float), part), terms)
    assert done.reasons == [reasons[index] for index in range(len(clients))]
    assert done.end == end
    answered = {index: min(time, end) for time, _, _, index in events}
    assert done.answered.tolist() == [answered[index] for index in range(len(clients))]
    assert done.answered.max(initial=0.0) == done.end


@given(st.lists(client, min_size=1, max_size=8), st.integers(1, 9).map(float))
def test_a_partial_share_is_what_fits_before_the_deadline(
    clients: list[tuple[float, float, float, float]], deadline: float
) -> None:
    compute, network = (np.array([client[column] for client in clients]) for column in range(2))
    never = np.full(len(clients), NEVER)
    done = fates(Work(compute, network, never, never, np.ones(len(clients))), Terms(deadline, partial=True))
    for reason, share, training, sending in zip(done.reasons, done.shares, compute, network, strict=True):
        if reason:
            assert sending >= deadline
        elif share < 1:
            assert share * training + sending == pytest.approx(deadline)
        else:
            assert training + sending <= deadline


@pytest.mark.parametrize("size", [1, 7, 300])
def test_the_shares_of_a_cohort_of_any_size_lie_above_zero(size: int) -> None:
    compute = np.linspace(0.1, 900.0, size)
    done = fates(
        Work(compute, np.full(size, 0.5), np.full(size, NEVER), np.zeros(size), np.ones(size)),
        Terms(deadline=1.0, partial=True),
    )
    assert ((done.shares > 0) & (done.shares <= 1)).all()
    assert set(done.reasons) == {""}
