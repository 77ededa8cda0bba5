"""A grid around another: it hands on what it does not do itself, and does what it does also where nobody would look."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from simulation.inline import InlineGrid
from simulation.wrapped import WrappedGrid, is_training
from strategies.exchange import ArrivalGrid
from strategies.requests import PackingGrid
from tests.strategies import toy_federation as toy


class Counting(WrappedGrid):
    """Counts the messages that are sent."""

    sent = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        given = list(messages)
        self.sent += len(given)
        return super().push_messages(given)


def wrapped() -> Counting:
    return Counting(InlineGrid.of(toy.app(), 2))


def request(kind: str = "train", **settings: object) -> Message:
    config = ConfigRecord({"clients": ["0"], "seeds": [1], "round": 1, **settings})  # type: ignore[dict-item]
    return Message(RecordDict({"arrays": toy.start_arrays(), "config": config}), 1, kind)


def test_it_is_a_grid_with_arrivals_and_packs_only_where_the_inner_one_does() -> None:
    grid = wrapped()
    assert isinstance(grid, ArrivalGrid) and not isinstance(grid, PackingGrid)
    inner = InlineGrid.of(toy.app(), 2)
    inner.packs = lambda cohort: [(1, [client]) for client, _ in cohort]  # type: ignore[attr-defined]
    outer = WrappedGrid(inner)
    assert isinstance(outer, PackingGrid) and outer.packs([("a", 1.0)]) == [(1, ["a"])]
    with pytest.raises(TypeError, match="WrappedGrid needs a grid with next_arrivals, which object has not"):
        WrappedGrid(object())  # type: ignore[arg-type]


def test_what_it_does_not_do_the_inner_one_does() -> None:
    grid = wrapped()
    assert list(grid.get_node_ids()) == [1, 2]
    assert grid.run.run_id == grid.grid.run.run_id
    grid.set_run(grid.run)
    made = grid.create_message(RecordDict(), "train", 2, "7")
    assert (made.metadata.dst_node_id, made.metadata.group_id) == (2, "7")
    (message_id,) = grid.push_messages([request()])
    (reply,) = grid.pull_messages([message_id])
    assert reply.metadata.reply_to_message_id == message_id


def test_sending_and_receiving_goes_through_its_own_sending() -> None:
    grid = wrapped()
    replies = list(grid.send_and_receive([request(), request()], timeout=5))
    assert grid.sent == 2 and len(replies) == 2


def test_replies_that_do_not_come_in_time_are_left() -> None:
    class Slow(InlineGrid):
        def next_arrivals(self, message_ids: Iterable[str], timeout: float) -> list[Message]:
            assert 0 <= timeout <= 0.1
            return []

    assert list(WrappedGrid(Slow(toy.app(), {1: {}})).send_and_receive([request()], timeout=0.1)) == []


def test_a_training_asks_listed_clients_to_train() -> None:
    grid: Grid = wrapped()
    assert grid and is_training(request())
    assert not is_training(request("evaluate"))
    assert not is_training(Message(RecordDict({"config": ConfigRecord({})}), 1, "train"))
