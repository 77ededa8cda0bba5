"""How much a reply may hold, so that one that holds more is refused before anything in it is read, decoded or measured.

What an honest client sends is bounded by the model and by how many clients were asked: its arrays as they are, an exact
sum of two arrays with eight bytes a value, or an update of each client, which no codec makes longer than four bytes a
value and a bit for its position. A plain app may send two arrays more for each of the model's, as many do that send the
state of an optimizer like Adam along. Beside that there is room for names, headers, metrics and the reasons of
rejections. An honest app that sends still more is told so, and it is no fault for which a client is banned.
Flower has taken the message apart by then, so that the bytes are here; what is saved is all that would follow. To count
the bytes of 100,000 tiny arrays as Flower sends them takes seconds, in which the server does nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from strategies.layout import ModelLayout
from strategies.lazy_array import LazyArray

VALUE, SUMMED_VALUE = 5, 8  # bytes of a value in a client's own update, with its position, and in an exact sum
ARRAY = 256  # for the name of an array, what it claims of itself, and NumPy's header
SUM_ARRAYS = 2
PLAIN = 3  # times the model: its arrays, and the two moments of an optimizer
ROOM, ROOM_OF_EACH = 2**19, 2**14  # for 1000 metrics: names of 300 characters, and a number and a detail of each client

MEND = ": send the weights and their metrics alone."


@dataclass(frozen=True)
class Allowance:
    """The most ``arrays``, and the most ``bytes`` of all records together, that a reply may hold."""

    arrays: int
    bytes: int

    @classmethod
    def of(cls, layout: ModelLayout, clients: int) -> Allowance:
        """Return what the answer of so many clients may hold that train a model of this layout."""
        arrays = PLAIN * len(layout.names) + clients + SUM_ARRAYS
        values = max(PLAIN * layout.nbytes, SUMMED_VALUE * layout.size, VALUE * layout.size * clients)
        return cls(arrays, values + ARRAY * arrays + ROOM + ROOM_OF_EACH * clients)

    def excess(self, reply: Message) -> str:
        """Return in words what the reply has too much of; "" where it keeps within. An error holds nothing."""
        if reply.has_error():
            return ""
        arrays = sum(len(record) for record in reply.content.values() if isinstance(record, ArrayRecord))
        if arrays > self.arrays:
            return f"Its reply holds {arrays} arrays, but at most {self.arrays} were to be expected{MEND}"
        if (held := bytes_held(reply.content)) > self.bytes:
            return f"Its reply holds {held} bytes, but at most {self.bytes} were to be expected{MEND}"
        return ""


def bytes_held(content: RecordDict) -> int:
    """Return the bytes of all names and values, of which none is written, copied or decoded for that."""
    return sum(len(name) + _bytes_of_record(record) for name, record in content.items())


def _bytes_of_record(record: ArrayRecord | MetricRecord | ConfigRecord) -> int:
    if isinstance(record, ArrayRecord):
        return sum(len(name) + _bytes_of_array(array) for name, array in record.items())
    values: Mapping[str, object] = dict(record)
    return sum(len(key) + _bytes_of_value(value) for key, value in values.items())


def _bytes_of_array(array: Array) -> int:
    held = array.held if isinstance(array, LazyArray) else None
    claimed = len(array.dtype) + len(array.stype) + 8 * len(array.shape)
    return claimed + (len(array.data) if held is None else held.nbytes)


def _bytes_of_value(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, list):
        return 8
    return sum(map(len, value)) if value and isinstance(value[0], str | bytes) else 8 * len(value)
