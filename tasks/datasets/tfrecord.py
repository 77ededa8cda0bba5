"""Cross-silo data that do not fit in memory: ``tfrecord:DIR``, a client per silo, read as streams.

The layout of the folder is in `tasks.datasets.silo_files`; `write_silos` writes one. Silos are never mixed: the
partition is 'natural'. A silo without a test part of its own holds out ``client_test_fraction`` of its records, one in
each of as many stretches. A folder without a central test set is tested centrally on all silos' test parts together;
one with nothing but a central test set has no clients, as on the server of a deployment.

When a folder is opened, records are counted and the first one of each file is parsed; the counts are kept in the cache.
A record that turns out later to be corrupt ends the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.data import FederatedData
from tasks.datasets import DataSpec
from tasks.datasets.record_stream import Cut, FileSlice, RecordStream
from tasks.datasets.silo_counts import label_counts, record_counts
from tasks.datasets.silo_files import CENTRAL, OWN_TEST, SUFFIX, Schema, list_parts, read_schema
from tasks.datasets.silo_writer import write_silos
from tasks.errors import TaskError

__all__ = ["SiloData", "load", "open_silos", "write_silos"]

Files = tuple[Path, ...]
Streams = dict[str, RecordStream]


def load(location: str, spec: DataSpec) -> FederatedData:
    """Open the folder of silos. Raises `TaskError`: a sentence on the folder, its schema or a file."""
    if spec.partition.kind != "natural":
        raise TaskError(
            f"dataset='{spec.dataset}' with partition='{spec.partition.kind}': TFRecord silos are never mixed, set "
            "'partition' to 'natural'."
        )
    return open_silos(Path(location), spec.dataset, spec.client_test_fraction, spec.seed)


class SiloData:
    """`FederatedData` over streams; one client per silo, in the order of names."""

    def __init__(self, name: str, schema: Schema, train: Streams, test: Streams, central: RecordStream) -> None:
        self.name = name
        self.num_classes = schema.num_classes
        self.input_shape = schema.shape
        self.client_ids = tuple(train)
        self._train = train
        self._test = test
        self._central = central

    def num_train(self, client_id: str) -> int:
        """Return the size of a client's training part."""
        return len(self.train(client_id))

    def train(self, client_id: str) -> RecordStream:
        """Return the stream of a client's training part."""
        return self._of(client_id, self._train)

    def test(self, client_id: str) -> RecordStream:
        """Return the stream of a client's own test part; may be empty."""
        return self._of(client_id, self._test)

    def central_test(self) -> RecordStream:
        """Return the stream of the central test set."""
        return self._central

    def label_counts(self) -> npt.NDArray[np.int64]:
        """Count training examples, [clients, classes]: all silos are read once, and the counts kept in the cache."""
        counts = [label_counts(stream) for stream in self._train.values()]
        return np.array(counts, np.int64).reshape(-1, self.num_classes)

    def _of(self, client_id: str, streams: Streams) -> RecordStream:
        if client_id not in streams:
            raise TaskError(
                f"There is no client '{client_id}' in dataset '{self.name}' with its {len(streams)} silos: the server "
                "and the nodes must name the same silos."
            )
        return streams[client_id]


def open_silos(directory: Path, name: str, client_test_fraction: float = 0.2, seed: int = 0) -> SiloData:
    """Open a folder of silos under a name of one's own. Raises `TaskError`."""
    try:
        directory = directory.expanduser().absolute()
        if not directory.is_dir():
            raise TaskError(f"dataset='{name}': there is no folder '{directory}'; 'dataset' is tfrecord:DIR.")
        schema = read_schema(directory)
        parts = list_parts(directory)
        if not parts:
            raise TaskError(
                f"dataset='{name}': '{directory}' holds no {SUFFIX} file, neither as a silo nor in a folder."
            )
        return _opened(name, schema, parts, client_test_fraction, seed)
    except (OSError, RuntimeError) as error:
        raise TaskError(f"dataset='{name}': '{directory}' cannot be read: {error}.") from error


def _opened(name: str, schema: Schema, parts: Mapping[str, Files], client_test_fraction: float, seed: int) -> SiloData:
    silos = [silo for silo in parts if silo != CENTRAL and not silo.endswith(OWN_TEST)]
    train: Streams = {}
    test: Streams = {}
    for silo in silos:
        whole = _whole(silo, parts[silo], schema)
        if len(whole) == 0:
            raise TaskError(f"The silo '{silo}' has no data: remove {', '.join(map(str, parts[silo]))}, or fill it.")
        if silo + OWN_TEST in parts:
            train[silo], test[silo] = whole, _whole(silo + OWN_TEST, parts[silo + OWN_TEST], schema)
        else:
            train[silo], test[silo] = _cut(whole, silo, client_test_fraction, seed)
    if CENTRAL in parts:
        return SiloData(name, schema, train, test, _whole(CENTRAL, parts[CENTRAL], schema))
    slices = [part for stream in test.values() for part in stream.slices]
    return SiloData(name, schema, train, test, RecordStream(CENTRAL, slices, sum(map(len, test.values())), schema))


def _whole(name: str, files: Files, schema: Schema) -> RecordStream:
    """Return the stream of all records of a part."""
    counts = record_counts(name, files, schema)
    cut = Cut(sum(counts))
    starts = np.cumsum([0, *counts]).tolist()
    slices = [FileSlice(path, start, cut, test=False) for path, start in zip(files, starts[:-1], strict=True)]
    return RecordStream(name, slices, cut.size, schema)


def _cut(whole: RecordStream, silo: str, test_fraction: float, seed: int) -> tuple[RecordStream, RecordStream]:
    """Cut a silo's records into training and test part, as many as `tasks.data.split_client` would hold out."""
    held_out = max(0, min(round(test_fraction * len(whole)), len(whole) - 1))
    salt = int.from_bytes(hashlib.sha256(f"{seed}/{silo}/client-test".encode()).digest()[:4], "big")
    cut = Cut(len(whole), held_out, salt)

    def part(name: str, size: int, test: bool) -> RecordStream:
        slices = [FileSlice(piece.path, piece.start, cut, test) for piece in whole.slices]
        return RecordStream(name, slices, size, whole.schema)

    return part(silo, len(whole) - held_out, False), part(silo + OWN_TEST, held_out, True)
