"""Bytes of each client's update: all of them together are what Flower would push, whatever replies look like."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict

from strategies import wire
from strategies.client import Row, pack_content
from strategies.compression import payload
from strategies.fixed_point import FixedPointSum
from strategies.lazy_array import LazyArray
from strategies.message_size import size_of
from strategies.requests import bytes_of
from strategies.uplink import Uplink
from tests.strategies.test_message_size import pushed_bytes
from tests.strategies.toy_federation import message_with


def reply(content: RecordDict) -> Message:
    return Message(content, reply_to=message_with(RecordDict()))


def compressed(seed: int, count: int) -> payload.Array:
    return payload.written(np.random.default_rng(seed).integers(0, 256, count, np.uint8))


def told(message: Message, clients: int) -> Uplink:
    uplink = Uplink()
    uplink.add(message, clients, bytes_of(message))
    return uplink


def test_each_clients_own_bytes_and_its_share_of_the_rest() -> None:
    arrays = [compressed(1, 100), compressed(2, 5000)]
    rows = [Row(name, update={"delta": array}) for name, array in zip("ab", arrays, strict=True)]
    message = reply(pack_content([*rows, Row("c", reason="error")], None))
    uplink = told(message, 3)
    assert sum(uplink.sizes) == pytest.approx(pushed_bytes(message))
    assert uplink.sizes[1] - uplink.sizes[0] == size_of(arrays[1]) - size_of(arrays[0])
    assert 4900 <= uplink.sizes[1] - uplink.sizes[0] < 4910  # lengths are written in decimal


def test_a_sum_is_everybodys_in_equal_parts() -> None:
    total = FixedPointSum(50)
    for _ in range(3):
        total.add(np.ones(50, np.float32), 1.0)
    message = reply(pack_content([Row(name) for name in "abc"], total))
    uplink = told(message, 3)
    assert uplink.sizes == [bytes_of(message) / 3] * 3


def test_a_stock_reply_is_its_clients() -> None:
    arrays = wire.array_record({"kernel": np.ones((3, 4), np.float32), "bias": np.ones(3, np.float32)})
    message = reply(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 3})}))
    assert told(message, 1).sizes == [bytes_of(message)]


def test_who_sent_nothing_is_not_counted() -> None:
    failed = Message(Error(3, "no battery"), reply_to=message_with(RecordDict()))
    nothing = reply(pack_content([Row("a", reason="error")], None))
    odd = reply(RecordDict({"update": MetricRecord({"a": 1.0})}))
    empty = reply(RecordDict({"update": ArrayRecord()}))
    for message in (failed, nothing, odd, empty):
        assert told(message, 1).told(np.ones(3, np.float32)) is None


def test_the_mean_the_largest_and_the_dense_size() -> None:
    flat = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    dense = reply(pack_content([Row("a", update={"delta": LazyArray(flat)})], None))
    uplink = told(dense, 1)
    found = uplink.told(flat)
    assert found is not None and found["dense"] == size_of(LazyArray(flat))
    assert found["mean"] == found["largest"] == bytes_of(dense) > found["dense"] > 4000
    small = reply(pack_content([Row("a", update={"delta": compressed(1, 40)})], None))
    uplink.add(small, 1, bytes_of(small))
    both = uplink.told(flat)
    assert both is not None and both["largest"] == bytes_of(dense)
    assert both["mean"] == (bytes_of(dense) + bytes_of(small)) / 2
