"""TFRecord silos: what is written is read, in an order that the seed alone decides, without holding it in memory."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.datasets.silo_counts
from tasks.data import Examples, Stream
from tasks.datasets import DataSpec, load_data
from tasks.datasets.record_stream import BUFFER_BYTES, Cut
from tasks.datasets.silo_files import DTYPES
from tasks.datasets.tfrecord import SiloData, open_silos, write_silos
from tasks.errors import TaskError
from tasks.local_training import LocalTraining
from tasks.models import build_model
from tasks.partition import Partition
from tasks.training import trainer
from tests.conftest import REPOSITORY

CLASSES = 5


def numbered(count: int, first: int = 0, shape: tuple[int, ...] = (2, 2, 1)) -> tuple[np.ndarray, np.ndarray]:
    """Examples that carry their number, labels in turns."""
    x = np.zeros((count, *shape), np.float32)
    x.reshape(count, -1)[:, 0] = np.arange(first, first + count)
    return x, np.arange(count) % CLASSES


def numbers(stream: Stream, batch_size: int = 8, seed: int | None = None, epochs: int = 1) -> list[list[int]]:
    """The numbers of the examples, batch by batch."""
    return [x[:, 0, 0, 0].astype(int).tolist() for x, _ in read(stream, batch_size, seed, epochs)]


def read(stream: Stream, batch_size: int = 8, seed: int | None = None, epochs: int = 1) -> list:
    return list(stream.batches(batch_size, seed=seed, epochs=epochs).as_numpy_iterator())


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_silos(tmp_path / "silos", {"north": numbered(53), "south": numbered(20, 100)}, num_classes=CLASSES)
    return tmp_path / "silos"


# What is written is read


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_scaled(tmp_path: Path, dtype: str) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 100, (9, 3, 2)).astype(dtype)
    y = generator.integers(0, 4, 9)
    write_silos(tmp_path / "d", {"a": (x, y)}, scale=0.25)
    data = open_silos(tmp_path / "d", "d", client_test_fraction=0)
    batches = read(data.train("a"), batch_size=4)
    assert [len(labels) for _, labels in batches] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), x.astype(np.float32) * np.float32(0.25))
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), y)
    assert (batches[0][0].dtype, batches[0][1].dtype) == (np.float32, np.int32)


def test_load_data_opens_a_folder(folder: Path) -> None:
    data = load_data(DataSpec(f"tfrecord:{folder}", Partition("natural"), 0.2, 0.25, 0))
    assert data.client_ids == ("north", "south")
    assert (data.name, data.num_classes, data.input_shape) == (f"tfrecord:{folder}", CLASSES, (2, 2, 1))
    assert [data.num_train(c) for c in data.client_ids] == [40, 15]
    assert [len(data.test(c)) for c in data.client_ids] == [13, 5]
    expected = [np.bincount(np.concatenate([y for _, y in read(data.train(c))]), minlength=5) for c in data.client_ids]
    np.testing.assert_array_equal(data.label_counts(), expected)


def test_silos_may_be_files_and_folders_with_test_parts(folder: Path) -> None:
    (folder / "west").mkdir()
    write_silos(
        folder.parent / "more",
        {"b": numbered(9, 200), "a": numbered(4, 300), "c": numbered(3, 400), "t": numbered(2, 500)},
        num_classes=CLASSES,
    )
    for source, target in {"a": "west/2", "b": "west/1", "c": "north.test", "t": "test"}.items():
        (folder.parent / "more" / f"{source}.tfrecord").rename(folder / f"{target}.tfrecord")
    (folder / "README.md").write_text("not a silo")
    (folder / ".north.tfrecord").write_text("half written")
    data = open_silos(folder, "d")
    assert data.client_ids == ("north", "south", "west")
    assert flat(numbers(data.train("north"))) == list(range(53))
    assert flat(numbers(data.test("north"))) == [400, 401, 402]
    assert flat(numbers(data.central_test())) == [500, 501]
    west = [*range(200, 209), *range(300, 304)]
    assert sorted(flat(numbers(data.train("west")) + numbers(data.test("west")))) == west
    assert flat(numbers(data.train("west"))) == sorted(flat(numbers(data.train("west"))))


def test_without_a_central_test_set_the_silos_test_parts_are_it(folder: Path) -> None:
    data = open_silos(folder, "d")
    own = flat(numbers(data.test("north")) + numbers(data.test("south")))
    assert flat(numbers(data.central_test())) == own
    assert len(data.central_test()) == len(own) == 11 + 4


def test_a_folder_with_a_central_test_set_alone_has_no_clients(tmp_path: Path) -> None:
    write_silos(tmp_path / "d", {}, test=numbered(7), num_classes=CLASSES)
    data = open_silos(tmp_path / "d", "d")
    assert data.client_ids == ()
    assert data.label_counts().shape == (0, CLASSES)
    assert len(data.central_test()) == 7


# Train and test parts


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.999), st.integers(0, 99))
def test_each_record_is_in_one_part_and_the_sizes_are_as_announced(count: int, fraction: float, seed: int) -> None:
    folder = Path(os.environ["FEDKERAS_CACHE"]) / f"part-{count}"
    if not folder.exists():
        write_silos(folder, {"a": numbered(count)}, num_classes=CLASSES)
    data = open_silos(folder, "d", fraction, seed)
    train, test = flat(numbers(data.train("a"))), flat(numbers(data.test("a")))
    assert sorted(train + test) == list(range(count))
    assert (len(train), len(test)) == (data.num_train("a"), len(data.test("a")))
    assert len(test) == max(0, min(round(fraction * count), count - 1))


def test_the_test_part_is_spread_and_does_not_follow_the_order_of_the_labels(tmp_path: Path) -> None:
    write_silos(tmp_path / "d", {"a": numbered(500)}, num_classes=CLASSES)
    data = open_silos(tmp_path / "d", "d", client_test_fraction=0.2)
    test = np.array(flat(numbers(data.test("a"))))
    np.testing.assert_array_equal(test // 5, np.arange(100))  # one of every five
    assert np.bincount(test % CLASSES, minlength=CLASSES).min() >= 15  # every fifth by position would be one class only
    other = flat(numbers(open_silos(tmp_path / "d", "d", 0.2, seed=1).test("a")))
    assert other != test.tolist()


# Order


def test_each_epoch_is_a_permutation_of_its_own_that_the_seed_decides(folder: Path) -> None:
    stream = open_silos(folder, "d", client_test_fraction=0).train("north")
    batches = numbers(stream, batch_size=8, seed=5, epochs=3)
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 8, 5] * 3
    epochs = [flat(batches[i : i + 7]) for i in (0, 7, 14)]
    assert all(sorted(epoch) == list(range(53)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert numbers(stream, seed=5, epochs=3) == batches
    assert numbers(stream, seed=5, epochs=1) == batches[:7]
    assert flat(numbers(stream, batch_size=50, seed=5)) == epochs[0]
    assert flat(numbers(stream, seed=6)) != epochs[0]
    assert flat(numbers(stream, seed=2**63 - 1)) != epochs[0]
    assert (
        numbers(stream, epochs=2)
        == numbers(stream) * 2
        == [list(range(i, min(i + 8, 53))) for i in range(0, 53, 8)] * 2
    )


def test_seed_zero_is_a_seed_and_shapes_are_known(folder: Path) -> None:
    stream = open_silos(folder, "d").train("north")
    spec = stream.batches(4, seed=0, epochs=2).element_spec
    assert spec == (tf.TensorSpec((None, 2, 2, 1), tf.float32), tf.TensorSpec((None,), tf.int32))
    assert numbers(stream, seed=0) == numbers(stream, seed=0)


def test_many_files_are_mixed_in_an_order_drawn_anew(tmp_path: Path) -> None:
    write_silos(tmp_path / "d", {f"{k:02}": numbered(5, 5 * k) for k in range(20)}, num_classes=CLASSES)
    (tmp_path / "d" / "one").mkdir()
    for path in (tmp_path / "d").glob("*.tfrecord"):
        path.rename(tmp_path / "d" / "one" / path.name)
    data = open_silos(tmp_path / "d", "d")
    whole = flat(numbers(data.train("one"), seed=1) + numbers(data.test("one"), seed=1))
    assert sorted(whole) == list(range(100))
    assert len(data.test("one")) == 20


def test_the_global_seed_and_what_ran_before_change_nothing(folder: Path) -> None:
    stream = open_silos(folder, "d").train("north")
    before = numbers(stream, seed=5, epochs=2)
    tf.random.set_seed(99)
    tf.random.normal([3])
    list(tf.data.Dataset.range(9).shuffle(9))
    dataset = stream.batches(8, seed=5, epochs=2)
    for _ in range(2):
        assert [x[:, 0, 0, 0].astype(int).tolist() for x, _ in dataset.as_numpy_iterator()] == before


OTHER_PROCESS = """
import hashlib, json, resource, sys
import numpy as np, tensorflow as tf
from pathlib import Path
from tasks.datasets.tfrecord import open_silos
tf.random.set_seed(1)
list(tf.data.Dataset.range(9).shuffle(9))
small = open_silos(Path(sys.argv[1]), "d").train("north")
digest = hashlib.sha256()
for x, y in small.batches(8, seed=5, epochs=3).as_numpy_iterator():
    digest.update(x.tobytes() + y.tobytes())
