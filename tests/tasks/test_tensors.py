import gc

import numpy as np
import pytest
import tensorflow as tf

from tasks.tensors import ALIGNMENT, FlatFunction, KeptTensors, aligned_zeros, lent, read_only


def test_a_flat_function_gives_what_the_function_gives_and_keeps_its_variables():
    total = tf.Variable(0.0)

    def add(x, y):
        total.assign_add(tf.reduce_sum(x))
        return {"product": x * y, "total": total.read_value()}

    function = FlatFunction(add, [tf.TensorSpec((3,)), tf.TensorSpec(())])
    x = tf.constant([1.0, 2.0, 3.0])
    for call in (1, 2):
        product, added = function(x, tf.constant(2.0))
        np.testing.assert_array_equal(product, [2, 4, 6])
        assert float(added) == float(total) == 6 * call


def test_a_flat_function_without_outputs_still_runs():
    number = tf.Variable(1.0)
    FlatFunction(lambda x: [number.assign(x), None][1], [tf.TensorSpec(())])(tf.constant(5.0))
    assert float(number) == 5


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64, tf.float16, tf.int32, tf.int64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_a_result_is_a_read_only_view_that_outlives_its_tensor(dtype, shape):
    tensor = tf.fill(shape, tf.constant(7, dtype))
    one, two = read_only(tensor), read_only(tensor)
    assert (one.shape, one.dtype) == (shape, dtype.as_numpy_dtype)
    assert one.size == 0 or np.shares_memory(one, two)
    with pytest.raises(ValueError, match="read-only"):
        one[...] = 0
    del tensor, two
    gc.collect()
    np.testing.assert_array_equal(one, np.full(shape, 7))


def test_a_result_that_has_no_buffer_is_copied():
    array = read_only(tf.constant([1.5, 2.5], tf.bfloat16))
    assert not array.flags.writeable
    np.testing.assert_array_equal(array.astype(np.float32), [1.5, 2.5])


@pytest.mark.parametrize("shape", [(), (1,), (0, 2), (5, 3), (17,)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
def test_what_is_written_to_a_lent_array_is_in_its_tensor(shape, dtype):
    array = aligned_zeros(shape, dtype)
    assert (array.shape, array.dtype, array.ctypes.data % ALIGNMENT) == (shape, dtype, 0)
    assert not array.any()
    tensor = lent(array)
    array[...] = 3
    np.testing.assert_array_equal(tensor + 1, np.full(shape, 4))


class Conversions:
    """Counts how often weights are converted."""

    def __init__(self):
        self.kept, self.number = KeptTensors(), 0

    def get(self, arrays):
        def convert():
            self.number += 1
            return [tf.constant(array) for array in arrays]

        return self.kept.get(arrays, convert)


def fixed(*values):
    array = np.array(values)
    array.flags.writeable = False
    return array


def test_arrays_that_cannot_change_are_converted_once():
    conversions = Conversions()
    arrays = [fixed(1.0, 2.0), np.frombuffer(bytes(8)), read_only(tf.constant([4.0]))]
    first = conversions.get(arrays)
    assert conversions.get(list(arrays)) is first  # another list of the same arrays
    assert conversions.get([*arrays[:2], fixed(4.0)]) is not first
    assert conversions.get(arrays[:2]) is not first
    assert conversions.number == 3


@pytest.mark.parametrize("writable", [np.ones(2), np.broadcast_to(np.ones(2), (3, 2)), np.frombuffer(bytearray(8))])
def test_arrays_that_can_change_are_converted_each_time(writable):
    conversions = Conversions()
    view = writable.view()
    view.flags.writeable = False
    for _ in range(2):
        np.testing.assert_array_equal(conversions.get([fixed(1.0), view])[1], view)
        if writable.flags.writeable:
            writable += 1
    assert conversions.number == 2
