"""How many records and labels silos hold: read off once, then kept in the cache until a file changes.

A file counts as unchanged while its path, size and time of modification are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.cache import cache_folder, whole_file
from tasks.datasets.record_stream import RecordStream
from tasks.datasets.silo_files import Schema, count_records
from tasks.errors import TaskError
from tasks.stream_errors import what_tensorflow_found

_VERSION = 1  # raise it when the same files give other numbers
_log = logging.getLogger(__name__)


def record_counts(name: str, files: Sequence[Path], schema: Schema) -> list[int]:
    """Return the number of records of each file; the first record of each is parsed.

    ``name`` is the silo, for sentences. Raises TaskError where a file does not fit the schema.
    """

    def count() -> list[int]:
        import tensorflow as tf

        from tasks.datasets.record_pipeline import check_first_record

        numbers = [count_records(path, schema) for path in files]
        for path in (path for path, number in zip(files, numbers, strict=True) if number):
            try:
                check_first_record(path, schema)
            except tf.errors.OpError as error:
                raise TaskError(
                    f"'{path}' does not fit schema.json or is corrupt: {what_tensorflow_found(error)}."
                ) from error
        return numbers

    return _kept(("records", name, schema, _stamps(files)), len(files), count)


def label_counts(stream: RecordStream) -> npt.NDArray[np.int64]:
    """Count the examples of each class in a stream, [classes]. Raises TaskError where a record is wrong."""

    def count() -> list[int]:
        import tensorflow as tf

        try:
            counts: list[int] = stream.count_labels().tolist()
        except tf.errors.OpError as error:
            raise TaskError(
                f"'{stream.name}' has a record that is corrupt or wrong: {what_tensorflow_found(error)}."
            ) from error
        return counts

    try:
        key = ("labels", stream.slices, stream.schema, _stamps([part.path for part in stream.slices]))
    except OSError as error:
        raise TaskError(f"A file of '{stream.name}' cannot be read any more: {error}.") from error
    return np.array(_kept(key, stream.schema.num_classes, count), np.int64)


def _stamps(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    found = [(path, path.stat()) for path in files]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]


def _kept(key: tuple[object, ...], length: int, count: Callable[[], list[int]]) -> list[int]:
    """Return what the cache holds for the key, or else count and keep it. A damaged entry is counted anew."""
    digest = hashlib.sha256(repr((_VERSION, *key)).encode()).hexdigest()
    path = cache_folder() / "silos" / f"{digest}.json"
    try:
        numbers = json.loads(path.read_bytes())
        if isinstance(numbers, list) and len(numbers) == length and all(type(n) is int and n >= 0 for n in numbers):
            return numbers
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        _log.warning("The cache file %s is damaged (%s) and is made anew.", path, error)
    numbers = count()
    _keep(path, json.dumps(numbers))
    return numbers


def _keep(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        _log.warning("Nothing is kept in %s: %s; set FEDKERAS_CACHE to a folder that can be written.", path, error)
