"""The population: which clients there are, which nodes host them, and how a cohort is spread over the nodes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from types import MappingProxyType
from typing import ClassVar

from strategies.errors import StrategyError

NOTHING: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True)
class ClientInfo:
    """What a client says of itself in the first exchange. ``num_examples`` is None where it is not known."""

    id: str
    num_examples: int | None = None
    device_class: str = ""
    region: str = ""


class Population:
    """Clients (and their ``ids``) sorted by id, and the nodes that can run each.

    ``hosts`` maps a client to its nodes; a client without an entry can be run by every one of ``nodes`` (a simulation).
    Raises StrategyError for an id given twice, a client on no node or on an unknown one.
    """

    KINDS: ClassVar[Mapping[str, Callable[[ClientInfo], str]]] = {
        "device-classes": attrgetter("device_class"),
        "regions": attrgetter("region"),
    }

    def __init__(
        self, clients: Iterable[ClientInfo], nodes: Iterable[int], hosts: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.clients = tuple(sorted(clients, key=lambda client: client.id))
        self.nodes = tuple(sorted(nodes))
        self.hosts = {client: tuple(sorted(nodes)) for client, nodes in (hosts or {}).items()}
        self.ids = tuple(client.id for client in self.clients)
        self._by_id = dict(zip(self.ids, self.clients, strict=True))
        self._check()

    def __len__(self) -> int:
        return len(self.clients)

    def __contains__(self, client: str) -> bool:
        return client in self._by_id

    def __getitem__(self, client: str) -> ClientInfo:
        if client not in self._by_id:
            raise StrategyError(f"There is no client '{client}' in the population of {len(self)} clients.")
        return self._by_id[client]

    @cached_property
    def groups(self) -> Mapping[str, Mapping[str, int]]:
        """How many clients there are of each device class and of each region, "" standing for none named."""
        return {kind: Counter(map(name_of, self.clients)) for kind, name_of in self.KINDS.items()}

    def described(self, cohort: Iterable[str]) -> dict[str, int]:
        """Return how many examples each of these clients said to have, without those that did not say."""
        counts = ((client, self[client].num_examples) for client in cohort)
        return {client: count for client, count in counts if count is not None}

    def assign(self, cohort: Sequence[str], at_work: Mapping[int, float] = NOTHING) -> dict[int, list[str]]:
        """Spread a cohort over nodes, longest processing time first; nodes without a client do not appear.

        Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: each client, longest first, goes to the node with
        the least to do; ties by client id and node id. Clients bound to nodes go first, so that the free ones can even
        out what those leave uneven. The time of a client is taken as its number of examples, or the average where it
        is not known. Every node's list has its longest client first. ``at_work`` is what nodes have to do already.
        """
        loads = self.loads(cohort)
        ordered = sorted(loads, key=lambda client: (client not in self.hosts, -loads[client], client))
        assignment: dict[int, list[str]] = {node: [] for node in self.nodes}
        busy = {node: at_work.get(node, 0.0) for node in self.nodes}
        bound = [client for client in ordered if client in self.hosts]
        for client in bound:
            node = min(self.hosts[client], key=lambda node: (busy[node], node))
            assignment[node].append(client)
            busy[node] += loads[client]
        heap = [(busy[node], node) for node in self.nodes]
        heapq.heapify(heap)
        for client in ordered[len(bound) :]:
            load, node = heap[0]
            assignment[node].append(client)
            heapq.heapreplace(heap, (load + loads[client], node))
        return {
            node: sorted(clients, key=lambda client: (-loads[client], client))
            for node, clients in assignment.items()
            if clients
        }

    def messages(self, cohort: Sequence[str], clients_per_message: int = 0) -> list[tuple[int, list[str]]]:
        """Return the (node, clients) of each message of a round: at most so many clients in one, 0 = no limit."""
        if clients_per_message < 0:
            raise StrategyError(
                f"The key 'clients-per-message' is {clients_per_message}, but must be 0 (no limit) or more."
            )
        packs: list[tuple[int, list[str]]] = []
        for node, clients in self.assign(cohort).items():
            step = clients_per_message or len(clients)
            packs.extend((node, clients[start : start + step]) for start in range(0, len(clients), step))
        return packs

    def loads(self, cohort: Sequence[str]) -> dict[str, float]:
        """Return what is taken for the time of each client: its number of examples, or the average of the others'."""
        if len(set(cohort)) != len(cohort):
            raise StrategyError("A cohort must hold each client once, but holds one twice.")
        known = self.described(cohort)
        average = sum(known.values()) / len(known) if known else 1.0
        return {client: float(known.get(client, average)) for client in cohort}

    def _check(self) -> None:
        if len(self._by_id) != len(self.clients):
            twice = next(a.id for a, b in zip(self.clients, self.clients[1:], strict=False) if a.id == b.id)
            raise StrategyError(f"The client id '{twice}' is given twice: give every client a name of its own.")
        if self.clients and not self.nodes:
            raise StrategyError(f"There are {len(self)} clients but no node to run them: start at least one node.")
        connected = set(self.nodes)
        for client in self.ids:
            nodes = self.hosts.get(client)
            if nodes is not None and not (nodes and connected.issuperset(nodes)):
                raise StrategyError(
                    f"The client '{client}' must be hosted by some of the connected nodes {list(self.nodes)} and no "
                    f"other, but is hosted by {list(nodes)}."
                )
