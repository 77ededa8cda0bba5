"""Sizes of messages: always the number of bytes that Flower itself would push, though nothing is written or hashed."""

import hashlib
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import message_size, wire
from strategies.lazy_array import LazyArray
from strategies.message_size import ByteCounter
from tests.strategies.toy_federation import message_with


def pushed_bytes(message: Message) -> int:
    """What Flower pushes for a message: every object of its tree once."""
    return sum(len(obj.deflate()) for obj in get_all_nested_objects(message).values())


def counted(*messages: Message, shared: ArrayRecord | None = None) -> int:
    counter = ByteCounter(shared)
    for message in messages:
        counter.add(message)
    return counter.total


NAMES = st.text(max_size=3)
DTYPES = ["f4", "f8", ">f4", "i8", "?", "S2"]
VALUES = st.sampled_from([0, 1, 2])  # few, so that equal arrays are common
SHAPES = st.sampled_from([(), (0,), (1,), (2, 2), (4,), (300,), (3, 100)])
NDARRAYS = st.builds(
    lambda shape, dtype, value: np.full(shape, value).astype(dtype), SHAPES, st.sampled_from(DTYPES), VALUES
)
ARRAYS = st.one_of(
    NDARRAYS.map(LazyArray),
    NDARRAYS.map(Array),
    st.builds(lambda data: Array("float32", (1,), "own", data), st.binary(max_size=5)),
    hnp.arrays(np.float32, 4).map(LazyArray),
)
ARRAY_RECORDS = st.dictionaries(NAMES, ARRAYS, max_size=5).map(wire.record_of)
METRICS = st.dictionaries(NAMES, st.one_of(st.integers(0, 2), st.lists(st.floats(), max_size=3)), max_size=3)
CONFIGS = st.dictionaries(NAMES, st.one_of(NAMES, st.booleans(), st.lists(NAMES, max_size=3)), max_size=3)
RECORDS = st.one_of(ARRAY_RECORDS, METRICS.map(MetricRecord), CONFIGS.map(ConfigRecord))


@settings(max_examples=300)
@given(st.dictionaries(NAMES, RECORDS, max_size=5))
def test_every_message_is_as_large_as_flower_makes_it(records: dict[str, ArrayRecord]) -> None:
    message = message_with(RecordDict(dict(records)))
    assert counted(message) == pushed_bytes(message)


@settings(max_examples=100)
@given(ARRAY_RECORDS, st.lists(st.dictionaries(NAMES, RECORDS, max_size=3), min_size=1, max_size=4))
def test_a_shared_record_is_counted_in_each_message_that_carries_it(
    shared: ArrayRecord, rest: list[dict[str, ArrayRecord]]
) -> None:
    """The last message carries the record under two names, one of the others not at all."""
    contents = [RecordDict({**records, "shared": shared}) for records in rest]
    contents[-1]["again"] = shared
    contents.append(RecordDict(dict(rest[0])))
    messages = [message_with(content) for content in contents]
    assert counted(*messages, shared=shared) == sum(map(pushed_bytes, messages))


def test_an_error_and_an_empty_content() -> None:
    request = message_with(RecordDict())
    request.metadata.__dict__["_message_id"] = "id"
    for message in (request, Message(Error(7, "why"), reply_to=request), Message(RecordDict(), reply_to=request)):
        assert counted(message) == pushed_bytes(message)


RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=3_000_000).astype(np.float32)  # 12 MB: three chunks
FLAT = np.zeros(4_000_000, np.float32)  # 16 MB: four chunks, of which two are equal


@pytest.mark.parametrize("as_array", [LazyArray, Array])
def test_arrays_of_many_chunks(as_array: type[Array]) -> None:
    arrays = {"noise": as_array(NOISE), "copy": Array(NOISE.copy()), "flat": as_array(FLAT), "part": Array(FLAT[:-1])}
    message = message_with(RecordDict({"a": wire.record_of(arrays)}))
    assert counted(message) == pushed_bytes(message)


@pytest.mark.parametrize("length", [2**20 - 1, 2**20, 5 * 2**20 - 128, 5 * 2**20 - 127, 5 * 2**20])
def test_sizes_around_a_chunk(length: int) -> None:
    message = message_with(RecordDict({"a": wire.array_record({"a": np.ones(length, np.uint8)})}))
    assert counted(message) == pushed_bytes(message)


@pytest.mark.parametrize("position", [0, 1, 250_000, 499_999, 500_000, 999_999])
def test_arrays_that_differ_in_one_element_are_two(position: int) -> None:
    """Wherever they differ: in what a sample of their bytes shows, or between."""
    other = np.zeros(1_000_000, np.float32)
    other[position] = 1
    pair = {"a": np.zeros_like(other), "b": other, "c": other.copy(), "d": np.zeros_like(other)}
    message = message_with(RecordDict({"a": wire.array_record(pair)}))
    assert counted(message) == pushed_bytes(message)


def test_equal_elements_of_another_dtype_or_shape_are_another_array() -> None:
    zeros = {"a": np.zeros(400, np.float32), "b": np.zeros(400, np.int32), "c": np.zeros((20, 20), np.float32)}
    message = message_with(RecordDict({"a": wire.array_record(zeros)}))
    assert counted(message) == pushed_bytes(message)


def updates(count: int) -> Message:
    arrays = {f"{k}/delta": RNG.normal(size=50_000).astype(np.float32) for k in range(count)}
    return message_with(RecordDict({"update": wire.array_record(arrays)}))


def test_different_updates_are_neither_written_nor_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    message = updates(10)
    monkeypatch.setattr(message_size._Bytes, "digest", lambda self: pytest.fail("hashed"))
    tracemalloc.start()
    try:
        counted(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    assert all("data" not in array.__dict__ for array in message.content["update"].values())


def test_each_array_is_hashed_once_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many look alike: else a client could make the server compare all with all."""
    calls = []

    def digest(self: message_size._Bytes) -> bytes:
        calls.append(1)
        return hashlib.sha256(self.joined()).digest()

    monkeypatch.setattr(message_size._Bytes, "digest", digest)
    alike = {}
    for k in range(50):
        array = np.zeros(1000, np.float32)
        array[100] = k  # where no sample looks
        alike[str(k)] = array
    message = message_with(RecordDict({"a": wire.array_record(alike)}))
    total = counted(message)
    assert len(calls) == 50
    assert total == pushed_bytes(message)
