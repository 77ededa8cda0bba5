"""The describe exchange: which clients each node hosts, learnt before anything is trained.

Flower knows nodes by random ids that change with every start. Sampling, seeds and client state hang on *clients*, which
have a stable id; so the server first asks every node which clients it hosts, how many examples each has, its device
class and region, and the fingerprint of the code that answers. A fingerprint other than the server's means that a node
would train with other code than the run was started with, and ends the run; a node that cannot take part for another
reason, such as a corrupt file, is left out.

A node that knows no describe (a stock Flower app of another framework) counts as hosting one client, named after the
node's id: Flower draws that anew with every start, so such a run is not reproducible unless all clients take part.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, ConfigRecordValues, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from strategies import wire
from strategies.errors import StrategyError
from strategies.exchange import NOT_SENT, Exchange
from strategies.fixed_point import MAX_WEIGHT
from strategies.population import ClientInfo, Population

logger = logging.getLogger(__name__)

DESCRIBE = "query.describe"
NODE_POLL_SECONDS = 0.2
ASK_AGAIN_SECONDS = 10.0
UNKNOWN = -1
MAX_NAME_LENGTH = 200
MAX_CLIENTS = 1_000_000
TEXT_LENGTH, PROBLEM_LENGTH = 300, 500
NAMED_CLIENTS = 3
KNOWS_NO_DESCRIBE = "function registered with name 'describe'"  # how Flower's ClientApp says it
# The node or its reply is gone, which says nothing of the node that has the same id now: ask again.
GONE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE, NOT_SENT)


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


class OtherCodeError(StrategyError):
    """A node runs other code than the server: of its clients' updates nobody could say what made them."""


@dataclass(frozen=True)
class Refusal:
    """Why a node was left out, and when it was asked (s, monotonic)."""

    why: str
    at: float


