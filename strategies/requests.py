"""The requests of one phase of a round: what is written into each message, and which reply answers for whom."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Error, Message, RecordDict
from flwr.serverapp import Grid

from strategies import wire
from strategies.allowance import Allowance, bytes_held
from strategies.exchange import NOT_SENT, TOO_LARGE, Exchange
from strategies.layout import ModelLayout
from strategies.population import Population
from strategies.seeding import child_seed
from strategies.uplink import Uplink

logger = logging.getLogger(__name__)

NOTHING: Mapping[str, ArrayRecord] = MappingProxyType({})


@dataclass(frozen=True)
class RequestWriter:
    """Writes the messages of one kind ("train", "evaluate") of one round; all carry the same
    records of arrays: the weights and what is ``beside`` them.

    Each client gets a seed of its own, derived from (run seed, round, client, kind), so that what it does at random
    does not depend on the others, on the node or on the message it travels in. ``committed`` says when each client's
    update counted last, where clients keep state.
    """

    kind: str
    round: int
    seed: int
    arrays: ArrayRecord
    settings: Mapping[str, ConfigRecordValues]
    beside: Mapping[str, ArrayRecord] = field(default_factory=dict)
    ttl: float | None = None
    committed: Mapping[str, int] | None = None

    def write(self, node: int, clients: Sequence[str]) -> Message:
        """Return the message to a node that asks these of its clients."""
        config: dict[str, ConfigRecordValues] = {
            **self.settings,
            wire.ROUND: self.round,
            wire.CLIENTS: list(clients),
            wire.SEEDS: [child_seed(self.seed, self.round, client, self.kind) for client in clients],
        }
        if self.committed is not None:
            config[wire.COMMITTED] = [self.committed.get(client, 0) for client in clients]
        content = RecordDict({wire.ARRAYS: self.arrays, **self.beside, wire.CONFIG: ConfigRecord(config)})
        return Message(content, node, self.kind, ttl=self.ttl, group_id=str(self.round))


@runtime_checkable
class PackingGrid(Protocol):
    """What a grid offers besides Flower's interface where it knows best which clients should travel together."""

    def packs(self, cohort: Sequence[tuple[str, float]]) -> list[tuple[int, list[str]]]:
        """Return the (node, clients) of each message, given the clients and how long each takes (in any unit)."""


def packs_for(
    grid: Grid, population: Population, cohort: Sequence[str], clients_per_message: int
) -> list[tuple[int, list[str]]]:
    """Return the (node, clients) of each message of a round: the grid's own packing, where it has one and may choose.

    It may not where ``clients_per_message`` is set or some clients are hosted by some of the nodes only.
    """
    if isinstance(grid, PackingGrid) and not clients_per_message and not population.hosts:
        return grid.packs(list(population.loads(cohort).items()))
    return population.messages(cohort, clients_per_message)


@dataclass
class Correspondence:
    """The messages of one phase, which clients each is for, and what they weigh (in bytes, as Flower sends them).

    By the ``layout`` of the model it is known how much a reply may hold: see `weighed`. ``repeated`` holds the clients
    of every reply that came again.
    """

    shared: ArrayRecord
    requests: list[tuple[Message, list[str]]]
    layout: ModelLayout | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    uplink: Uplink = field(default_factory=Uplink)
    repeated: list[str] = field(default_factory=list)
    _asked: dict[str, list[str]] | None = None
    _answered: set[str] = field(default_factory=set)

    @property
    def messages(self) -> list[Message]:
        """The messages, in the order in which they are sent."""
        return [message for message, _ in self.requests]

    def exchange(self, grid: Grid, timeout: float) -> Iterator[Message]:
        """Send the messages and yield the replies as they arrive, for at most ``timeout`` seconds."""
        if self.requests:
            exchange = Exchange(grid, self.messages, timeout)
            down = wire.ByteCounter(self.shared)  # while clients are at work already
            for message in self.messages:
                down.add(message)
            self.bytes_down += down.total
            yield from exchange.replies()

    def answered(self, replies: Iterable[Message]) -> Iterator[tuple[Message, list[str]]]:
        """Yield each reply with the clients it has to speak for; afterwards, `unanswered` names the others.

        One that holds too much is yielded as an error that says so. A second one to the same message is not yielded:
        its clients are noted in ``repeated``. One to something else, such as a message of an earlier round, is logged
        and ignored.
        """
        for came in replies:
            if self._asked is None:  # ids are given when messages are sent: a lazy iterable does so before its first
                self._asked = {message.metadata.message_id: clients for message, clients in self.requests}
            request = came.metadata.reply_to_message_id
            asked = self._asked.get(request, [])
            reply, size = weighed(came, self.layout, len(asked))
            self.bytes_up += size
            if not asked:
                logger.warning("Ignored a reply that answers no message of this round")
            elif request in self._answered:
                self.repeated.extend(asked)
            else:
                self._answered.add(request)
                self.uplink.add(reply, len(asked), size)
                yield reply, asked

    def unanswered(self) -> list[str]:
        """Return the clients that no reply spoke for."""
        packs = ((message.metadata.message_id, clients) for message, clients in self.requests)
        return [client for request, clients in packs if request not in self._answered for client in clients]


def weighed(reply: Message, layout: ModelLayout | None, clients: int) -> tuple[Message, int]:
    """Return the reply of so many clients to a model of this layout, and its size: here alone replies are measured.

    In the place of one that exceeds its `Allowance` stands an error with the code `TOO_LARGE`, which says by what, and
    whose size is what the names and values took, as that is known at once. Without a layout all is allowed.
    """
    excess = "" if layout is None else Allowance.of(layout, clients).excess(reply)
    if not excess:
        return reply, bytes_of(reply)
    refused = Message(error=Error(TOO_LARGE, excess), metadata=reply.metadata)  # type: ignore[call-overload]
    return refused, bytes_held(reply.content)


def bytes_of(reply: Message) -> int:
    """Return the size of a reply as Flower serializes it; 0 for one that was made here as nothing could be sent."""
    if reply.has_error() and reply.error.code == NOT_SENT:
        return 0
    counter = wire.ByteCounter()
    counter.add(reply)
    return counter.total
