"""The grid inside one process: nodes as Flower's, one message alive at a time, errors as replies or let through."""

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from simulation.inline import RUN_ID, InlineGrid
from strategies.exchange import ArrivalGrid
from tests.simulation import toy_runs


def counting_app(calls: list[int]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls.append(context.node_id)
        if context.node_config["partition-id"] == 1:
            raise OSError("no disk")
        seen = int(context.state["seen"]["rounds"]) if "seen" in context.state else 0
        context.state["seen"] = MetricRecord({"rounds": seen + 1})
        values = {"rounds": seen + 1, "setting": context.run_config["setting"]}
        return Message(RecordDict({"metrics": MetricRecord(values)}), reply_to=message)

    return app


def requests(grid: InlineGrid) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in grid.get_node_ids()]


def test_nodes_know_their_partition_as_in_flowers_simulation() -> None:
    grid = InlineGrid.of(ClientApp(), 3)
    assert list(grid.get_node_ids()) == [1, 2, 3]
    assert grid.node_configs[2] == {"partition-id": 1, "num-partitions": 3}
    assert grid.run.run_id == RUN_ID


def test_a_message_is_executed_when_its_reply_is_pulled_and_once() -> None:
    calls: list[int] = []
    grid = InlineGrid.of(counting_app(calls), 3, {"setting": 4})
    ids = list(grid.push_messages(requests(grid)))
    assert calls == [] and len(set(ids)) == 3
    replies = iter(grid.pull_messages([ids[2], ids[0]]))
    assert next(replies).metadata.src_node_id == 3 and calls == [3]
    assert next(replies).metadata.reply_to_message_id == ids[0] and calls == [3, 1]
    assert list(grid.pull_messages([ids[2], ids[0], "unknown"])) == []


def test_each_node_keeps_its_context_from_message_to_message() -> None:
    grid = InlineGrid.of(counting_app([]), 1, {"setting": 4})
    rounds = [next(iter(grid.send_and_receive(requests(grid)))).content["metrics"] for _ in range(3)]
    assert [dict(metrics) for metrics in rounds] == [{"rounds": k, "setting": 4} for k in (1, 2, 3)]


def test_an_exception_is_an_error_reply_as_in_flower_or_let_through_for_debugging() -> None:
    grid = InlineGrid.of(counting_app([]), 2, {"setting": 4})
    good, bad = grid.send_and_receive(requests(grid), timeout=1.0)
    assert good.has_content()
    assert (bad.error.code, bad.error.reason) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "no disk")
    grid.raise_client_errors = True
    with pytest.raises(OSError, match="no disk"):
        grid.send_and_receive(requests(grid))


def test_a_message_type_without_a_handler_is_an_error_reply() -> None:
    grid = InlineGrid.of(counting_app([]), 1)
    (reply,) = grid.send_and_receive([grid.create_message(RecordDict(), "query.describe", 1, "0")])
    assert reply.has_error()


def test_arrivals_are_executed_one_by_one_in_the_order_they_were_sent() -> None:
    calls: list[int] = []
    grid = InlineGrid.of(counting_app(calls), 3, {"setting": 4})
    assert isinstance(grid, ArrivalGrid)
    ids = list(grid.push_messages(requests(grid)))
    (first,) = grid.next_arrivals({ids[2], ids[0]}, 0.0)
    assert first.metadata.reply_to_message_id == ids[0] and calls == [1]
    (second,) = grid.next_arrivals({ids[2], ids[0]}, 0.0)
    assert second.metadata.reply_to_message_id == ids[2] and calls == [1, 3]
    assert grid.next_arrivals({ids[2], ids[0]}, 5.0) == []


def test_an_error_of_one_client_in_a_pack_is_let_through_with_its_own_stack_trace() -> None:
    grid = toy_runs.inline({"raise-always": "c04"})
    grid.raise_client_errors = True
    with pytest.raises(OSError, match="no disk") as caught:
        toy_runs.train(grid)
    assert caught.traceback[-1].path.name == "toy_app.py"