@dataclass
class Census:
    """The nodes that are connected now and what they said of themselves.

    ``fingerprint`` is that of the server's code, "" where it does not matter which code the clients run. ``advice`` is
    the sentence that tells a user what to do about a node with other code. ``timeout`` (s) bounds each description.
    """

    grid: Grid
    timeout: float
    fingerprint: str = ""
    location: str = ""
    advice: str = ""
    nodes: dict[int, NodeDescription] = field(default_factory=dict)
    _asked: dict[int, Exchange] = field(default_factory=dict)
    _refused: dict[int, Refusal] = field(default_factory=dict)
    _connected: set[int] = field(default_factory=set)

    def start(self, min_nodes: int, node_timeout: float, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until ``min_nodes`` nodes are connected (at most ``node_timeout`` s) and describe all that are.

        ``meanwhile`` runs while the nodes are at it: on both sides, loading frameworks and data takes seconds. A node
        that cannot take part is left out with a warning. Raises StrategyError where there are too few nodes, one runs
        other code than the server, or so many cannot take part that fewer than ``min_nodes`` are left.
        """
        self._wait_for(min_nodes, node_timeout)
        self._ask_new_nodes()
        meanwhile()
        for node, exchange in self._asked.items():
            for reply in exchange.replies():
                if not _is_gone(reply):
                    self._take_in(node, reply)
        silent = len(self._asked) - len(self.nodes) - len(self._refused)
        self._asked = {}
        if self._refused and sum(bool(description.clients) for description in self.nodes.values()) < min_nodes:
            raise StrategyError(next(iter(self._refused.values())).why)
        if not self.nodes:
            raise StrategyError(f"None of the nodes described its clients within {self.timeout:g} s ('round-timeout').")
        if silent:
            logger.warning("%d nodes have not described their clients within %g s: not waiting", silent, self.timeout)

    def _take_in(self, node: int, reply: Message) -> None:
        try:
            self.nodes[node] = self._read(node, reply)
        except OtherCodeError:
            raise
        except StrategyError as error:
            self._leave_out(node, str(error))

    def refresh(self) -> None:
        """Forget the nodes that are gone and ask the new ones; those take part once they have answered.

        A node that comes later and cannot take part is left out with a warning: it must not end a run of others. It is
        asked again after 10 s, or when nodes have come or gone: Flower lists the old id of a node that has restarted
        for most of a minute, in which what the new one says may contradict the old one. Waits only where there is no
        client at all, for at most ``timeout`` seconds.
        """
        deadline = time.monotonic() + self.timeout
        self._update()
        if not self._has_clients():
            logger.warning("No node with clients is connected: waiting for at most %g s", self.timeout)
        while not self._has_clients() and time.monotonic() < deadline:
            time.sleep(min(NODE_POLL_SECONDS, self.timeout))
            self._update()

    def _update(self) -> None:
        self._ask_new_nodes()
        for node, exchange in list(self._asked.items()):
            for reply in exchange.arrived():
                del self._asked[node]
                if not _is_gone(reply):
                    self._add(node, reply)

    def _add(self, node: int, reply: Message) -> None:
        others = self.nodes
        try:
            self.nodes = {**others, node: self._read(node, reply)}
            self.population()
            self._refused.pop(node, None)
        except StrategyError as error:
            self.nodes = others
            self._leave_out(node, str(error))

    def _leave_out(self, node: int, why: str) -> None:
        if node not in self._refused or self._refused[node].why != why:
            logger.warning("Left out: %s", why)
        self._refused[node] = Refusal(why, time.monotonic())

    def _has_clients(self) -> bool:
        return any(description.clients for description in self.nodes.values())

    def _wait_for(self, min_nodes: int, node_timeout: float) -> None:
        deadline = time.monotonic() + node_timeout
        while (connected := len(list(self.grid.get_node_ids()))) < min_nodes:
            if time.monotonic() > deadline:
                raise StrategyError(
                    f"Only {connected} of the {min_nodes} nodes asked for ('min-nodes') had connected after "
                    f"{node_timeout:g} s: start more SuperNodes, lower 'min-nodes' or raise 'node-timeout'."
                )
            time.sleep(NODE_POLL_SECONDS)

    def _ask_new_nodes(self) -> None:
        connected = set(self.grid.get_node_ids())
        self.nodes = {node: description for node, description in self.nodes.items() if node in connected}
        self._asked = {node: exchange for node, exchange in self._asked.items() if node in connected}
        self._refused = {node: refusal for node, refusal in self._refused.items() if node in connected}
        patience = ASK_AGAIN_SECONDS if connected == self._connected else 0.0
        self._connected = connected
        wait_for = {node for node, refusal in self._refused.items() if time.monotonic() - refusal.at < patience}
        for node in sorted(connected - self.nodes.keys() - self._asked.keys() - wait_for):
            request = Message(RecordDict({wire.CONFIG: ConfigRecord({})}), node, DESCRIBE, ttl=self.timeout)
            self._asked[node] = Exchange(self.grid, [request], self.timeout)

    def population(self) -> Population:
        """Return the clients that can be reached now, and which nodes host each."""
        hosts: dict[str, list[int]] = {}
        infos: dict[str, ClientInfo] = {}
        for node, description in sorted(self.nodes.items()):
            for client in description.clients:
                known = infos.setdefault(client.id, client)
                if known != client:
                    raise StrategyError(
                        f"Two nodes describe the client '{client.id}' differently ({known.num_examples} and "
                        f"{client.num_examples} examples): give each node a 'client-id' of its own in --node-config."
                    )
                hosts.setdefault(client.id, []).append(node)
        bound = {client: nodes for client, nodes in hosts.items() if len(nodes) < len(self.nodes)}
        return Population(infos.values(), self.nodes, bound)

    def _read(self, node: int, reply: Message) -> NodeDescription:
        if reply.has_error() and not self.fingerprint:
            return NodeDescription((ClientInfo(f"node-{node}", None),))
        if reply.has_error():
            reason = wire.one_line(reply.error.reason or "no reason given", PROBLEM_LENGTH)
            advice = f" {self.advice}" if KNOWS_NO_DESCRIBE in reason else ""
            raise StrategyError(f"Node {node} did not describe its clients: {reason}.{advice}")
        description = NodeDescription.from_content(reply.content)
        if self.fingerprint and description.fingerprint != self.fingerprint:
            raise OtherCodeError(
                f"Node {node} runs other code ({description.fingerprint[:12] or 'unknown'} from "
                f"{description.location or 'an unknown place'}) than this run ({self.fingerprint[:12]} from "
                f"{self.location}). {self.advice}"
            )
        if description.problem:
            raise StrategyError(f"A node cannot take part: {description.problem}")
        return description


def _is_gone(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in GONE


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
