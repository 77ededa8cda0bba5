"""The requests of a phase and the replies to them: seeds, names, bytes, and who has not been answered for."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict

from simulation.inline import InlineGrid
from strategies import wire
from strategies.exchange import NOT_SENT
from strategies.population import ClientInfo, Population
from strategies.requests import Correspondence, RequestWriter, packs_for
from strategies.seeding import child_seed
from tests.strategies.test_wire import pushed_bytes
from tests.strategies.toy_federation import app, message_with, over_the_wire, start_arrays


def writer(kind: str = "train", arrays: ArrayRecord | None = None) -> RequestWriter:
    message_with(RecordDict())
    return RequestWriter(kind, 3, 11, arrays or start_arrays(), {"learning-rate": 0.5, "round": -1}, ttl=60.0)


def correspondence(packs: list[list[str]]) -> Correspondence:
    arrays = start_arrays()
    requests = [(writer(arrays=arrays).write(node, clients), clients) for node, clients in enumerate(packs, 1)]
    return Correspondence(arrays, requests)


def sent(packs: list[list[str]]) -> Correspondence:
    letters = correspondence(packs)
    for position, message in enumerate(letters.messages):
        message.metadata.__dict__["_message_id"] = f"id-{position}"
    return letters


def test_a_request_says_which_clients_with_which_seeds_in_which_round() -> None:
    request = over_the_wire(writer().write(5, ["b", "a"]))
    config = dict(wire.config_of(request))
    assert config == {
        "learning-rate": 0.5,
        "round": 3,  # what the strategy says of a round goes before what a user's settings say
        "clients": ["b", "a"],
        "seeds": [child_seed(11, 3, "b", "train"), child_seed(11, 3, "a", "train")],
    }
    metadata = request.metadata
    assert (metadata.dst_node_id, metadata.message_type, metadata.group_id, metadata.ttl) == (5, "train", "3", 60.0)
    np.testing.assert_array_equal(request.content["arrays"]["bias"].numpy(), [0.25])


def test_where_clients_keep_state_a_request_says_which_of_it_counted() -> None:
    keeping = replace(writer(), committed={"a": 2, "c": 1})
    assert wire.int_list(wire.config_of(over_the_wire(keeping.write(5, ["b", "a"]))), "committed") == [0, 2]


def test_seeds_differ_between_training_and_evaluation() -> None:
    seeds = [wire.int_list(wire.config_of(writer(kind).write(1, ["a"])), "seeds") for kind in ("train", "evaluate")]
    assert seeds[0] != seeds[1]


def test_every_reply_comes_with_the_clients_that_were_asked() -> None:
    letters = sent([["a", "b"], ["c"], ["d", "e"]])
    replies = [Message(RecordDict(), reply_to=letters.messages[position]) for position in (2, 0)]
    assert [asked for _, asked in letters.answered(replies)] == [["d", "e"], ["a", "b"]]
    assert letters.unanswered() == ["c"]
    assert letters.bytes_up == sum(map(pushed_bytes, replies))


def test_a_second_reply_is_noted_and_one_to_nothing_ignored() -> None:
    letters = sent([["a"], ["b"]])
    first = Message(RecordDict(), reply_to=letters.messages[0])
    stranger = Message(RecordDict(), reply_to=first)
    assert [asked for _, asked in letters.answered([first, first, stranger])] == [["a"]]
    assert letters.repeated == ["a"] and letters.unanswered() == ["b"]


def test_without_any_reply_all_are_unanswered_even_where_nothing_was_sent() -> None:
    for letters in (sent([["a"], ["b", "c"]]), correspondence([["a"], ["b", "c"]])):
        assert list(letters.answered([])) == []
        assert letters.unanswered() == ["a", "b", "c"]


def test_bytes_down_are_those_of_all_messages_and_none_where_there_are_none() -> None:
    letters = correspondence([["0"], ["1"]])
    grid = InlineGrid.of(app(), 2)
    assert len(list(letters.exchange(grid, 10.0))) == 2
    assert letters.bytes_down == sum(map(pushed_bytes, letters.messages))
    empty = correspondence([])
    assert list(empty.exchange(grid, 10.0)) == [] and empty.bytes_down == 0


def test_ten_thousand_replies_are_matched_in_no_time() -> None:
    letters = sent([[str(k)] for k in range(10_000)])
    replies = [Message(RecordDict(), reply_to=message) for message in letters.messages]
    assert sum(1 for _ in letters.answered(replies)) == 10_000


def test_a_message_that_could_not_be_sent_has_a_reply_of_no_bytes() -> None:
    class FullGrid(InlineGrid):
        """As Flower's grid where the payload is too large: ids are given, but none comes back."""

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            list(super().push_messages(messages))
            return []

    letters = correspondence([["a"], ["b", "c"]])
    grid = FullGrid(app(), InlineGrid.of(app(), 3).node_configs)
    replies = list(letters.answered(letters.exchange(grid, 10.0**6)))
    assert [(reply.error.code, clients) for reply, clients in replies] == [(NOT_SENT, ["a"]), (NOT_SENT, ["b", "c"])]
    assert letters.unanswered() == [] and letters.bytes_up == 0


# Which clients travel together.


class Packer(InlineGrid):
    """A grid that packs by itself: everybody to node 2, the longest alone."""

    def packs(self, cohort: Sequence[tuple[str, float]]) -> list[tuple[int, list[str]]]:
        self.given = dict(cohort)
        first, *others = sorted(self.given, key=lambda client: (-self.given[client], client))
        return [(2, [first]), (2, others)]


def packer() -> Packer:
    return Packer(app(), InlineGrid.of(app(), 2).node_configs)


CROWD = [ClientInfo("a", 5), ClientInfo("b", 9), ClientInfo("c", None)]


def test_a_grid_that_packs_is_asked_with_loads() -> None:
    grid = packer()
    assert packs_for(grid, Population(CROWD, [1, 2]), ["a", "b", "c"], 0) == [(2, ["b"]), (2, ["c", "a"])]
    assert grid.given == {"a": 5.0, "b": 9.0, "c": 7.0}  # whose size is unknown is taken for the average


def test_it_is_not_asked_where_it_may_not_choose() -> None:
    bound = Population(CROWD, [1, 2], {"a": [1]})
    assert packs_for(packer(), bound, ["a"], 0) == [(1, ["a"])]
    free = Population(CROWD, [1, 2])
    assert packs_for(packer(), free, ["b", "a"], 1) == free.messages(["b", "a"], 1)
    assert packs_for(InlineGrid.of(app(), 2), free, ["b", "a"], 0) == free.messages(["b", "a"])
