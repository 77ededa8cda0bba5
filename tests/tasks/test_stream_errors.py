"""The cause is found in TensorFlow's messages as they are when a stream is read eagerly and inside a function."""

from pathlib import Path

import pytest
import tensorflow as tf

from tasks.stream_errors import what_tensorflow_found


def read_eagerly(dataset: tf.data.Dataset) -> None:
    list(dataset)


@tf.function(reduce_retracing=True)
def read_in_graph(dataset: tf.data.Dataset) -> tf.Tensor:
    iterator = iter(dataset)
    return iterator.get_next()


def asserting(path: str) -> tf.data.Dataset:
    def check(value: tf.Tensor) -> tf.Tensor:
        with tf.control_dependencies([tf.debugging.Assert(value > 9, [tf.strings.join([path, "y is wrong"], ": ")])]):
            return tf.identity(value)

    return tf.data.Dataset.range(3).map(check)


@pytest.mark.parametrize("read", [read_eagerly, read_in_graph])
@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"nonsense" * 9, "corrupted record at 0 (Is this even a TFRecord file?)"),
        (None, "a.tfrecord; No such file or directory"),
    ],
)
def test_damaged_and_missing_files(tmp_path: Path, read: object, content: bytes | None, cause: str) -> None:
    path = tmp_path / "a.tfrecord"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(tf.errors.OpError) as error:
        read(tf.data.TFRecordDataset(str(path)))
    assert what_tensorflow_found(error.value).endswith(cause)
    assert "\n" not in what_tensorflow_found(error.value)


@pytest.mark.parametrize("read", [read_eagerly, read_in_graph])
def test_assertions(read: object) -> None:
    with pytest.raises(tf.errors.OpError) as error:
        read(asserting("silo [a]"))
    assert what_tensorflow_found(error.value) == "silo [a]: y is wrong"


def test_an_error_without_words_is_named_by_its_kind() -> None:
    assert what_tensorflow_found(tf.errors.DataLossError(None, None, "")) == "DataLossError"
