"""Bans: what counts as a fault, how long a ban lasts, what comes after it, and that a checkpoint holds all of it."""

import io
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.admission import Reason
from strategies.bans import NO_FAULTS, BanRules, Bans
from strategies.errors import StrategyError
from strategies.updates import State

FAULTS = sorted(set(Reason) - NO_FAULTS)


def reloaded(state: State) -> State:
    """The state as it comes back from a file of arrays, without pickle."""
    file = io.BytesIO()
    np.savez(file, **state)  # type: ignore[arg-type]
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def test_every_reason_is_a_fault_or_not() -> None:
    """A new reason has to be put into one of the two lists."""
    none = {"late", "not-sent", "dropout", "surplus", "stale", "no-reference", "too-large"}
    assert none == {reason.value for reason in NO_FAULTS}
    faults = {"error", "malformed", "shape", "dtype", "not-finite", "weight", "norm", "zeroed", "noise"}
    assert faults == {reason.value for reason in FAULTS}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_ban_lasts_for_its_rounds_and_not_longer(reason: Reason) -> None:
    bans = Bans(BanRules(after=3, rounds=4))
    for round in (1, 2, 6):  # it need not be asked in between
        assert not bans.banned(round)
        bans.hold_against("a", reason, round)
    assert [round for round in range(7, 20) if "a" in bans.banned(round)] == [7, 8, 9, 10]


@pytest.mark.parametrize("reason", sorted(NO_FAULTS))
def test_bad_luck_is_no_fault(reason: Reason) -> None:
    bans = Bans(BanRules(after=1))
    bans.hold_against("a", reason, 1)
    assert not bans.banned(2)
    assert not bans.state()["clients"].size


def test_bad_luck_in_between_does_not_clear_what_was_before() -> None:
    bans = Bans(BanRules(after=2))
    for reason in (Reason.NORM, Reason.LATE, Reason.SHAPE):
        bans.hold_against("a", reason, 1)
    assert bans.banned(2) == {"a"}


def test_a_good_update_clears_the_faults() -> None:
    bans = Bans(BanRules(after=2))
    for round in (1, 3, 5):
        bans.hold_against("a", Reason.ERROR, round)
        assert not bans.banned(round + 1)
        bans.clear("a")


def test_after_a_ban_there_is_one_chance() -> None:
    bans = Bans(BanRules(after=3, rounds=2))
    for client in ("fails", "mends"):
        for round in (1, 2, 3):
            bans.hold_against(client, Reason.ERROR, round)
    assert bans.banned(5) == {"fails", "mends"} and not bans.banned(6)
    bans.hold_against("fails", Reason.ERROR, 6)
    bans.clear("mends")
    bans.hold_against("mends", Reason.ERROR, 7)
    bans.hold_against("mends", Reason.ERROR, 8)
    assert bans.banned(8) == {"fails"} and not bans.banned(9)


def test_nobody_is_banned_unless_asked_for() -> None:
    bans = Bans()
    for round in range(100):
        bans.hold_against("a", Reason.NOT_FINITE, round)
    assert not bans.banned(100)


def test_a_ban_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Bans(BanRules(after=1, rounds=5)).hold_against("mallory", Reason.NORM, 7)
    assert caplog.messages == [
        "Client mallory is banned until round 12, as its updates were rejected again and again, the last as 'norm'"
    ]


EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, *Reason])), max_size=30)


def play(bans: Bans, events: list[tuple[str, Reason | None]], first: int) -> None:
    for round, (client, reason) in enumerate(events, first):
        if reason is None:
            bans.clear(client)
        else:
            bans.hold_against(client, reason, round)


@given(EVENTS, EVENTS, st.integers(0, 4), st.integers(1, 9))
def test_going_on_from_a_checkpoint_changes_nothing(before: list, after: list, strikes: int, rounds: int) -> None:
    rules = BanRules(strikes, rounds)
    whole, first = Bans(rules), Bans(rules)
    play(whole, [*before, *after], 1)
    play(first, before, 1)
    second = Bans.of(rules, reloaded(first.state()))
    play(second, after, 1 + len(before))
    assert {name: array.tolist() for name, array in second.state().items()} == {
        name: array.tolist() for name, array in whole.state().items()
    }
    now = 1 + len(before) + len(after)
    assert all(second.banned(round) == whole.banned(round) for round in range(now, now + 10))


@given(EVENTS, st.integers(1, 4), st.integers(1, 9))
def test_a_ban_is_what_it_is_by_its_definition(events: list, after: int, rounds: int) -> None:
    """Told from the events alone: a fault bans if the ``after`` faults up to it had no good update in between."""
    bans = Bans(BanRules(after, rounds))
    play(bans, events, 1)
    expected = set()
    for client in "abc":
        own = [(place, reason) for place, (who, reason) in enumerate(events, 1) if who == client]
        own = [(place, reason) for place, reason in own if reason not in NO_FAULTS]
        since = [place for place, reason in own if reason is None]
        faults = [place for place, reason in own if reason is not None and place > max(since, default=0)]
        if len(faults) >= after and len(events) + 1 <= faults[-1] + rounds:
            expected.add(client)
    assert set(bans.banned(len(events) + 1)) == expected


def test_an_empty_state_is_the_beginning() -> None:
    assert not Bans.of(BanRules(1), {}).banned(1)


def test_impossible_rules_are_refused() -> None:
    with pytest.raises(StrategyError, match="'ban-after' is -1, but must be 0"):
        BanRules(-1)
    with pytest.raises(StrategyError, match="'ban-rounds' is 0, but must be 1"):
        BanRules(1, 0)