big = open_silos(Path(sys.argv[2]), "d", client_test_fraction=0).train("a")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seen = sum(len(y) for seed in (1, None) for _, y in big.batches(4, seed=seed, epochs=1).as_numpy_iterator())
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps({"digest": digest.hexdigest(), "seen": seen, "grown": grown}))
"""


def test_another_process_reads_the_same_order_and_holds_no_whole_silo(folder: Path, tmp_path: Path) -> None:
    count, size = 600, 2**19
    block = np.arange(count, dtype=np.uint8)[:, None]
    write_silos(tmp_path / "big", {"a": (np.broadcast_to(block, (count, size)), np.arange(count) % 2)})
    assert (tmp_path / "big" / "a.tfrecord").stat().st_size > count * size > 4.5 * BUFFER_BYTES
    run = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, folder, tmp_path / "big"],
        capture_output=True, check=True, text=True, cwd=REPOSITORY, env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    told = json.loads(run.stdout)
    digest = hashlib.sha256()
    for x, y in read(open_silos(folder, "d").train("north"), 8, 5, 3):
        digest.update(x.tobytes() + y.tobytes())
    assert told["digest"] == digest.hexdigest()
    assert told["seen"] == 2 * count
    assert told["grown"] < 2.5 * BUFFER_BYTES  # of 4.7 times as much


def test_taking_a_first_batch_reads_no_further_than_it_must(tmp_path: Path) -> None:
    write_silos(tmp_path / "d", {"a": numbered(2000)}, num_classes=CLASSES)
    data = open_silos(tmp_path / "d", "d", client_test_fraction=0)
    damage(tmp_path / "d" / "a.tfrecord", -10)
    assert next(iter(data.train("a").batches(8, seed=None, epochs=1)))[1].shape == (8,)
    with pytest.raises(tf.errors.DataLossError):
        read(data.train("a"))


# Counting


def test_counts_are_kept_until_a_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_silos(folder, "d")
    labels = first.label_counts()
    monkeypatch.setattr(tasks.datasets.silo_counts, "count_records", None)
    monkeypatch.setattr("tasks.datasets.record_stream.RecordStream.count_labels", None)
    again = open_silos(folder, "d")
    assert [again.num_train(c) for c in again.client_ids] == [42, 16]
    np.testing.assert_array_equal(again.label_counts(), labels)
    os.utime(folder / "north.tfrecord", ns=(1, 1))
    with pytest.raises(TypeError):
        open_silos(folder, "d")


@pytest.mark.parametrize("content", [b"", b"[-1]", b"[1, 2]", b'{"a": 1}', b"\xff\xfe"])
def test_a_damaged_cache_entry_is_made_anew(folder: Path, content: bytes) -> None:
    open_silos(folder, "d").label_counts()
    for path in (Path(os.environ["FEDKERAS_CACHE"]) / "silos").iterdir():
        path.write_bytes(content)
    data = open_silos(folder, "d")
    assert [data.num_train(c) for c in data.client_ids] == [42, 16]
    assert data.label_counts().sum() == 58


def test_a_cache_that_cannot_be_written_only_costs_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDKERAS_CACHE", "/proc/nowhere")
    assert open_silos(folder, "d").num_train("north") == 42


def test_counting_does_not_read_what_is_between(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tfrecord"
    with path.open("wb") as file:
        for _ in range(50):
            file.write((2**30).to_bytes(8, "little") + bytes(4))
            file.seek(2**30 + 4, 1)
        file.truncate()
    schema = tasks.datasets.silo_files.Schema((2,), "uint8", 2)
    before = bytes_read()
    assert tasks.datasets.silo_files.count_records(path, schema) == 50
    assert bytes_read() - before < 2**20


def bytes_read() -> int:
    """What this process has read so far, as Linux counts it."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["rchar"])


