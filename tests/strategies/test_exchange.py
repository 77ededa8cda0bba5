"""Sending and collecting: replies as they arrive, a deadline, and replies that cannot be decoded."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError

from simulation.inline import InlineGrid
from strategies import wire
from strategies.exchange import NOT_SENT, UNREADABLE, Exchange
from tests.strategies.toy_federation import app


@dataclass
class ScriptedGrid(InlineGrid):
    """A grid whose messages are answered after so many pulls; ``raises`` are pulls that fail, as in decoding."""

    delays: dict[int, int] = field(default_factory=dict)
    raises: dict[int, Exception] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    pulled_at_once: int = 0
    next_arrivals = None  # type: ignore[assignment]  # to be polled, as Flower's own grids are

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = list(super().push_messages(messages))
        return [message_id for position, message_id in enumerate(ids) if position not in self.lost]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ids = list(message_ids)
        self.pulled_at_once = max(self.pulled_at_once, len(ids))
        replies = []
        for message_id in ids:
            position = int(message_id.rpartition("-")[2]) - 1
            if position in self.raises:
                raise self.raises[position]
            self.delays[position] = self.delays.get(position, 0) - 1
            if self.delays[position] < 0 and message_id in self._waiting:
                request = self._waiting.pop(message_id)
                replies.append(Message(RecordDict(), reply_to=request))
        return replies


def grid_and_requests(count: int, **script: object) -> tuple[ScriptedGrid, list[Message]]:
    nodes = {node: {} for node in range(1, count + 1)}
    grid = ScriptedGrid(app(), nodes, **script)  # type: ignore[arg-type]
    return grid, [Message(RecordDict(), node, "train", ttl=60.0) for node in nodes]


def answered(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def test_replies_come_in_the_order_of_their_arrival() -> None:
    grid, requests = grid_and_requests(5, delays={0: 4, 1: 2, 2: 0, 3: 1, 4: 3})
    exchange = Exchange(grid, requests, timeout=30)
    assert answered(exchange.replies()) == [3, 4, 2, 5, 1]
    assert exchange.unanswered() == []


def test_replies_are_pulled_one_at_a_time_so_that_only_one_is_in_memory() -> None:
    grid, requests = grid_and_requests(20)
    assert len(answered(Exchange(grid, requests, timeout=30).replies())) == 20
    assert grid.pulled_at_once == 1


def test_the_deadline_leaves_out_what_has_not_come_and_keeps_what_has(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("strategies.exchange.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("strategies.exchange.time.sleep", lambda seconds: clock.append(clock.pop() + seconds))
    grid, requests = grid_and_requests(3, delays={1: 10**9})
    exchange = Exchange(grid, requests, timeout=100)
    assert answered(exchange.replies()) == [1, 3]
    assert clock == [pytest.approx(100.0)]  # slept until the deadline, and not beyond
    assert exchange.unanswered() == [requests[1]]


def test_a_deadline_of_zero_takes_what_is_there() -> None:
    grid, requests = grid_and_requests(2, delays={1: 5})
    assert answered(Exchange(grid, requests, timeout=0).replies()) == [1]


def test_no_requests_no_waiting() -> None:
    grid, _ = grid_and_requests(1)
    assert answered(Exchange(grid, [], timeout=100).replies()) == []


@pytest.mark.parametrize(
    "error",
    [
        TypeError("Invalid arguments for Array"),
        KeyError("arraychunk_ids"),
        UnexpectedObjectContentError("abc", "no head"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        AttributeError("'Array' object has no attribute 'metadata'"),
        RecursionError("maximum recursion depth exceeded"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_reply_that_flower_cannot_decode_is_the_error_of_that_one(error: Exception) -> None:
    grid, requests = grid_and_requests(4, raises={1: error})
    replies = list(Exchange(grid, requests, timeout=30).replies())
    assert answered(replies) == [1, 2, 3, 4]
    assert [reply.has_error() for reply in replies] == [False, True, False, False]
    assert type(error).__name__ in replies[1].error.reason
    assert replies[1].error.code == UNREADABLE
    assert replies[1].metadata.reply_to_message_id == requests[1].metadata.message_id


def test_a_lost_connection_is_no_reply_and_ends_the_exchange() -> None:
    grid, requests = grid_and_requests(2, raises={0: ConnectionError("refused")})
    with pytest.raises(ConnectionError):
        answered(Exchange(grid, requests, timeout=30).replies())


def test_a_reply_that_claims_to_answer_another_message_is_the_error_of_its_sender() -> None:
    class Impostor(ScriptedGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            for reply in super().pull_messages(message_ids):
                if reply.metadata.src_node_id == 2:
                    reply.metadata.__dict__["_reply_to_message_id"] = "message-1"
                yield reply

    _, requests = grid_and_requests(3)
    grid = Impostor(app(), {1: {}, 2: {}, 3: {}})
    replies = list(Exchange(grid, requests, timeout=30).replies())
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert "claims to answer another message" in replies[1].error.reason


def test_a_reply_that_comes_again_is_handed_on_and_one_to_another_message_beside_it_is_not() -> None:
    class Echo(ScriptedGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            for reply in super().pull_messages(message_ids):
                other = Message(RecordDict(), reply_to=reply)
                yield from (other, reply, reply) if reply.metadata.src_node_id == 2 else (reply,)

    _, requests = grid_and_requests(3)
    replies = list(Exchange(Echo(app(), {1: {}, 2: {}, 3: {}}), requests, timeout=30).replies())
    assert answered(replies) == [1, 2, 2, 3] and not any(reply.has_error() for reply in replies)
    assert replies[1] is replies[2]


def test_what_could_not_be_sent_is_an_error_at_once_and_not_waited_for() -> None:
    grid, requests = grid_and_requests(3, lost={0, 2})
    exchange = Exchange(grid, requests, timeout=10**6)
    replies = list(exchange.replies())
    assert answered(replies) == [1, 3, 2]
    assert [reply.has_error() and reply.error.code for reply in replies] == [NOT_SENT, NOT_SENT, False]
    assert [reply.metadata.reply_to_message_id for reply in replies] == ["message-1", "message-3", "message-2"]
    assert exchange.unanswered() == [] and list(exchange.arrived()) == []


def test_nothing_is_waited_for_where_nothing_could_be_sent() -> None:
    """As Flower's grid has it where the messages are larger than the SuperLink takes."""
    grid, requests = grid_and_requests(2, lost={0, 1})
    exchange = Exchange(grid, requests, timeout=10**6)
    assert answered(exchange.arrived()) == [1, 2]
    assert list(exchange.replies()) == []


