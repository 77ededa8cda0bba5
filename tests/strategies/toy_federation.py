"""A federation of six clients on a model of five parameters, whose clients and messages can be made to misbehave."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.admission import Limits
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.terms import RoundRules

IDS = ("0", "1", "2", "3", "4", "5")
BAD = "3"
KERNEL = np.array([[1.0, -2.0], [0.5, 4.0]], dtype=np.float32)
BIAS = np.array([0.25], dtype=np.float32)
SIZE = 5
LIMITS = Limits(max_weight=1000.0, max_norm=50.0)

Misbehaviour = Callable[[RecordDict], RecordDict | None]


def start_arrays() -> ArrayRecord:
    return wire.array_record({"kernel": KERNEL, "bias": BIAS})


def local_arrays(client: str) -> dict[str, np.ndarray]:
    """What a client would train: a step of its own, with thirds so that sums round."""
    step = np.float32((int(client) + 1) / 3)
    return {"kernel": KERNEL - step, "bias": BIAS + step}


def honest_content(client: str) -> RecordDict:
    metrics = MetricRecord({"num-examples": 10 * (int(client) + 1), "loss": 1 / (int(client) + 1)})
    return RecordDict({"arrays": wire.array_record(local_arrays(client)), "metrics": metrics})


def app(
    ids: Sequence[str] = IDS,
    bad: Mapping[str, Misbehaviour] | None = None,
    *,
    mods: bool = True,
    seen: dict[tuple[int, str], int] | None = None,
) -> ClientApp:
    """Clients of this app answer honestly, but what those in ``bad`` answer is passed through a misbehaviour.

    ``seen`` takes down the seed of each (round, client).
    """
    client_app = ClientApp()
    wrap = client_mods() if mods else []

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        infos = tuple(ClientInfo(client, 10 * (int(client) + 1)) for client in ids)
        return Message(NodeDescription(infos).to_content(), reply_to=message)

    @client_app.train(mods=wrap)
    def train(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        client = str(config.get("client") or wire.text_list(config, "clients")[0])
        if seen is not None:
            seen[int(wire.number(config, "round")), client] = int(wire.number(config, "seed"))
        content = honest_content(client)
        if bad and client in bad:
            content = bad[client](content) or content
        return Message(content, reply_to=message)

    @client_app.evaluate(mods=wrap)
    def evaluate(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        client = int(str(config.get("client") or wire.text_list(config, "clients")[0]))
        metrics = MetricRecord({"num-examples": client, "loss": float(client), "accuracy": client / 10})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return client_app


def message_with(content: RecordDict) -> Message:
    """A request as the server makes it; making a grid gives the process the identity that Flower asks for."""
    InlineGrid.of(app(), 1)
    return Message(content, 1, "train")


def over_the_wire(message: Message) -> Message:
    """Serialize and read a message as Flower does between processes."""
    objects = get_all_nested_objects(message)
    contents = {object_id: obj.deflate() for object_id, obj in objects.items()}
    copy = inflate_object_from_contents(message.object_id, contents)
    assert isinstance(copy, Message)
    copy.metadata.__dict__["_message_id"] = message.metadata.message_id
    return copy


@dataclass
class WireGrid(InlineGrid):
    """An inline grid whose messages are serialized both ways, and whose training replies can be tampered with."""

    tamper: Callable[[Message, list[str]], Iterable[Message]] | None = None
    received: list[Message] = field(default_factory=list)
    keep: bool = False
    next_arrivals = None  # type: ignore[assignment]  # to be polled, as Flower's own grids are

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for message_id in message_ids:
            request = self._waiting.pop(message_id, None)
            if request is None:
                continue
            reply = over_the_wire(self._execute(over_the_wire(request)))
            if self.keep:
                self.received.append(reply)
            if self.tamper is None or request.metadata.message_type != "train":
                yield reply
            else:
                yield from self.tamper(reply, wire.text_list(wire.config_of(request), "clients"))


def run(
    client_app: ClientApp,
    *,
    nodes: int = 2,
    rounds: int = 2,
    tamper: Callable[[Message, list[str]], Iterable[Message]] | None = None,
    weighting: str = "examples",
    seed: int = 7,
    arrays: ArrayRecord | None = None,
    clients_per_round: int = 0,
    **rules: object,
) -> tuple[list[np.ndarray], list[RoundRecord]]:
    """Train and return the final arrays and the records of the rounds."""
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build("fedavg", {"weighting": weighting, "clients-per-round": clients_per_round}),
        RoundRules(**{"limits": LIMITS, **rules}),  # type: ignore[arg-type]
        seed=seed,
        observers=[records.append],
    )
    grid = WireGrid(client_app, InlineGrid.of(client_app, nodes).node_configs, tamper=tamper)
    result = strategy.start(grid, arrays or start_arrays(), num_rounds=rounds)
    return result.arrays.to_numpy_ndarrays(), records


def without(*bad: str, **kwargs: object) -> list[np.ndarray]:
    """The final arrays of a run in which these clients do not exist."""
    return run(app([client for client in IDS if client not in bad]), **kwargs)[0]  # type: ignore[arg-type]


def same(left: Sequence[np.ndarray], right: Sequence[np.ndarray]) -> bool:
    """Equal to the bit, in shape and dtype too."""
    return [(a.dtype, a.shape, a.tobytes()) for a in left] == [(b.dtype, b.shape, b.tobytes()) for b in right]


def npy(header: str, payload: bytes = b"") -> Array:
    """An array with a header of the attacker's making."""
    text = header.encode("latin1") + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + payload
    return Array("float32", (1,), "numpy.ndarray", data)


def header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