# Training


def test_a_trainer_takes_streams_as_it_takes_arrays(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=(37, 6)).astype(np.float32), generator.integers(0, 3, 37)
    write_silos(tmp_path / "d", {"a": (x, y)}, num_classes=3)
    stream = open_silos(tmp_path / "d", "d", client_test_fraction=0).train("a")
    own = trainer("logistic", (6,), 3, LocalTraining(batch_size=37, epochs=4))
    weights = build_model("logistic", (6,), 3, seed=0).get_weights()
    arrays = Examples(x, y.astype(np.int32))
    for streamed, expected in zip(
        own.train(weights, stream, 0.1, seed=2).weights, own.train(weights, arrays, 0.1, seed=2).weights, strict=True
    ):
        np.testing.assert_allclose(streamed, expected, atol=1e-6)  # whole batches: the order only moves the rounding
    assert own.evaluate(weights, stream).accuracy == own.evaluate(weights, arrays).accuracy


def test_a_record_that_is_corrupt_later_on_is_a_task_error_in_training(tmp_path: Path) -> None:
    write_silos(tmp_path / "d", {"a": (np.ones((2000, 6), np.float32), np.arange(2000) % 2)})
    data = open_silos(tmp_path / "d", "d")
    damage(tmp_path / "d" / "a.tfrecord", -10)
    own = trainer("logistic", (6,), 2, LocalTraining(batch_size=50))
    weights = build_model("logistic", (6,), 2, seed=0).get_weights()
    with pytest.raises(TaskError, match="corrupt"):
        own.train(weights, data.train("a"), 0.1, seed=2)
    with pytest.raises(TaskError, match="'a' has a record that is corrupt or wrong: corrupted record at"):
        data.label_counts()