def test_replies_are_not_kept() -> None:
    """A reply may be as large as the model: once it is folded, nobody may hold it any more."""
    import gc
    import weakref

    grid, requests = grid_and_requests(6)
    alive: list[weakref.ref[Message]] = []
    most = 0
    gc.freeze()  # what is looked through is what comes from here on, and not all of TensorFlow beside it
    try:
        for reply in Exchange(grid, requests, timeout=30).replies():
            reply.content["update"] = wire.array_record({"delta": np.zeros(10, np.float32)})
            alive.append(weakref.ref(reply))
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
    finally:
        gc.unfreeze()
    assert most <= 2  # the one just yielded, and the one that it replaces


# Grids that say themselves when replies arrive.


@dataclass
class PromptGrid(InlineGrid):
    """Replies arrive at the instants that a script names, by position; ``now`` is the time by its own clock."""

    instants: list[float] = field(default_factory=list)
    time: float = 0.0
    asked: list[tuple[int, float]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)

    def now(self) -> float:
        return self.time

    def set_clock(self, seconds: float) -> None:
        self.time = seconds

    def online(self, clients: Sequence[str]) -> list[str]:
        return list(clients)

    def wait_for_clients(self, banned: Collection[str] = ()) -> bool:
        return True

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [one for one in super().push_messages(messages) if int(one[8:]) - 1 not in self.lost]

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        self.asked.append((len(message_ids), timeout))
        due = {one: self.instants[int(one[8:]) - 1] for one in message_ids}
        instant = min(due.values())
        if instant > self.time + timeout:
            self.time += timeout
            return []
        self.time = instant
        ready = sorted(one for one in due if due[one] == instant)
        return [Message(RecordDict(), reply_to=self._waiting.pop(one)) for one in ready]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise AssertionError("nobody should poll this grid")


