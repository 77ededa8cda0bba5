"""How many bytes a message has as Flower sends it, without writing them: sizes follow from names, shapes and dtypes.

Flower sends a message as a tree of objects (message, records, arrays, chunks of arrays), each named by the SHA-256 of
what is written of it, equal ones once; every node fetches all objects of its message. To hash megabytes only to count
them takes longer than to train a client. Here an object is known by a number, and two objects get the same number if
and only if the same bytes would be written of them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE as CHUNK
from flwr.common.serde_utils import error_to_proto, metadata_to_proto
from flwr.proto.message_pb2 import Message as MessageProto

from strategies.lazy_array import LazyArray

ID = "0" * 64  # as long as the name of any object
SAMPLE = 64
KEPT = 64  # texts on arrays: more than most models have, and little even where a client has made them long

Sizes = dict[int, int]  # of objects by their number
Record = ArrayRecord | ConfigRecord | MetricRecord


class ByteCounter:
    """Counts bytes of messages as Flower serializes and sends them.

    ``shared`` is the record that many messages of the round carry: it is measured once.
    """

    def __init__(self, shared: ArrayRecord | None = None) -> None:
        self._shared = shared
        self._measured: tuple[_Tree, int, Sizes] | None = None
        self.total = 0

    def add(self, message: Message) -> None:
        """Add the size of one message to ``total``."""
        self.total += _envelope(message)
        if message.has_content():
            self.total += sum(self._contents(message.content).values())

    def _contents(self, content: RecordDict) -> Sizes:
        if self._shared is None or not any(record is self._shared for record in content.values()):
            tree = _Tree()
            tree.records(content)
            return tree.sizes
        if self._measured is None:
            tree = _Tree()
            number = tree.record(self._shared)
            self._measured = tree, number, dict(tree.sizes)
        known, number, sizes = self._measured
        tree = _Tree(dict(known.numbers), dict(known.twins), dict(sizes))
        tree.records(content, {id(self._shared): number})
        return tree.sizes


def size_of(array: Array) -> int:
    """Return the size of an array alone, as Flower sends it in a message."""
    tree = _Tree()
    tree._array(array)
    return sum(tree.sizes.values())


@dataclass
class _Tree:
    """The objects met so far: their numbers by what is written of them, and their sizes by number.

    ``twins`` holds what looked the same in size and in a sample of bytes: only of these are the contents hashed.
    """

    numbers: dict[Hashable, int] = field(default_factory=dict)
    twins: dict[Hashable, _Bytes | None] = field(default_factory=dict)
    sizes: Sizes = field(default_factory=dict)

    def records(self, content: RecordDict, known: dict[int, int] | None = None) -> int:
        """Take down a message's content; ``known`` has the numbers of records that were met, by `id`."""
        given = known or {}
        found = [
            (name, given[id(record)] if id(record) in given else self.record(record))
            for name, record in content.items()
        ]
        return self._named("RecordDict", found)

    def record(self, record: Record) -> int:
        if isinstance(record, ArrayRecord):
            return self._named("ArrayRecord", [(name, self._array(array)) for name, array in record.items()])
        written = record.deflate()
        return self._number(written, len(written))

    def _named(self, kind: str, children: list[tuple[str, int]]) -> int:
        """Take down a mapping of names to objects: written as JSON, with each object's own name."""
        body = _names_written(tuple(name for name, _ in children))
        return self._number((kind, tuple(children)), _written(kind, len({child for _, child in children}), body))

    def _array(self, array: Array) -> int:
        contents = _Bytes.of(array)
        chunks = [self._chunk(contents[start : start + CHUNK]) for start in range(0, len(contents), CHUNK)]
        places = {chunk: place for place, chunk in enumerate(dict.fromkeys(chunks))}
        body = _array_written(array.dtype, tuple(array.shape), array.stype, tuple(places[chunk] for chunk in chunks))
        return self._number(("Array", body, tuple(places)), _written("Array", len(places), len(body)))

    def _chunk(self, part: _Bytes) -> int:
        return self._number(self._distinguished(part), _written("ArrayChunk", 0, len(part)))

    def _distinguished(self, part: _Bytes) -> Hashable:
        """Return what tells a chunk from others: length and a sample, and from the second such one on a hash."""
        look = (len(part), part.sample())
        if look not in self.twins:
            self.twins[look] = part
            return look
        first = self.twins[look]
        if first is not None:
            self.numbers[look, first.digest()] = self.numbers[look]
            self.twins[look] = None
        return look, part.digest()

    def _number(self, key: Hashable, size: int) -> int:
        number = self.numbers.setdefault(key, len(self.numbers))
        self.sizes[number] = size
        return number


def _envelope(message: Message) -> int:
    """Return the size of a message as an object: its metadata without its own name, and the name of its content."""
    metadata = metadata_to_proto(message.metadata)
    metadata.message_id = ""
    proto = MessageProto(metadata=metadata, error=error_to_proto(message.error) if message.has_error() else None)
    return _written("Message", 1 if message.has_content() else 0, proto.ByteSize())


def _written(kind: str, children: int, body: int) -> int:
    """Return the size of an object with so many different children and such a body, in bytes.

    It is "<kind> <names of children> <length of the body>", a zero, the body.
    """
    return len(f"{kind}  {body}") + children * len(ID) + max(0, children - 1) + 1 + body


@functools.lru_cache(maxsize=KEPT)
def _names_written(names: tuple[str, ...]) -> int:
    """Return the length of a mapping of these names to names of objects as JSON."""
    return len(json.dumps(dict.fromkeys(names, ID)))


@functools.lru_cache(maxsize=KEPT)
def _array_written(dtype: str, shape: tuple[int, ...], stype: str, chunks: tuple[int, ...]) -> str:
    """Return what is written of an array beside its chunks, which are called by their places among them."""
    return json.dumps({"dtype": dtype, "shape": shape, "stype": stype, "arraychunk_ids": chunks})


@dataclass(frozen=True)
class _Bytes:
    """The bytes of an array, or a part of them, that need not lie in one piece: a header, and the elements."""

    header: bytes
    elements: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, array: Array) -> _Bytes:
        held = array.held if isinstance(array, LazyArray) else None
        if held is None or held.dtype.kind not in "biufc":
            return cls(b"", np.frombuffer(array.data, np.uint8))
        return cls(_header(held.dtype, held.shape), held.reshape(-1).view(np.uint8))

    def __len__(self) -> int:
        return len(self.header) + len(self.elements)

    def __getitem__(self, place: slice) -> _Bytes:
        if place.start == 0 and place.stop >= len(self):
            return self
        offset = len(self.header)
        return _Bytes(self.header[place], self.elements[max(0, place.start - offset) : max(0, place.stop - offset)])

    def joined(self) -> bytes:
        return self.header + self.elements.tobytes()

    def sample(self) -> bytes:
        """Return some bytes from the middle and the end: the beginning of all arrays of a shape is the same."""
        if len(self) <= 4 * SAMPLE:
            return self.joined()
        middle = len(self) // 2
        return self[middle : middle + SAMPLE].joined() + self.elements[-SAMPLE:].tobytes()

    def digest(self) -> bytes:
        return hashlib.sha256(self.joined()).digest()


@functools.lru_cache(maxsize=1024)
def _header(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Return the header that NumPy's format begins with; of numbers it is never too long for the first version."""
    stream = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, description)
    return stream.getvalue()