def test_a_file_that_is_gone_is_a_task_error(folder: Path) -> None:
    data = open_silos(folder, "d")
    (folder / "south.tfrecord").unlink()
    with pytest.raises(TaskError, match="A file of 'south' cannot be read any more"):
        data.label_counts()


# What is wrong with a folder


def damage(path: Path, place: int) -> None:
    """Flip a bit, and leave size and time as they are, so that the counts in the cache still hold."""
    before = path.stat()
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def refused(folder: Path, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence) as error:
        open_silos(folder, "tfrecord:d").label_counts()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        (None, "no '.*schema.json': .*folder with schema.json, as in"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("\xff", "cannot be read as JSON"),
        ("[1]", "one object with the keys shape, dtype"),
        ('{"shape": [2], "dtype": "uint8"}', "one object with the keys"),
        ('{"shape": [2], "dtype": "uint8", "num_classes": 2, "scael": 1}', "and no others"),
        ('{"shape": 2, "dtype": "uint8", "num_classes": 2}', "shape is 2, but must be a list"),
        ('{"shape": [], "dtype": "uint8", "num_classes": 2}', "shape is .* whole numbers from 1"),
        ('{"shape": [0], "dtype": "uint8", "num_classes": 2}', "whole numbers from 1"),
        ('{"shape": [true], "dtype": "uint8", "num_classes": 2}', "whole numbers from 1"),
        ('{"shape": [99999999, 99999999], "dtype": "uint8", "num_classes": 2}', "too large"),
        ('{"shape": [2], "dtype": "uint32", "num_classes": 2}', "dtype is 'uint32', but must be one of uint8, int8"),
        ('{"shape": [2], "dtype": ["uint8"], "num_classes": 2}', "but must be one of"),
        ('{"shape": [2], "dtype": "uint8", "num_classes": 1}', "num_classes is 1, but"),
        ('{"shape": [2], "dtype": "uint8", "num_classes": 2, "scale": 0}', "scale is 0, but"),
        ('{"shape": [2], "dtype": "uint8", "num_classes": 2, "scale": NaN}', "scale is nan, but"),
        ('{"shape": [2], "dtype": "uint8", "num_classes": 2, "scale": "1/255"}', "scale is '1/255', but"),
    ],
)
def test_a_wrong_schema_is_a_sentence(folder: Path, schema: str | None, sentence: str) -> None:
    path = folder / "schema.json"
    path.unlink() if schema is None else path.write_text(schema, encoding="latin-1")
    refused(folder, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shape": [2, 1, 1]}, "its first record: x must have 8 bytes as schema.json says"),
        ({"shape": [9, 9]}, "record 0 has .* bytes, but x of dtype float32 and shape .* takes 324"),
        ({"dtype": "float16"}, "its first record: x must have 8 bytes"),
        ({"num_classes": 3}, "'north' has a record that is corrupt or wrong: .*y must be from 0 to 2"),
    ],
)
def test_records_that_do_not_fit_the_schema_are_a_sentence(folder: Path, change: dict, sentence: str) -> None:
    path = folder / "schema.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(folder, sentence)