def prompt(instants: list[float], **script: object) -> tuple[PromptGrid, list[Message]]:
    nodes = {node: {} for node in range(1, len(instants) + 1)}
    grid = PromptGrid(app(), nodes, instants=instants, **script)  # type: ignore[arg-type]
    return grid, [Message(RecordDict(), node, "train", ttl=60.0) for node in nodes]


def test_a_grid_that_knows_of_arrivals_is_waited_for_and_never_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.exchange.time.sleep", lambda seconds: pytest.fail("slept"))
    grid, requests = prompt([3.0, 1.0, 3.0, 2.0])
    exchange = Exchange(grid, requests, timeout=10)
    assert answered(exchange.replies()) == [2, 4, 1, 3]
    assert grid.asked == [(4, 10.0), (3, 9.0), (2, 8.0)]  # the deadline is by the grid's own clock
    assert exchange.unanswered() == []


def test_all_of_one_instant_come_together_and_after_the_deadline_none() -> None:
    grid, requests = prompt([2.0, 1.0, 2.0, 5.0])
    exchange = Exchange(grid, requests, timeout=4)
    assert [answered(exchange.next_arrivals(4 - grid.time)) for _ in range(3)] == [[2], [1, 3], []]
    assert exchange.unanswered() == [requests[3]] and grid.time == 4.0
    grid, requests = prompt([2.0, 1.0, 2.0, 5.0])
    assert answered(Exchange(grid, requests, timeout=4).replies()) == [2, 1, 3]


def test_more_can_be_sent_while_others_are_open_and_some_be_forgotten() -> None:
    grid, requests = prompt([2.0, 9.0, 3.0, 1.0])
    exchange = Exchange(grid, requests[:2], timeout=100)
    assert answered(exchange.next_arrivals(100)) == [1]
    exchange.send(requests[2:])
    assert answered(exchange.next_arrivals(100)) == [4]
    exchange.forget(requests[1].metadata.message_id)
    assert answered(exchange.next_arrivals(100)) == [3]
    assert exchange.next_arrivals(100) == [] and exchange.unanswered() == []
    assert grid.asked[-1][0] == 1  # nothing is asked for what is forgotten or answered


def test_what_such_a_grid_did_not_take_is_an_error_at_once() -> None:
    grid, requests = prompt([1.0, 1.0], lost={0})
    replies = list(Exchange(grid, requests, timeout=5).replies())
    assert answered(replies) == [1, 2]
    assert [reply.has_error() and reply.error.code for reply in replies] == [NOT_SENT, False]


def test_a_polled_grid_can_be_sent_more_too() -> None:
    grid, requests = grid_and_requests(3, delays={0: 6, 1: 0, 2: 1})
    exchange = Exchange(grid, requests[:1], timeout=30)
    exchange.send(requests[1:])
    assert [answered(exchange.next_arrivals(30)) for _ in range(4)] == [[2], [3], [1], []]


def test_a_polled_wait_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("strategies.exchange.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("strategies.exchange.time.sleep", lambda seconds: clock.append(clock.pop() + seconds))
    grid, requests = grid_and_requests(2, delays={0: 10**9, 1: 10**9})
    exchange = Exchange(grid, requests, timeout=100)
    assert exchange.next_arrivals(7.0) == [] and clock == [pytest.approx(7.0)]
    grid.delays[1] = 0
    assert answered(exchange.next_arrivals(7.0)) == [2]
