"""What we work around in Flower, probed again: when one of these fails after an upgrade, a workaround may go.

Each test says what stock flwr does and which module of ours therefore does otherwise.
"""

import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState, RunRecord
from flwr.serverapp.exception import AppExitException
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, HEAD_BODY_DIVIDER, NOOP_FEDERATION_ID
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents, validate_object_content
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.census import Census
from strategies.describe import NodeDescription
from strategies.errors import LayoutError, StrategyError
from strategies.exchange import UNDECODABLE
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies.toy_federation import header, npy

START = np.array([[1.0, 2.0, 3.0]], dtype=np.float32)


def test_array_numpy_allocates_what_a_header_declares() -> None:
    """So `wire.decode` compares the header with the payload first. 40 MB here; the header could say terabytes."""
    liar = npy(header("(10000000,)"), b"\0" * 8)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"[Ff]ailed to read|cannot reshape|EOF"):
            liar.numpy()
        theirs = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        with pytest.raises(LayoutError):
            wire.decode(liar)
        ours = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert theirs > 40_000_000 > 1_000_000 > ours


def test_numpy_makes_scalars_one_dimensional_when_asked_for_contiguity() -> None:
    """So `wire.array_record` uses ``asarray(order="C")``: a model's scalars must stay scalars."""
    assert np.ascontiguousarray(np.array(1)).shape == (1,)


def test_arrays_in_fortran_order_are_stored_so() -> None:
    """So `wire.array_record` makes arrays C-contiguous: the same weights would otherwise have other bytes."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert Array(np.asfortranarray(array)).data != Array(array).data


def reply(array: np.ndarray, **metrics: object) -> RecordDict:
    record = MetricRecord({name.replace("_", "-"): value for name, value in metrics.items()})  # type: ignore[misc]
    return RecordDict({"arrays": ArrayRecord([array]), "metrics": record})


STOCK_BELIEVES: dict[str, tuple[RecordDict, Callable[[np.ndarray], bool]]] = {
    "nan": (reply(START * np.nan, num_examples=1), lambda mean: bool(np.isnan(mean).all())),
    "broadcast": (reply(np.zeros(1, np.float32), num_examples=10), lambda mean: np.allclose(mean, (START + 1) / 2)),
    "negative-weight": (reply(START, num_examples=-5), lambda mean: np.allclose(mean, START + 2)),
    "absurd-weight": (reply(START + 9, num_examples=10**12), lambda mean: np.allclose(mean, START + 9)),
}


@pytest.mark.parametrize("case", STOCK_BELIEVES)
def test_stock_fedavg_believes_any_reply(case: str) -> None:
    """So `strategies.admission` judges each update first."""
    bad, hurt = STOCK_BELIEVES[case]
    record = aggregate_arrayrecords([reply(START + 1, num_examples=10), bad], "num-examples")
    assert hurt(record.to_numpy_ndarrays()[0])


def test_an_additional_metric_of_one_client_ends_a_stock_run() -> None:
    """So `strategies.updates.mean_metrics` takes the mean of each metric over those that report it."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        more = {"f1": 0.5} if context.node_config["partition-id"] else {}
        return Message(reply(START, num_examples=10, **more), reply_to=message)

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=2)
    with pytest.raises(AppExitException):
        strategy.start(InlineGrid.of(app, 2), ArrayRecord([START]), num_rounds=1)


