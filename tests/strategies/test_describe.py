"""Who is there and whom they host: at the start, and when nodes come, go and come back."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.superlink.grid import HttpGrid

from simulation.inline import InlineGrid
from strategies.census import Census
from strategies.describe import NodeDescription, properties_in_common
from strategies.errors import StrategyError
from strategies.exchange import NOT_SENT
from strategies.population import ClientInfo
from tests.strategies.toy_federation import message_with, over_the_wire

Describe = Callable[[], NodeDescription | Error | RecordDict | None]


@dataclass
class LivingGrid(InlineGrid):
    """Nodes that can be added, removed and kept silent between calls; each answers with what its function says."""

    answers: dict[int, Describe] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def get_node_ids(self) -> list[int]:
        return list(self.answers)

    def pull_messages(self, message_ids: list[str]) -> list[Message]:  # type: ignore[override]
        replies = []
        for message_id in message_ids:
            request = self._waiting[message_id]
            node = request.metadata.dst_node_id
            answer = self.answers[node]() if node in self.answers else None
            if answer is None:
                continue
            del self._waiting[message_id]
            self.asked.append(node)
            content = answer.to_content() if isinstance(answer, NodeDescription) else answer
            replies.append(over_the_wire(Message(content, reply_to=request)))
        return replies


def hosts(*clients: str, **kwargs: object) -> Describe:
    description = NodeDescription(tuple(ClientInfo(client, 10) for client in clients), **kwargs)  # type: ignore[arg-type]
    return lambda: description


def silent() -> None:
    return None


def census(answers: dict[int, Describe], timeout: float = 0.05, **kwargs: object) -> Census:
    grid = LivingGrid(ClientApp(), {}, answers=answers)
    return Census(grid, timeout, **kwargs)  # type: ignore[arg-type]


def ids(census: Census) -> list[str]:
    return [client.id for client in census.population().clients]


@pytest.mark.parametrize("others", [True, False, None])
def test_a_simulation_is_one_only_if_every_node_says_so_and_none_is_reached_over_a_network(others: bool | None) -> None:
    """A node may be deployed with the --node-config of Flower's simulations: its word is not enough."""
    told = [
        hosts("a", properties={"simulated": True}),
        hosts("b", properties={} if others is None else {"simulated": others}),
    ]
    ours = census(dict(enumerate(told, 1)))
    ours.start(2, 1)
    assert ours.simulated == (others is True)
    ours.grid = HttpGrid.__new__(HttpGrid)
    assert not ours.simulated


def test_a_description_survives_the_wire() -> None:
    clients = (ClientInfo("a", 5, "phone", "eu"), ClientInfo("b", None))
    description = NodeDescription(clients, "f" * 64, "/code", "", {"input-shape": [8, 8, 1], "num-classes": 10})
    answer = message_with(description.to_content())
    assert NodeDescription.from_content(over_the_wire(answer).content) == description
    empty = message_with(NodeDescription((), problem="no data").to_content())
    assert NodeDescription.from_content(over_the_wire(empty).content) == NodeDescription((), problem="no data")


def changed(**changes: object) -> RecordDict:
    content = NodeDescription((ClientInfo("a", 5), ClientInfo("b", 6))).to_content()
    content["pack"].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (RecordDict(), "answered the describe message with something else"),
        (RecordDict({"pack": MetricRecord({})}), "something else"),
        (RecordDict({"pack": ConfigRecord({}), "properties": MetricRecord({})}), "something else"),
        (RecordDict({"pack": ConfigRecord({}), "properties": ConfigRecord({})}), "wire version None"),
        (changed(version=2), "speaks the wire version 2, but this server 1: install the same version"),
        (changed(clients=["a"]), "lists of different lengths"),
        (changed(clients="a"), "'clients' of a message must hold a list of strings"),
        (changed(region=[1, 2]), "'region' of a message must hold a list of strings"),
        (changed(**{"num-examples": [1.5, 2.0]}), "'num-examples' of a message must hold a list of integers"),
        (changed(**{"num-examples": [5, 2**53 + 1]}), r"a client with 9007199254740993 examples: .* from 0 to 2\^53"),
        (changed(**{"num-examples": [-2, 5]}), "a client with -2 examples"),
        (changed(clients=["a", "a"]), "described a client twice"),
        (changed(clients=["a", ""]), "must hold from 1 to 200 printable characters"),
        (changed(clients=["a", "b\nINFO forged"]), "must hold from 1 to 200 printable characters"),
        (changed(clients=["a", "b" * 201]), "must hold from 1 to 200 printable characters"),
    ],
)
def test_what_is_no_description_is_refused_in_a_sentence(content: RecordDict, sentence: str) -> None:
    with pytest.raises(StrategyError, match=sentence) as raised:
        NodeDescription.from_content(content)
    assert len(str(raised.value)) < 500


