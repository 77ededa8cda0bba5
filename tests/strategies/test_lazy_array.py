"""A lazily serialized array is to Flower what its own Array of the same values is, to the byte; nobody copies it."""

import copy
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from strategies import wire
from strategies.lazy_array import LazyArray
from tests.strategies.toy_federation import message_with, over_the_wire

DTYPES = ["f4", "f8", "f2", ">f4", "i1", "u1", "i8", ">i4", "u2", "?", "c8", "S3", "U2", "M8[s]"]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
any_array = st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), SHAPES))


def unpickled(pickled: bytes, buffers: Sequence[pickle.PickleBuffer] = ()) -> Any:
    return pickle.loads(pickled, buffers=buffers)  # noqa: S301 - made by the test itself


@given(any_array)
def test_flower_sees_its_own_array(array: np.ndarray) -> None:
    lazy, eager = LazyArray(array), Array(np.asarray(array, order="C"))
    assert lazy == eager and eager == lazy
    assert (lazy.dtype, lazy.shape, lazy.stype, lazy.data) == (eager.dtype, eager.shape, eager.stype, eager.data)
    assert lazy.object_id == eager.object_id
    assert lazy.deflate() == eager.deflate()
    assert list(lazy.children) == list(eager.children)
    assert repr(lazy) == repr(eager)


@given(any_array)
def test_what_is_read_from_it_is_what_flower_reads_from_its_bytes(array: np.ndarray) -> None:
    lazy = LazyArray(array)
    flowers = Array(lazy.dtype, lazy.shape, lazy.stype, lazy.data)
    for read in (lazy.numpy(), wire.decode(lazy)):
        for other in (flowers.numpy(), wire.decode(flowers)):
            assert (read.dtype, read.shape, read.tobytes()) == (other.dtype, other.shape, other.tobytes())


def test_more_than_a_chunk_is_cut_as_flower_cuts_it() -> None:
    array = np.arange(3_000_000, dtype=np.float32)  # 12 MB, chunks of 5 MiB
    lazy, eager = LazyArray(array), Array(array)
    assert list(lazy.children) == list(eager.children) and len(lazy.children) == 3
    assert lazy.deflate() == eager.deflate()


def test_different_values_shapes_and_dtypes_are_different() -> None:
    zeros = LazyArray(np.zeros(4, np.float32))
    others = [np.ones(4, np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int32), np.zeros(3, np.float32)]
    for other in others:
        assert zeros != LazyArray(other) and zeros != Array(other) and Array(other) != zeros
    assert zeros != "something else"


def test_it_inflates_as_flowers_own_and_still_equals() -> None:
    content = RecordDict({"arrays": wire.array_record({"a": np.arange(5.0), "b": np.array(2)})})
    back = over_the_wire(message_with(content)).content
    assert type(back["arrays"]["a"]) is Array
    assert back["arrays"]["a"] == content["arrays"]["a"]
    assert dict(back["arrays"]) == dict(content["arrays"])


def test_nothing_is_copied_and_nothing_written_before_it_is_asked_for() -> None:
    array = np.zeros(1000, np.float32)
    record = wire.array_record({"a": array})
    assert np.shares_memory(wire.decode(record["a"]), array)
    assert np.shares_memory(record["a"].numpy(), array)
    assert "data" not in record["a"].__dict__
    assert np.shares_memory(wire.record_of(dict(record))["a"].numpy(), array)
    assert "data" not in record["a"].__dict__


def test_who_reads_it_cannot_change_it_but_its_maker_keeps_a_writable_array() -> None:
    array = np.zeros(3, np.float32)
    lazy = LazyArray(array)
    for read in (lazy.numpy(), wire.decode(lazy)):
        with pytest.raises(ValueError, match="read-only"):
            read[0] = 1
    assert array.flags.writeable


def test_fortran_order_is_put_in_c_order_and_a_scalar_stays_one() -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert LazyArray(array).numpy().flags.c_contiguous
    np.testing.assert_array_equal(LazyArray(array).numpy(), array)
    assert LazyArray(np.array(3)).numpy().shape == ()


def test_python_objects_are_refused_as_flower_refuses_them() -> None:
    for array in (np.array([{}]), np.zeros(2, dtype=[("a", "O")])):
        with pytest.raises(ValueError, match="objects"):
            LazyArray(array)
        with pytest.raises(ValueError, match="Object arrays"):
            Array(array)


@given(any_array)
def test_a_pickle_is_lazy_again_and_its_elements_travel_out_of_band(array: np.ndarray) -> None:
    lazy = LazyArray(array)
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(lazy, protocol=5, buffer_callback=buffers.append)
    back = unpickled(pickled, buffers=buffers)
    assert isinstance(back, LazyArray) and back == lazy
    assert not back.numpy().flags.writeable
    assert "data" not in unpickled(pickled, buffers=buffers).__dict__


def test_the_pickle_of_a_large_array_is_small_and_shares_its_memory() -> None:
    array = np.zeros(1_000_000, np.float32)
    record = wire.array_record({"a": array})
    record["a"].data  # noqa: B018 - bytes once written must not travel too
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(record, protocol=5, buffer_callback=buffers.append)
    assert len(pickled) < 1000
    assert [buffer.raw().nbytes for buffer in buffers] == [4_000_000]
    back = unpickled(pickled, buffers=buffers)
    assert np.shares_memory(back["a"].numpy(), array)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda lazy: unpickled(pickle.dumps(lazy))])
def test_copies_are_equal(copied: object) -> None:
    lazy = LazyArray(np.arange(6.0).reshape(2, 3))
    again = copied(lazy)  # type: ignore[operator]
    assert isinstance(again, LazyArray) and again == lazy


def test_a_field_set_by_hand_counts_and_the_held_array_no_longer() -> None:
    lazy, other = LazyArray(np.zeros(3, np.float32)), Array(np.ones(3, np.float32))
    before = lazy.object_id
    lazy.data = other.data
    assert lazy.held is None and lazy == other and lazy.object_id != before
    assert lazy.numpy().tolist() == [1, 1, 1] and wire.decode(lazy).tolist() == [1, 1, 1]
    lazy = LazyArray(np.zeros(3, np.float32))
    lazy.stype = "other"
    with pytest.raises(wire.LayoutError):
        wire.decode(lazy)
    assert unpickled(pickle.dumps(lazy)) == lazy


def test_a_record_filled_at_once_is_flowers_record() -> None:
    """The probe of what `wire.filled` relies on in Flower."""
    arrays = {"a": Array(np.ones(2)), "b": Array(np.zeros(3))}
    filled, flowers = wire.record_of(arrays), ArrayRecord(arrays)
    assert filled == flowers and filled.object_id == flowers.object_id and list(filled) == list(flowers)
    filled["c"] = arrays["a"]
    assert len(filled) == 3 and len(arrays) == 2 and filled.object_id != flowers.object_id