def content_id(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def hostile_message() -> tuple[str, dict[str, bytes]]:
    """The objects of a reply whose array does not say of which chunks it consists: its id, and all contents by id."""
    InlineGrid.of(ClientApp(), 1)
    message = Message(RecordDict({"arrays": ArrayRecord([START])}), 1, "train")
    record = message.content["arrays"]
    assert isinstance(record, ArrayRecord)
    ((chunk_id, chunk),) = record["0"].slice_array()
    body = json.dumps({"dtype": "float32", "shape": [1, 3], "stype": "numpy.ndarray"}).encode()
    content = f"Array {chunk_id} {len(body)}".encode() + HEAD_BODY_DIVIDER + body
    contents = {chunk_id: chunk.deflate(), content_id(content): content}
    genuine = record["0"].object_id
    for parent in (record, message.content, message):
        child, genuine_parent = content_id(content), parent.object_id
        content = parent.deflate().replace(genuine.encode(), child.encode())  # ids are of one length
        contents[content_id(content)] = content
        genuine = genuine_parent
    return content_id(content), contents


def test_the_superlink_takes_in_objects_that_its_grid_cannot_decode() -> None:
    """So `strategies.exchange` pulls one reply at a time and makes an error reply of one that cannot be decoded."""
    message_id, contents = hostile_message()
    for content in contents.values():
        validate_object_content(content)  # all that the SuperLink checks when a node pushes
    with pytest.raises(UNDECODABLE) as raised:
        inflate_object_from_contents(message_id, contents)
    assert "arraychunk_ids" in str(raised.value)


def test_a_few_bytes_of_chunk_list_unfold_to_any_size_while_flower_decodes() -> None:
    """An open risk, not worked around: an array may name one chunk any number of times, before code of ours runs."""
    ((chunk_id, chunk),) = Array(np.zeros(1000, np.uint8)).slice_array()
    body = json.dumps({"dtype": "", "shape": [], "stype": "", "arraychunk_ids": [0] * 1000}).encode()
    content = f"Array {chunk_id} {len(body)}".encode() + HEAD_BODY_DIVIDER + body
    array = inflate_object_from_contents(content_id(content), {content_id(content): content, chunk_id: chunk.deflate()})
    assert isinstance(array, Array)
    assert len(array.data) > 1_000_000 > 100 * len(content) / 1000


def real_grid(num_nodes: int) -> tuple[InMemoryGrid, list[int]]:
    """Flower's own grid of a simulation, and nodes that are online but never do anything."""
    factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
    state = factory.state()
    assert isinstance(state, InMemoryLinkState)
    run = Run.create_empty(1)
    run.primary_task_id, run.federation_id = 1, NOOP_FEDERATION_ID
    state.run_ids[run.run_id] = RunRecord(run=run)
    state.task_store[run.primary_task_id] = Task(task_id=run.primary_task_id, run_id=run.run_id)
    nodes = [state.create_node("aid", "account", bytes([k]) * 32, heartbeat_interval=1e9) for k in range(num_nodes)]
    for node in nodes:
        state.acknowledge_node_heartbeat(node_id=node, heartbeat_interval=1e9)
    grid = InMemoryGrid(factory)
    grid.set_run(run)
    InlineGrid.of(ClientApp(), 1)
    return grid, nodes


def test_flower_unfolds_an_array_that_names_one_chunk_many_times() -> None:
    """Before `strategies.allowance` can refuse what it holds; docs/deployment.md says so among what nothing stops."""
    array = Array("uint8", (10**6,), "numpy.ndarray", bytes(10**6))
    start, _, body = array.deflate().partition(HEAD_BODY_DIVIDER)
    kind, chunks, _ = start.decode().split(" ")
    forged = json.dumps({**json.loads(body), "arraychunk_ids": [0] * 50}).encode()
    sent = f"{kind} {chunks} {len(forged)}".encode() + HEAD_BODY_DIVIDER + forged
    assert len(sent) < 500
    assert len(Array.inflate(sent, array.children).data) == 50 * len(array.data)


def test_flower_answers_for_an_expired_message_with_an_error() -> None:
    """So `strategies.federated` lets messages outlive the deadline: late clients would be counted as failed ones."""
    grid, (node,) = real_grid(1)
    (message_id,) = grid.push_messages([Message(RecordDict(), node, "train", ttl=0.05)])
    assert list(grid.pull_messages([message_id])) == []
    time.sleep(0.1)
    (reply,) = grid.pull_messages([message_id])
    assert reply.error.code == ErrorCode.MESSAGE_UNAVAILABLE
    assert reply.metadata.reply_to_message_id == message_id


def test_on_flowers_own_grid_silent_clients_are_late_and_the_run_ends_in_a_sentence() -> None:
    grid, nodes = real_grid(2)
    census = Census(grid, 0.1)
    census.nodes = {node: NodeDescription((ClientInfo(str(position)),)) for position, node in enumerate(nodes)}
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {}), RoundRules(max_skipped_rounds=2), census=census, observers=[records.append]
    )
    with pytest.raises(StrategyError, match="its reply had not come when the time was over"):
        strategy.start(grid, ArrayRecord([START]), num_rounds=5, timeout=0.1)
    assert [record.rejected for record in records[1:]] == [{"late": 2}, {"late": 2}]