def test_an_unknown_number_of_examples_is_none() -> None:
    description = NodeDescription.from_content(changed(**{"num-examples": [-1, 2**53]}))
    assert [client.num_examples for client in description.clients] == [None, 2**53]


def test_what_a_node_says_is_kept_to_a_short_line_that_can_be_written() -> None:
    odd = "a\nb\x1b[2J\u2028c " + "x" * 5000
    said = NodeDescription.from_content(
        changed(**{"device-class": [odd, ""], "region": ["", odd], "fingerprint": odd, "location": odd, "problem": odd})
    )
    first, second = said.clients
    for text in (first.device_class, second.region, said.fingerprint, said.location, said.problem):
        assert text.startswith("a b [2J c xxx") and text.isprintable() and len(text) <= 500


def test_a_node_cannot_have_more_clients_than_a_server_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.describe.MAX_CLIENTS", 2)
    NodeDescription.from_content(changed())
    monkeypatch.setattr("strategies.describe.MAX_CLIENTS", 1)
    with pytest.raises(StrategyError, match="described 2 clients, but may host at most 1"):
        NodeDescription.from_content(changed())


def test_each_client_is_bound_to_its_node_in_a_deployment() -> None:
    ours = census({7: hosts("b", "a"), 9: hosts("c")})
    ours.start(2, 1)
    population = ours.population()
    assert ids(ours) == ["a", "b", "c"]
    assert population.hosts == {"a": (7,), "b": (7,), "c": (9,)}


def test_in_a_simulation_every_node_can_run_every_client() -> None:
    ours = census({7: hosts("a", "b"), 9: hosts("a", "b")})
    ours.start(2, 1)
    assert ours.population().hosts == {}


def test_two_of_three_nodes_can_host_the_same_client() -> None:
    ours = census({1: hosts("a"), 2: hosts("a"), 3: hosts("b")})
    ours.start(3, 1)
    assert ours.population().hosts == {"a": (1, 2), "b": (3,)}


def test_two_nodes_that_describe_a_client_differently_are_told_to_give_it_another_name() -> None:
    ours = census({1: hosts("a"), 2: lambda: NodeDescription((ClientInfo("a", 11),))})
    ours.start(2, 1)
    with pytest.raises(StrategyError, match=r"'a' differently \(10 and 11 examples\): give each node a 'client-id'"):
        ours.population()


def test_too_few_nodes_are_a_sentence_and_no_endless_wait() -> None:
    with pytest.raises(
        StrategyError, match=r"Only 1 of the 3 nodes asked for \('min-nodes'\) .* after 0.1 s: start more"
    ):
        census({1: hosts("a")}).start(3, 0.1)


def test_nodes_that_connect_in_time_are_waited_for() -> None:
    ours = census({})
    grid = ours.grid
    assert isinstance(grid, LivingGrid)
    calls = iter(range(100))

    def connect() -> list[int]:
        if next(calls) == 1:
            grid.answers[4] = hosts("a")
        return list(grid.answers)

    grid.get_node_ids = connect  # type: ignore[method-assign]
    ours.start(1, 10)
    assert ids(ours) == ["a"]


def test_the_server_works_while_the_nodes_describe_themselves() -> None:
    order: list[str] = []

    def answer() -> NodeDescription:
        order.append("node")
        return NodeDescription((ClientInfo("a"),))

    census({1: answer}).start(1, 1, meanwhile=lambda: order.append("server"))
    assert order == ["server", "node"]


def test_a_node_with_other_code_ends_the_start_with_what_to_do() -> None:
    ours = census(
        {1: hosts("a", fingerprint="f" * 64), 2: hosts("b", fingerprint="0" * 64, location="/other")},
        fingerprint="f" * 64,
        location="/here",
        advice="Stop the other SuperLink.",
    )
    sentence = "Node 2 runs other code (000000000000 from /other) than this run (ffffffffffff from /here). Stop the"
    with pytest.raises(StrategyError) as raised:
        ours.start(2, 1)
    assert str(raised.value).startswith(sentence)


