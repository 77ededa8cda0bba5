"""The tf.data graphs behind `tasks.datasets.record_stream`: traced once per schema, for all parts and batch sizes.

Which files are read, how they are cut, the seed and the batch size are tensors. Tracing a pipeline anew for every
client and round would cost a fifth of a second each time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from tasks.datasets.record_stream import FILES_AT_ONCE
from tasks.datasets.silo_files import Schema

Make = Callable[..., tf.data.Dataset]

_KEPT = 16
_CHUNK, _CHUNK_BYTES = 256, 4 * 2**20
_GOLDEN = 2654435769  # 2**32 divided by the golden ratio: its multiples modulo 2**32 fall evenly, and never in step
_TEXT, _PATHS = tf.TensorSpec((), tf.string), tf.TensorSpec((None,), tf.string)
_NUMBER, _NUMBERS = tf.TensorSpec((), tf.int64), tf.TensorSpec((None, 5), tf.int64)


@functools.lru_cache(maxsize=_KEPT)
def batches_in_order(schema: Schema, one_file: bool) -> Make:
    """Return the function (name, paths, numbers, batch size, epochs) -> batches in the order of the files."""

    def make(
        name: tf.Tensor, paths: tf.Tensor, numbers: tf.Tensor, batch_size: tf.Tensor, epochs: tf.Tensor
    ) -> tf.data.Dataset:
        records = _in_order(paths, numbers, schema, one_file).batch(batch_size).repeat(epochs)
        return records.map(lambda batch: _parse(batch, name, schema)).prefetch(1)

    return tf.function(make, [_TEXT, _PATHS, _NUMBERS, _NUMBER, _NUMBER])  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=_KEPT)
def shuffled_batches(schema: Schema, one_file: bool) -> Make:
    """Return the function (name, paths, numbers, batch size, epochs, window, seed) -> batches, each epoch shuffled."""

    def make(
        name: tf.Tensor,
        paths: tf.Tensor,
        numbers: tf.Tensor,
        batch_size: tf.Tensor,
        epochs: tf.Tensor,
        window: tf.Tensor,
        seed: tf.Tensor,
    ) -> tf.data.Dataset:
        def epoch(number: tf.Tensor) -> tf.data.Dataset:
            if one_file:
                records = _records(paths[0], numbers[0], schema)
            else:
                files = tf.data.Dataset.from_tensor_slices((paths, numbers))
                files = _shuffle(files, tf.size(paths, tf.int64) + 1, seed, number)
                read = functools.partial(_records, schema=schema)
                records = files.interleave(read, cycle_length=FILES_AT_ONCE, block_length=1)
            return _shuffle(records, window, seed, number).batch(batch_size)

        batches = tf.data.Dataset.range(epochs).flat_map(epoch)
        return batches.map(lambda batch: _parse(batch, name, schema)).prefetch(1)

    return tf.function(make, [_TEXT, _PATHS, _NUMBERS, *[_NUMBER] * 4])  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=_KEPT)
def labels_in_order(schema: Schema, one_file: bool) -> Make:
    """Return the function (name, paths, numbers) -> checked labels in batches; x is not decoded."""

    def make(name: tf.Tensor, paths: tf.Tensor, numbers: tf.Tensor) -> tf.data.Dataset:
        records = _in_order(paths, numbers, schema, one_file)
        return records.batch(_CHUNK).map(lambda batch: _features(batch, name, schema)[1])

    return tf.function(make, [_TEXT, _PATHS, _NUMBERS])  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=_KEPT)
def parser(schema: Schema) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return the function (serialized examples, name) -> (x, y)."""

    def parse(records: tf.Tensor, name: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _parse(records, name, schema)

    return tf.function(parse, [_PATHS, _TEXT])  # type: ignore[no-any-return]


def check_first_record(path: Path, schema: Schema) -> None:
    """Parse the first record of a file. Raises tf.errors.OpError where it is corrupt or does not fit the schema."""
    record = next(iter(tf.data.TFRecordDataset(str(path))))
    parser(schema)(record[tf.newaxis], tf.constant("its first record"))


def with_fixed_order(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Forbid tf.data to trade order for speed, and spare it its tuning thread."""
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)


def _in_order(paths: tf.Tensor, numbers: tf.Tensor, schema: Schema, one_file: bool) -> tf.data.Dataset:
    """Read the serialized records of all slices. A stage for the files is spared where it can be: it costs 0.04 s."""
    if one_file:
        return _records(paths[0], numbers[0], schema)
    files = tf.data.Dataset.from_tensor_slices((paths, numbers))
    return files.flat_map(functools.partial(_records, schema=schema))


def _records(path: tf.Tensor, numbers: tf.Tensor, schema: Schema) -> tf.data.Dataset:
    """Read the serialized records of a slice, picked out by chunks: a call per record costs more than parsing."""
    start, size, held_out, salt, test = tf.unstack(numbers)
    chunk = max(1, min(_CHUNK, _CHUNK_BYTES // schema.num_bytes))

    def pick(number: tf.Tensor, records: tf.Tensor) -> tf.Tensor:
        positions = start + number * chunk + tf.range(tf.size(records, tf.int64))
        return tf.boolean_mask(records, tf.equal(_is_held_out(positions, size, held_out, salt), test > 0))

    return tf.data.TFRecordDataset(path).batch(chunk).enumerate().map(pick).unbatch()


def _is_held_out(position: tf.Tensor, size: tf.Tensor, held_out: tf.Tensor, salt: tf.Tensor) -> tf.Tensor:
    """Tell whether the record is the one that its stretch gives to the test part; see `Cut`. Integers, so exact."""
    parts = tf.maximum(held_out, 1)
    stretch = position * parts // size
    first, end = -(-stretch * size // parts), -(-(stretch + 1) * size // parts)
    offset = ((stretch * _GOLDEN + salt) % 2**32) * (end - first) // 2**32
    return (held_out > 0) & tf.equal(position, first + offset)


def _parse(records: tf.Tensor, name: tf.Tensor, schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
    """Turn a batch of serialized examples into x float32 [b, *shape] and y int32 [b]."""
    raw, y = _features(records, name, schema)
    fits = tf.reduce_all(tf.strings.length(raw) == schema.num_bytes)
    with tf.control_dependencies([_demand(fits, name, f"x must have {schema.num_bytes} bytes as schema.json says")]):
        flat = tf.io.decode_raw(raw, schema.dtype)
    x = tf.cast(tf.reshape(flat, [-1, *schema.shape]), tf.float32)
    if schema.dtype.startswith("float"):
        with tf.control_dependencies([_demand(tf.reduce_all(tf.math.is_finite(x)), name, "x is NaN or infinite")]):
            x = tf.identity(x)
    return (x if schema.scale == 1 else x * np.float32(schema.scale)), y


def _features(records: tf.Tensor, name: tf.Tensor, schema: Schema) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the bytes of x and the checked labels of a batch of serialized examples."""
    wanted = {"x": tf.io.FixedLenFeature([], tf.string), "y": tf.io.FixedLenFeature([], tf.int64)}
    features = tf.io.parse_example(records, wanted)
    y, classes = features["y"], schema.num_classes
    within = tf.reduce_all((y >= 0) & (y < classes))
    with tf.control_dependencies([_demand(within, name, f"y must be from 0 to {classes - 1}")]):
        return features["x"], tf.cast(y, tf.int32)


def _demand(holds: tf.Tensor, name: tf.Tensor, otherwise: str) -> tf.Operation:
    return tf.debugging.Assert(holds, [tf.strings.join([name, otherwise], ": ")])


def _shuffle(dataset: tf.data.Dataset, window: tf.Tensor, seed: tf.Tensor, epoch: tf.Tensor) -> tf.data.Dataset:
    kinds = tf.nest.flatten(dataset.element_spec)
    variant = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        buffer_size=window,
        seed=seed,
        seed2=epoch + 1,  # where both are 0 the operation takes a random seed
        reshuffle_each_iteration=False,
        output_types=[kind.dtype for kind in kinds],
        output_shapes=[kind.shape for kind in kinds],
    )
    return tf.data.experimental.from_variant(variant, dataset.element_spec)
