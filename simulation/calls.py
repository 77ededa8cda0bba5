"""What the pool hands to its workers, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import ray
from flwr.app import ArrayRecord, Message, RecordDict

from simulation import blocks
from simulation.workers import Answer, Request, RunSpec, Shared


def expiry(message: Message) -> float:
    """Return when a message's time is over (s, as `time.time`)."""
    return message.metadata.created_at + message.metadata.ttl


@dataclass(eq=False)
class Call:
    """A message for one worker, or a part of it: ``content``, of which ``arrays`` are the records of arrays."""

    run: RunSpec
    message: Message
    content: RecordDict
    arrays: Mapping[str, SharedArrays]

    @property
    def expires(self) -> float:
        """When whoever is still at it has hung."""
        return expiry(self.message)

    def request(self, local: bool) -> Request:
        """Return what travels to a worker on this machine, or on another."""
        metadata = self.message.metadata
        small = RecordDict({name: record for name, record in self.content.items() if name not in self.arrays})
        places = {name: shared.place(local) for name, shared in self.arrays.items()}
        return Request(metadata.message_type, metadata.group_id, small, places)


class SharedArrays:
    """A record of arrays that many calls carry: laid out once for all workers of this machine, once for all others."""

    _numbers = count(1)

    def __init__(self, record: ArrayRecord, shelf: blocks.Shelf | None) -> None:
        self.record = record
        self._number = next(self._numbers)
        self._lent = None if shelf is None else shelf.write(record)
        self._stored: list[ray.ObjectRef[ArrayRecord]] = []

    def place(self, local: bool) -> Shared:
        """Return where a worker finds the record."""
        if local and self._lent is not None:
            return Shared(self._number, self._lent.parcel, [])
        if not self._stored:
            self._stored = [ray.put(self.record)]
        return Shared(self._number, None, self._stored)


@dataclass(frozen=True)
class Done:
    """What came of a call: an answer, or None where the worker died; it may not have ``begun`` with it then."""

    call: Call
    answer: Answer | None
    begun: bool = True
