"""A folder of TFRecord silos on disk: its schema, which file is whose, and how many records it holds.

    DIR/schema.json            {"shape": [28, 28, 1], "dtype": "uint8", "scale": 0.00392156862745098, "num_classes": 10}
    DIR/<silo>.tfrecord        the records of a silo, or a folder DIR/<silo>/ of any number of .tfrecord files
    DIR/<silo>.test.tfrecord   optional (or a folder DIR/<silo>.test/): the silo's own test part
    DIR/test.tfrecord          optional (or a folder DIR/test/): the central test set

A record is an uncompressed tf.train.Example with the features ``x`` (one bytes value: the raw little-endian numbers of
``dtype`` in C order) and ``y`` (one int64). Models see float32: x * scale, in ``shape``.
"""

from __future__ import annotations

import json
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.errors import TaskError

SCHEMA = "schema.json"
SUFFIX = ".tfrecord"
CENTRAL = "test"
OWN_TEST = ".test"
DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64")

_HEADER = struct.Struct("<Q4x")  # length, its checksum; then the record, and a checksum of four bytes
_MOST_BYTES = 2**30


@dataclass(frozen=True)
class Schema:
    """What every record of a folder holds."""

    shape: tuple[int, ...]
    dtype: str
    num_classes: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raise TaskError, a clause that needs the file's name before it."""
        if not (isinstance(self.shape, tuple) and self.shape and all(_whole(n, 1) for n in self.shape)):
            raise TaskError(f"shape is {self.shape!r}, but must be a list of whole numbers from 1")
        if self.dtype not in DTYPES:
            raise TaskError(f"dtype is {self.dtype!r}, but must be one of {', '.join(DTYPES)}")
        if self.num_bytes > _MOST_BYTES:
            raise TaskError(f"shape {list(self.shape)} makes an example of {self.num_bytes} bytes, which is too large")
        if not _whole(self.num_classes, 2) or self.num_classes > 10**6:
            raise TaskError(f"num_classes is {self.num_classes!r}, but must be a whole number from 2 to 1000000")
        if type(self.scale) not in (int, float) or not math.isfinite(self.scale) or self.scale == 0:
            raise TaskError(f"scale is {self.scale!r}, but must be a number that x is multiplied by, as 1/255 = 0.0039")

    @property
    def num_bytes(self) -> int:
        """Bytes of one example's x."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def _whole(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def read_schema(directory: Path) -> Schema:
    """Read DIR/schema.json; raise TaskError where it is missing or wrong."""
    path = directory / SCHEMA
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(fields, dict) and isinstance(fields.get("shape"), list):
            fields["shape"] = tuple(fields["shape"])
        return Schema(**fields)
    except FileNotFoundError as error:
        raise TaskError(
            f"There is no '{path}': 'dataset' tfrecord:DIR needs a folder with schema.json, as in "
            '{"shape": [28, 28, 1], "dtype": "uint8", "scale": 0.00392, "num_classes": 10}.'
        ) from error
    except TaskError as error:
        raise TaskError(f"'{path}': {error}; correct the file.") from error
    except TypeError as error:
        raise TaskError(
            f"'{path}' must be one object with the keys shape, dtype, num_classes and optionally scale, and no others."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"'{path}' cannot be read as JSON: {error}; correct the file.") from error


def list_parts(directory: Path) -> dict[str, tuple[Path, ...]]:
    """Return the record files of each silo, of own test parts (``<silo>.test``) and of the central test (``test``).

    Names and files are in order. Hidden entries, which may be half written, and other files are passed over. Raises
    TaskError for a silo that is there twice, a folder without records, and a test part without its silo.
    """
    parts: dict[str, tuple[Path, ...]] = {}
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith(".") or not (entry.is_dir() or entry.suffix == SUFFIX):
            continue
        name = entry.name if entry.is_dir() else entry.stem
        if name in parts:
            raise TaskError(f"'{directory}' has both '{name}{SUFFIX}' and a folder '{name}': keep one of them.")
        files = sorted(f for f in entry.glob(f"*{SUFFIX}") if not f.name.startswith(".")) if entry.is_dir() else [entry]
        if not files:
            raise TaskError(f"The silo '{name}' has no data: the folder '{entry}' holds no {SUFFIX} file.")
        parts[name] = tuple(files)
    for name in parts:
        if name.endswith(OWN_TEST) and name.removesuffix(OWN_TEST) not in parts:
            raise TaskError(f"'{directory}' has a test part '{name}', but no silo '{name.removesuffix(OWN_TEST)}'.")
    return parts


def count_records(path: Path, schema: Schema) -> int:
    """Count records by going from length to length, without reading what is between.

    Raises TaskError where the lengths do not lead to the file's end, or a record is too short for the schema.
    """
    end, position, count = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while position < end:
            header = file.read(_HEADER.size)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else end
            position += _HEADER.size + length + 4
            if position > end:
                raise TaskError(
                    f"'{path}' is corrupt or cut off at record {count} (or compressed, which is not read): write it "
                    "anew."
                )
            if length < schema.num_bytes:
                raise TaskError(
                    f"'{path}': record {count} has {length} bytes, but x of dtype {schema.dtype} and shape "
                    f"{list(schema.shape)} takes {schema.num_bytes}: correct {SCHEMA} or the file."
                )
            file.seek(length + 4, os.SEEK_CUR)
            count += 1
    return count