def test_a_file_that_is_cut_off_or_damaged_is_a_sentence(folder: Path) -> None:
    path = folder / "south.tfrecord"
    whole = path.read_bytes()
    for cut in (1, 5, len(whole) // 20 - 3, len(whole) - 7):
        path.write_bytes(whole[:-cut])
        refused(folder, r"south\.tfrecord' is corrupt or cut off at record \d+")
    path.write_bytes(whole[:30] + b"\xff" + whole[31:])
    refused(folder, r"south\.tfrecord' does not fit schema.json or is corrupt: corrupted record at")
    path.write_bytes(b"\xff" * 500)
    refused(folder, "is corrupt or cut off at record 0")


def example(**features: object) -> bytes:
    def feature(value: object) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=value))

    named = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (example(x=bytes(16)), "Feature: y .*required but could not be found"),
        (example(image=bytes(16), y=[1]), "Feature: x .*required but could not be found"),
        (example(x=[1] * 40, y=[1]), "Key: x, Index: 0.  Data types don't match"),
        (example(x=bytes(16), y=[1, 2]), "Key: y"),
        (example(x=bytes(16), y=[-1]), "y must be from 0 to 4"),
        (example(x=bytes(16), y=[5]), "y must be from 0 to 4"),
        (example(x=bytes(32), y=[1]), "x must have 16 bytes"),
        (example(x=np.array([np.nan] * 4, "<f4").tobytes(), y=[1]), "x is NaN or infinite"),
        (bytes(range(40)), "Could not parse example"),
    ],
    ids=("no y", "no x", "x of integers", "two y", "y below", "y above", "x too long", "x NaN", "no example"),
)
def test_a_wrong_first_record_is_a_sentence(folder: Path, record: bytes, sentence: str) -> None:
    with tf.io.TFRecordWriter(str(folder / "south.tfrecord")) as writer:
        writer.write(record)
    refused(folder, rf"south\.tfrecord' does not fit schema.json or is corrupt: .*{sentence}")