def test_a_node_without_a_fingerprint_is_of_unknown_code() -> None:
    with pytest.raises(StrategyError, match=r"other code \(unknown from an unknown place\)"):
        census({1: hosts("a")}, fingerprint="f").start(1, 1)


def test_a_node_that_cannot_take_part_says_why() -> None:
    with pytest.raises(StrategyError, match=r"A node cannot take part: The file x\.npz does"):
        census({1: hosts(problem="The file x.npz does not exist.")}).start(1, 1)


def failed(reason: str) -> Describe:
    return lambda: Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)


def test_advice_on_other_code_is_given_where_a_node_knows_no_describe() -> None:
    stranger, advised = ClientApp(), "Do this."
    ours = Census(InlineGrid.of(stranger, 1), 10.0, "f", advice=advised)
    with pytest.raises(StrategyError, match=r"^Node 1 did not describe its clients: No query function .*\. Do this\.$"):
        ours.start(1, 1)
    with pytest.raises(StrategyError) as raised:
        census({1: failed("no module\nnamed app")}, fingerprint="f", advice=advised).start(1, 1)
    assert str(raised.value) == "Node 1 did not describe its clients: no module named app."


CANNOT_TAKE_PART = {
    "problem": (
        hosts(fingerprint="f", problem="The file x.npz is corrupt."),
        "A node cannot take part: The file x.npz",
    ),
    "error": (failed("boom"), "Node 2 did not describe its clients: boom."),
    "nonsense": (lambda: RecordDict(), "A node answered the describe message with something else."),
}


