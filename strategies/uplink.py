"""What clients send in a round, each of them, in bytes as Flower sends them."""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message

from strategies import wire
from strategies.lazy_array import LazyArray
from strategies.message_size import size_of
from strategies.updates import FloatVector


@dataclass
class Uplink:
    """The bytes of every update that has come."""

    sizes: list[float] = field(default_factory=list)

    def add(self, reply: Message, clients: int, size: int) -> None:
        """Take down a training reply of ``size`` bytes: each client's own arrays, and its share of all else.

        Clients without an update have sent nothing; of a sum each has sent an equal part.
        """
        arrays = None if reply.has_error() else reply.content.get(wire.UPDATE, reply.content.get(wire.ARRAYS))
        if not isinstance(arrays, ArrayRecord) or not arrays:
            return
        own = _own(reply, arrays) or [0] * clients
        rest = max(0, size - sum(own)) / len(own)
        self.sizes.extend(one + rest for one in own)

    def told(self, flat: FloatVector) -> dict[str, float] | None:
        """Return the "mean" and the "largest" of them, and what a "dense" update like this one is; None without any."""
        if not self.sizes:
            return None
        mean, largest = sum(self.sizes) / len(self.sizes), max(self.sizes)
        return {"mean": mean, "largest": largest, "dense": float(size_of(LazyArray(flat)))}


def _own(reply: Message, arrays: ArrayRecord) -> list[int]:
    """Return the bytes of each client's own arrays, where they are told apart."""
    pack = reply.content.get(wire.PACK)
    if not isinstance(pack, ConfigRecord) or pack.get(wire.SUMMED, False):
        return []
    own: dict[str, int] = {}
    for key, array in arrays.items():
        client = key.partition("/")[0]
        own[client] = own.get(client, 0) + size_of(array)
    return list(own.values())