def test_missing_and_odd_folders_are_a_sentence(folder: Path) -> None:
    refused(folder.parent / "nowhere", r"there is no folder '.*nowhere'; 'dataset' is tfrecord:DIR")
    (folder / "empty").mkdir()
    refused(folder, "The silo 'empty' has no data: the folder .* holds no .tfrecord file")
    (folder / "empty" / "1.tfrecord").write_bytes(b"")
    refused(folder, "The silo 'empty' has no data: remove .*1.tfrecord, or fill it")
    (folder / "empty").rename(folder / "north")
    refused(folder, "both 'north.tfrecord' and a folder 'north'")
    (folder / "north" / "1.tfrecord").unlink()
    (folder / "north").rmdir()
    (folder / "south.tfrecord").rename(folder / "east.test.tfrecord")
    refused(folder, "a test part 'east.test', but no silo 'east'")
    (folder / "east.test.tfrecord").write_bytes(b"")
    (folder / "east.test.tfrecord").rename(folder / "east.tfrecord")
    refused(folder, "The silo 'east' has no data: remove")
    for path in folder.glob("*.tfrecord"):
        path.unlink()
    refused(folder, "holds no .tfrecord file, neither as a silo nor in a folder")


def test_other_partitions_and_unknown_silos_are_a_sentence(folder: Path) -> None:
    with pytest.raises(TaskError, match=r"partition='dirichlet': .* set 'partition' to 'natural'"):
        load_data(DataSpec(f"tfrecord:{folder}", Partition("dirichlet"), 0.2, 0.2, 0))
    with pytest.raises(TaskError, match="no client 'east' in dataset 'd' with its 2 silos"):
        open_silos(folder, "d").num_train("east")


# Writing


@pytest.mark.parametrize(
    ("silos", "options", "sentence"),
    [
        ({}, {}, "nothing to write"),
        ({"a/b": numbered(2)}, {}, "cannot be named 'a/b'"),
        ({".a": numbered(2)}, {}, "cannot be named '.a'"),
        ({"": numbered(2)}, {}, "cannot be named ''"),
        ({"test": numbered(2)}, {}, "cannot be named 'test'"),
        ({"a": (np.zeros((2, 3)), [0])}, {}, "'a' must hold one whole label from 0 for each of its 2 examples"),
        ({"a": (np.zeros((2, 3)), [0, -1])}, {}, "'a' must hold"),
        ({"a": (np.zeros((2, 3)), [0, 0.5])}, {}, "'a' must hold"),
        ({"a": (np.zeros((2, 3)), [0, 1]), "b": numbered(3)}, {}, "'b' has examples of shape .* all must agree"),
        ({"a": (np.zeros((2, 3), complex), [0, 1])}, {}, "dtype is 'complex128', but must be one of"),
        ({"a": numbered(9)}, {"num_classes": 3}, "label 4, but num_classes is only 3"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, silos: dict, options: dict, sentence: str) -> None:
    with pytest.raises(TaskError, match=sentence):
        write_silos(tmp_path / "d", silos, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_never_touched(folder: Path) -> None:
    with pytest.raises(TaskError, match="has content: remove it, or choose another"):
        write_silos(folder, {"a": numbered(3)})
    assert open_silos(folder, "d").client_ids == ("north", "south")


def test_schema_is_inferred(tmp_path: Path) -> None:
    write_silos(tmp_path / "d", {"a": (np.zeros((3, 2, 2, 1), np.uint8), [0, 6, 1])})
    assert json.loads((tmp_path / "d" / "schema.json").read_text()) == {
        "shape": [2, 2, 1], "dtype": "uint8", "scale": 1 / 255, "num_classes": 7,
    }  # fmt: skip
    assert isinstance(open_silos(tmp_path / "d", "d"), SiloData)
    assert Cut(3) == Cut(3, 0, 0)