@pytest.mark.parametrize(("answer", "sentence"), CANNOT_TAKE_PART.values(), ids=CANNOT_TAKE_PART)
def test_a_node_that_cannot_take_part_does_not_end_the_start_of_others(
    answer: Describe, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers = {1: hosts("a", fingerprint="f"), 2: answer, 3: hosts("b", fingerprint="f")}
    ours = census(answers, fingerprint="f")
    with caplog.at_level(logging.WARNING):
        ours.start(2, 1)
    assert f"Left out: {sentence}" in caplog.text
    assert "have not described" not in caplog.text
    assert ours.population().hosts == {"a": (1,), "b": (3,)}
    with pytest.raises(StrategyError, match=sentence):
        census(answers, fingerprint="f").start(3, 1)


class NetworkedGrid(LivingGrid, HttpGrid):
    """Nodes that are reached over a network."""


def test_a_node_that_claims_thousands_of_clients_is_left_out_unless_it_is_simulated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With one client each, two honest nodes would be a thousandth of every cohort."""
    many = [f"sybil-{number}" for number in range(101)]
    answers = {1: hosts("a"), 2: hosts(*many, properties={"simulated": True}), 3: hosts("b")}
    ours = census(answers, max_clients=100)
    ours.start(3, 1)
    assert len(ids(ours)) == 103
    networked = Census(NetworkedGrid(ClientApp(), {}, answers=answers), 0.05, max_clients=100)
    networked.start(2, 1)
    assert ids(networked) == ["a", "b"]
    assert (
        "Node 2 says that it hosts 101 clients, but one node may host at most 100 ('max-node-clients')" in caplog.text
    )
    answers[2] = hosts(*many[:100])
    allowed = Census(NetworkedGrid(ClientApp(), {}, answers=answers), 0.05, max_clients=100)
    allowed.start(3, 1)
    assert len(ids(allowed)) == 102


def test_where_too_few_nodes_are_left_the_first_says_why() -> None:
    problems = {node: hosts(problem=f"The file {node}.npz is corrupt.") for node in (3, 1, 2)}
    with pytest.raises(StrategyError, match=r"^A node cannot take part: The file 1\.npz is corrupt\.$"):
        census({**problems, 4: hosts()}).start(1, 1)


def test_other_code_ends_the_start_whatever_else_is_wrong() -> None:
    answers = {1: hosts(fingerprint="f", problem="no data"), 2: hosts("a", fingerprint="x")}
    with pytest.raises(StrategyError, match="Node 2 runs other code"):
        census(answers, fingerprint="f").start(1, 1)


def test_a_stock_node_counts_as_one_client() -> None:
    unknown = lambda: Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no query function")  # noqa: E731
    ours = census({12: unknown, 5: unknown})
    ours.start(2, 1)
    assert ours.population().hosts == {"node-12": (12,), "node-5": (5,)}


def test_where_clients_must_keep_their_ids_a_stock_node_is_refused_and_later_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown = lambda: Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no query function")  # noqa: E731
    answers: dict[int, Describe] = {1: hosts("a"), 5: unknown}
    ours = census(answers)
    ours.start(2, 1)
    with pytest.raises(StrategyError, match=r"Node 5 does not say .* but it must not\. Let its app answer"):
        ours.require_names("it must not")
    del answers[5]
    ours.refresh()
    ours.require_names("it must not")
    answers |= {6: unknown, 7: hosts("b")}
    ours.refresh()
    assert ids(ours) == ["a", "b"] and caplog.text.count("Left out: Node 6 does not say which clients it hosts") == 1


def test_silent_nodes_are_not_waited_for_beyond_the_timeout_and_may_come_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: dict[int, Describe] = {1: hosts("a"), 2: silent}
    ours = census(answers)
    with caplog.at_level(logging.WARNING):
        ours.start(2, 1)
    assert ids(ours) == ["a"]
    assert "1 nodes have not described their clients" in caplog.text
    ours.refresh()
    assert ids(ours) == ["a"]
    answers[2] = hosts("b")
    ours.refresh()
    assert ids(ours) == ["a", "b"]


def test_nobody_who_answers_is_a_sentence() -> None:
    with pytest.raises(StrategyError, match=r"None of the nodes described its clients within 0\.05 s"):
        census({1: silent}).start(1, 1)


def test_nodes_that_vanish_and_join_between_rounds() -> None:
    answers: dict[int, Describe] = {1: hosts("a"), 2: hosts("b")}
    ours = census(answers)
    ours.start(2, 1)
    del answers[1]
    answers[3] = hosts("c")
    ours.refresh()
    assert ids(ours) == ["b", "c"]
    assert ours.population().nodes == (2, 3)
    answers[1] = hosts("a")
    ours.refresh()
    assert ids(ours) == ["a", "b", "c"]


def test_each_node_is_asked_once() -> None:
    ours = census({1: hosts("a"), 2: hosts("b")})
    ours.start(2, 1)
    for _ in range(3):
        ours.refresh()
    assert isinstance(ours.grid, LivingGrid)
    assert ours.grid.asked == [1, 2]


@pytest.mark.parametrize(
    "late",
    [
        hosts("z", fingerprint="other"),
        hosts("z", fingerprint="f", problem="no data"),
        lambda: NodeDescription((ClientInfo("a", 99),), "f"),
        lambda: Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "boom"),
        lambda: RecordDict(),
        lambda: changed(version=9),
    ],
    ids=["other-code", "problem", "conflict", "error", "nonsense", "version"],
)
def test_a_late_node_that_cannot_take_part_is_left_out_and_the_run_goes_on(
    late: Describe, caplog: pytest.LogCaptureFixture
) -> None:
    answers: dict[int, Describe] = {1: hosts("a", "b", fingerprint="f")}
    ours = census(answers, fingerprint="f")
    ours.start(1, 1)
    answers[2] = late
    with caplog.at_level(logging.WARNING):
        ours.refresh()
        ours.refresh()
    assert caplog.text.count("Left out: ") == 1
    population = ours.population()
    assert ids(ours) == ["a", "b"]
    assert population.assign(["a", "b"]) == {1: ["a", "b"]}  # and nothing goes to the node that was left out


def restarted(monkeypatch: pytest.MonkeyPatch) -> tuple[Census, dict[int, Describe], list[float]]:
    """A run of which node 1 restarted as node 2 with other data while Flower still lists its old id, and a clock."""
    clock = [1000.0]
    monkeypatch.setattr("strategies.census.time.monotonic", lambda: clock[0])
    answers: dict[int, Describe] = {1: hosts("a"), 5: hosts("c")}
    ours = census(answers)
    ours.start(2, 1)
    answers[2] = lambda: NodeDescription((ClientInfo("a", 11),))
    ours.refresh()
    assert ours.population().hosts == {"a": (1,), "c": (5,)}
    return ours, answers, clock


def test_a_node_that_contradicts_its_old_id_takes_part_as_soon_as_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, answers, _ = restarted(monkeypatch)
    del answers[1]
    ours.refresh()
    assert ours.population().hosts == {"a": (2,), "c": (5,)}
    assert ours.population()["a"].num_examples == 11


def test_a_node_that_was_left_out_is_asked_again_but_not_at_every_turn(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ours, answers, clock = restarted(monkeypatch)
    assert isinstance(ours.grid, LivingGrid)
    answers[2] = hosts("b", problem="Its data are locked.")
    caplog.clear()
    for seconds, times in ((9.9, 1), (0.2, 2), (9.9, 2), (0.2, 3)):
        clock[0] += seconds
        ours.refresh()
        assert ours.grid.asked.count(2) == times
    assert caplog.text.count("Its data are locked.") == 1  # said once, however often it is asked
    answers[2] = hosts("b")
    clock[0] += 10
    ours.refresh()
    assert ids(ours) == ["a", "b", "c"]


@pytest.mark.parametrize("code", [ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE, NOT_SENT])
def test_a_node_that_was_away_while_it_was_asked_is_asked_again(code: int) -> None:
    """Flower gives an authenticated node its old id again; left out, it would be so for the rest of the run."""
    answers: dict[int, Describe] = {1: hosts("a", fingerprint="f")}
    ours = census(answers, fingerprint="f")
    ours.start(1, 1)
    answers[2] = lambda: Error(code, "gone")
    ours.refresh()
    assert ids(ours) == ["a"]
    answers[2] = hosts("b", fingerprint="f")
    ours.refresh()
    assert ids(ours) == ["a", "b"]


def test_when_all_nodes_are_gone_they_are_waited_for() -> None:
    answers: dict[int, Describe] = {1: hosts("a")}
    ours = census(answers, timeout=10.0**6)
    ours.start(1, 1)
    del answers[1]
    calls = iter(range(100))
    grid = ours.grid

    def come_back() -> list[int]:
        if next(calls) == 2:
            answers[8] = hosts("a")
        return list(answers)

    grid.get_node_ids = come_back  # type: ignore[method-assign]
    ours.refresh()
    assert ids(ours) == ["a"] and ours.population().nodes == (8,)


def test_waiting_for_nodes_that_never_come_ends() -> None:
    answers: dict[int, Describe] = {1: hosts("a")}
    ours = census(answers, timeout=0.1)
    ours.start(1, 1)
    del answers[1]
    ours.refresh()
    assert ids(ours) == []


def test_properties_are_those_on_which_all_nodes_agree() -> None:
    same = NodeDescription((), properties={"num-classes": 10})
    more = NodeDescription((), properties={"num-classes": 10, "input-shape": [8, 8, 1]})
    assert properties_in_common([same, more]) == {"num-classes": 10, "input-shape": [8, 8, 1]}
    other = NodeDescription((), properties={"num-classes": 62})
    with pytest.raises(StrategyError, match="disagree on 'num-classes': one says 10, another 62"):
        properties_in_common([same, more, other])


def test_nodes_that_disagree_are_named_by_their_clients() -> None:
    many = tuple(ClientInfo(client) for client in "abcde")
    ten = NodeDescription(many, properties={"num-classes": 10, "input-shape": [8]})
    nine = NodeDescription((ClientInfo("z"),), properties={"num-classes": 9, "input-shape": [8]})
    with pytest.raises(StrategyError) as raised:
        properties_in_common([ten, nine])
    assert str(raised.value) == (
        "The nodes disagree on 'num-classes': one says 10, another 9. The first hosts 'a', 'b', 'c' and 2 more "
        "clients, the other 'z': make them agree; a file that lacks a class can say how many there are with "
        "'?classes=N' after its path."
    )
    flat = NodeDescription((), properties={"input-shape": [64] * 1000})
    with pytest.raises(StrategyError, match=r"the other no clients: make them agree\.$") as raised:
        properties_in_common([ten, flat])
    assert len(str(raised.value)) < 500


def test_the_describe_message_reaches_a_client_app_by_its_name() -> None:
    client_app = ClientApp()

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        client = ClientInfo(str(context.node_config["partition-id"]), 1)
        return Message(NodeDescription((client,)).to_content(), reply_to=message)

    ours = Census(InlineGrid.of(client_app, 3), 10.0)
    ours.start(3, 1)
    assert ids(ours) == ["0", "1", "2"]
