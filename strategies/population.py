"""The population: which clients there are, which nodes host them, and how a cohort is spread over the nodes."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from strategies.errors import StrategyError


@dataclass(frozen=True)
class ClientInfo:
    """What a client says of itself in the first exchange. ``num_examples`` is None where it is not known."""

    id: str
    num_examples: int | None = None
    device_class: str = ""
    region: str = ""


class Population:
    """Clients sorted by id, and the nodes that can run each.

    ``hosts`` maps a client to its nodes; a client without an entry can be run by every one of ``nodes`` (a simulation).
    Raises StrategyError for an id given twice, a client on no node or on an unknown one.
    """

    def __init__(
        self, clients: Iterable[ClientInfo], nodes: Iterable[int], hosts: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        self.clients = tuple(sorted(clients, key=lambda client: client.id))
        self.nodes = tuple(sorted(nodes))
        self.hosts = {client: tuple(sorted(nodes)) for client, nodes in (hosts or {}).items()}
        self._by_id = {client.id: client for client in self.clients}
        self._check()

    def __len__(self) -> int:
        return len(self.clients)

    def __getitem__(self, client: str) -> ClientInfo:
        if client not in self._by_id:
            raise StrategyError(f"There is no client '{client}' in the population of {len(self)} clients.")
        return self._by_id[client]

    def assign(self, cohort: Sequence[str]) -> dict[int, list[str]]:
        """Spread a cohort over nodes, longest processing time first; nodes without a client do not appear.

        Graham, "Bounds on Multiprocessing Timing Anomalies", 1969: each client, longest first, goes to the node with
        the least to do; ties by client id and node id. Clients bound to nodes go first, so that the free ones can even
        out what those leave uneven. The time of a client is taken as its number of examples, or the average where it
        is not known. Every node's list has its longest client first.
        """
        loads = self._loads(cohort)
        ordered = sorted(loads, key=lambda client: (client not in self.hosts, -loads[client], client))
        assignment: dict[int, list[str]] = {node: [] for node in self.nodes}
        busy = dict.fromkeys(self.nodes, 0.0)
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

    def _loads(self, cohort: Sequence[str]) -> dict[str, float]:
        if len(set(cohort)) != len(cohort):
            raise StrategyError("A cohort must hold each client once, but holds one twice.")
        known = {client: self[client].num_examples for client in cohort}
        counts = [count for count in known.values() if count is not None]
        average = sum(counts) / len(counts) if counts else 1.0
        return {client: average if count is None else float(count) for client, count in known.items()}

    def _check(self) -> None:
        if len(self._by_id) != len(self.clients):
            twice = next(a.id for a, b in zip(self.clients, self.clients[1:], strict=False) if a.id == b.id)
            raise StrategyError(f"The client id '{twice}' is given twice: give every client a name of its own.")
        if self.clients and not self.nodes:
            raise StrategyError(f"There are {len(self)} clients but no node to run them: start at least one node.")
        for client in self.clients:
            nodes = self.hosts.get(client.id, self.nodes)
            if not nodes or not set(nodes) <= set(self.nodes):
                raise StrategyError(
                    f"The client '{client.id}' must be hosted by some of the connected nodes {list(self.nodes)} and no "
                    f"other, but is hosted by {list(nodes)}."
                )
