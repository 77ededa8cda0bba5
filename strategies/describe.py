"""The describe exchange: which clients each node hosts, learnt before anything is trained.

Flower knows nodes by random ids that change with every start. Sampling, seeds and client state hang on *clients*, which
have a stable id; so the server first asks every node which clients it hosts, how many examples each has, its device
class and region, and the fingerprint of the code that answers. What the answers make of the nodes together is in
`strategies.census`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, ConfigRecordValues, RecordDict

from strategies import wire
from strategies.errors import StrategyError
from strategies.fixed_point import MAX_WEIGHT
from strategies.population import ClientInfo

DESCRIBE = "query.describe"
SIMULATED = "simulated"  # a property: that the node's clients exist in a simulation only
UNKNOWN = -1
MAX_NAME_LENGTH = 200
MAX_CLIENTS = 1_000_000
TEXT_LENGTH, PROBLEM_LENGTH = 300, 500
NAMED_CLIENTS = 3


@dataclass(frozen=True)
class NodeDescription:
    """What a node says of itself: the clients it can host (in simulation, every node can host any client).

    ``properties`` are whatever else the app's client and server want to agree on, such as the shape of the data.
    ``problem`` is a sentence that says why the node cannot take part, "" where it can.
    """

    clients: tuple[ClientInfo, ...]
    fingerprint: str = ""
    location: str = ""
    problem: str = ""
    properties: Mapping[str, ConfigRecordValues] = field(default_factory=dict)

    def to_content(self) -> RecordDict:
        """Return the records of a describe reply."""
        sizes = [UNKNOWN if client.num_examples is None else client.num_examples for client in self.clients]
        record: dict[str, ConfigRecordValues] = {
            wire.VERSION: wire.WIRE_VERSION,
            wire.CLIENTS: [client.id for client in self.clients],
            wire.NUM_EXAMPLES: sizes,
            "device-class": [client.device_class for client in self.clients],
            "region": [client.region for client in self.clients],
            "fingerprint": self.fingerprint,
            "location": self.location,
            "problem": self.problem,
        }
        return RecordDict({wire.PACK: ConfigRecord(record), "properties": ConfigRecord(dict(self.properties))})

    @classmethod
    def from_content(cls, content: RecordDict) -> NodeDescription:
        """Read a describe reply; raises StrategyError where it is not one. Texts are cut and kept to one line."""
        record = content.get(wire.PACK)
        properties = content.get("properties")
        if not isinstance(record, ConfigRecord) or not isinstance(properties, ConfigRecord):
            raise StrategyError("A node answered the describe message with something else.")
        if record.get(wire.VERSION) != wire.WIRE_VERSION:
            raise StrategyError(
                f"A node speaks the wire version {record.get(wire.VERSION)!r}, but this server {wire.WIRE_VERSION}: "
                "install the same version of fedkeras on both."
            )
        columns = (
            wire.text_list(record, wire.CLIENTS),
            wire.int_list(record, wire.NUM_EXAMPLES),
            wire.text_list(record, "device-class"),
            wire.text_list(record, "region"),
        )
        if len({len(column) for column in columns}) != 1:
            raise StrategyError("A node described its clients with lists of different lengths.")
        _check_names(columns[0])
        _check_sizes(columns[1])
        clients = tuple(
            ClientInfo(
                client,
                size if size >= 0 else None,
                wire.one_line(device, TEXT_LENGTH),
                wire.one_line(region, TEXT_LENGTH),
            )
            for client, size, device, region in zip(*columns, strict=True)
        )
        fingerprint, location = (
            wire.one_line(str(record.get(k, "")), TEXT_LENGTH) for k in ("fingerprint", "location")
        )
        problem = wire.one_line(str(record.get("problem", "")), PROBLEM_LENGTH)
        return cls(clients, fingerprint, location, problem, dict(properties))


def _check_names(clients: Sequence[str]) -> None:
    """Names of clients go into files, logs and charts; one given twice would count as hosted by two nodes."""
    if len(clients) > MAX_CLIENTS:
        raise StrategyError(f"A node described {len(clients)} clients, but may host at most {MAX_CLIENTS}.")
    if len(set(clients)) != len(clients):
        raise StrategyError("A node described a client twice: each 'client-id' must be another.")
    for client in clients:
        if not (client.isprintable() and 0 < len(client) <= MAX_NAME_LENGTH):
            raise StrategyError(
                f"A node has a client called {client[:MAX_NAME_LENGTH]!r}: a 'client-id' must hold from 1 to "
                f"{MAX_NAME_LENGTH} printable characters."
            )


def _check_sizes(sizes: Sequence[int]) -> None:
    wrong = next((size for size in sizes if not UNKNOWN <= size <= MAX_WEIGHT), None)
    if wrong is not None:
        raise StrategyError(
            f"A node has a client with {wrong} examples: it must be from 0 to 2^53, or {UNKNOWN} where it is not known."
        )


def properties_in_common(nodes: Sequence[NodeDescription]) -> dict[str, ConfigRecordValues]:
    """Return the properties on which all nodes agree; raises StrategyError naming the one on which they do not."""
    first: dict[str, NodeDescription] = {}  # to name each property
    for node in nodes:
        for key in node.properties:
            known = first.setdefault(key, node)
            if known.properties[key] != node.properties[key]:
                raise StrategyError(_disagreement(key, known, node))
    return {key: node.properties[key] for key, node in first.items()}


def _disagreement(key: str, one: NodeDescription, another: NodeDescription) -> str:
    left, right = one.properties[key], another.properties[key]
    said, other = (wire.one_line(repr(value), TEXT_LENGTH) for value in (left, right))
    hint = "; a file that lacks a class can say how many there are with '?classes=N' after its path"
    return (
        f"The nodes disagree on '{wire.one_line(key, TEXT_LENGTH)}': one says {said}, another {other}. The first hosts "
        f"{_clients_of(one)}, the other {_clients_of(another)}: make them agree"
        f"{hint if isinstance(left, int) and isinstance(right, int) else ''}."
    )


def _clients_of(node: NodeDescription) -> str:
    shown = ", ".join(f"'{client.id}'" for client in node.clients[:NAMED_CLIENTS])
    more = len(node.clients) - NAMED_CLIENTS
    return (f"{shown} and {more} more clients" if more > 0 else shown) or "no clients"
