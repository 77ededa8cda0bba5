"""The census: which nodes are connected now, and which clients each hosts, by the describe exchange.

A node whose code is other than the server's would train with other code than the run was started with, and ends the
run; one that cannot take part for another reason, such as a corrupt file, is left out and asked again later.

A node that knows no describe (a stock Flower app of another framework) counts as hosting one client, named after the
node's id: Flower draws that anew with every start, so such a run is not reproducible unless all clients take part. It
is refused where something goes by how often each client takes part (`Census.require_names`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.superlink.grid import HttpGrid

from strategies import wire
from strategies.describe import DESCRIBE, MAX_CLIENTS, PROBLEM_LENGTH, SIMULATED, NodeDescription
from strategies.errors import StrategyError
from strategies.exchange import NOT_SENT, Exchange
from strategies.population import ClientInfo, Population

logger = logging.getLogger(__name__)

NODE_POLL_SECONDS = 0.2
ASK_AGAIN_SECONDS = 10.0
KNOWS_NO_DESCRIBE = "function registered with name 'describe'"  # how Flower's ClientApp says it
# The node or its reply is gone, which says nothing of the node that has the same id now: ask again.
GONE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE, NOT_SENT)


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
    the sentence that tells a user what to do about a node with other code. ``timeout`` (s) bounds each description. A
    node that is reached over a network may host ``max_clients``: one that claims thousands would be most of a cohort.
    """

    grid: Grid
    timeout: float
    fingerprint: str = ""
    location: str = ""
    advice: str = ""
    max_clients: int = MAX_CLIENTS
    nodes: dict[int, NodeDescription] = field(default_factory=dict)
    _asked: dict[int, Exchange] = field(default_factory=dict)
    _refused: dict[int, Refusal] = field(default_factory=dict)
    _connected: set[int] = field(default_factory=set)
    _known: tuple[dict[int, NodeDescription], Population] | None = None  # the last population, and of which nodes
    _names_for: str = ""  # what clients need lasting names for; "" where a node that names none may take part

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

    def require_names(self, why: str) -> None:
        """Take no node, from now on, whose client would be another one after each start of it; ``why``, the error says.

        Raises StrategyError where there is one already.
        """
        self._names_for = why
        for node, description in self.nodes.items():
            if description == _nameless(node):
                raise self._refusal_of_nameless(node)

    def _refusal_of_nameless(self, node: int) -> StrategyError:
        return StrategyError(
            f"Node {node} does not say which clients it hosts, so that it would be another client after every start, "
            f"but {self._names_for}. Let its app answer the query '{DESCRIBE}' with a "
            "strategies.describe.NodeDescription."
        )

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
        """Return the clients that can be reached now, and which nodes host each; costs little until nodes change."""
        if self._known is None or self._known[0] != self.nodes:
            self._known = dict(self.nodes), self._joined()
        return self._known[1]

    @property
    def simulated(self) -> bool:
        """Whether every node says that its clients exist in a simulation only, and none is reached over a network."""
        told = bool(self.nodes) and all(node.properties.get(SIMULATED) is True for node in self.nodes.values())
        return told and not self._networked

    @property
    def _networked(self) -> bool:
        return isinstance(self.grid, HttpGrid)

    def _joined(self) -> Population:
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
            if self._names_for:
                raise self._refusal_of_nameless(node)
            return _nameless(node)
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
        if self._networked and (count := len(description.clients)) > self.max_clients:
            raise StrategyError(
                f"Node {node} says that it hosts {count} clients, but one node may host at most {self.max_clients} "
                "('max-node-clients'): raise that if it really does."
            )
        return description


def _nameless(node: int) -> NodeDescription:
    """What is taken for the description of a node that gives none."""
    return NodeDescription((ClientInfo(f"node-{node}", None),))


def _is_gone(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in GONE
