"""Writes a folder of TFRecord silos, in the format of `tasks.datasets.silo_files`, wholly or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from tasks.cache import sync
from tasks.data import Examples
from tasks.datasets.silo_files import CENTRAL, SCHEMA, SUFFIX, Schema
from tasks.errors import TaskError

Part = Examples | tuple[npt.ArrayLike, npt.ArrayLike]


def write_silos(
    directory: Path,
    silos: Mapping[str, Part],
    *,
    test: Part | None = None,
    scale: float | None = None,
    num_classes: int | None = None,
) -> None:
    """Write a folder that ``tfrecord:DIR`` opens; it is there wholly or not at all.

    A part is `Examples` or (x [n, ...], y [n]); all have the same shape and dtype. The name ``<silo>.test`` makes a
    silo's own test part, and ``test`` is the central one. ``scale`` is 1/255 for uint8 and 1 otherwise where it is not
    given, and ``num_classes`` one more than the largest label. Raises TaskError, also where the folder has content.
    """
    writer = _Writer(scale, num_classes)
    with _new_folder(directory) as folder:
        for name, part in [*silos.items(), *([] if test is None else [(CENTRAL, test)])]:
            if (
                not name
                or name.startswith(".")
                or "/" in name
                or "\0" in name
                or (name == CENTRAL and part is not test)
            ):
                raise TaskError(f"A silo cannot be named {name!r}: it names a file, is not hidden and not '{CENTRAL}'.")
            writer.write(folder / f"{name}{SUFFIX}", part)
        (folder / SCHEMA).write_text(writer.schema_text(), encoding="utf-8")


class _Writer:
    """Writes parts, and finds out the schema that they have in common."""

    def __init__(self, scale: float | None, num_classes: int | None) -> None:
        self._scale = scale
        self._num_classes = num_classes
        self._largest = 1
        self._common: tuple[tuple[int, ...], str] | None = None

    def write(self, path: Path, part: Part) -> None:
        import tensorflow as tf

        x, y = self._checked(path.stem, part)
        with tf.io.TFRecordWriter(str(path)) as records:
            for image, label in zip(x, y.tolist(), strict=True):
                value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()]))
                number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
                example = tf.train.Example(features=tf.train.Features(feature={"x": value, "y": number}))
                records.write(example.SerializeToString(deterministic=True))

    def _checked(self, name: str, part: Part) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        x, y = map(np.asarray, (part.x, part.y) if isinstance(part, Examples) else part)
        if y.shape != x.shape[:1] or y.dtype.kind not in "iu" or (y.size and y.min() < 0):
            raise TaskError(f"The part '{name}' must hold one whole label from 0 for each of its {len(x)} examples.")
        found = (tuple(x.shape[1:]), x.dtype.name)
        self._common = self._common or found
        if found != self._common:
            raise TaskError(
                f"The part '{name}' has examples of shape {list(found[0])} and dtype {found[1]}, but those before have "
                f"{list(self._common[0])} and {self._common[1]}: all must agree."
            )
        self._largest = max(self._largest, int(y.max(initial=0)))
        return x.astype(x.dtype.newbyteorder("<"), copy=False), y.astype(np.int64)

    def schema_text(self) -> str:
        if self._common is None:
            raise TaskError("There is nothing to write: give at least one silo.")
        shape, dtype = self._common
        scale = (1 / 255 if dtype == "uint8" else 1.0) if self._scale is None else self._scale
        schema = Schema(shape, dtype, self._largest + 1 if self._num_classes is None else self._num_classes, scale)
        if self._largest >= schema.num_classes:
            raise TaskError(f"There is a label {self._largest}, but num_classes is only {schema.num_classes}.")
        return json.dumps({"shape": shape, "dtype": dtype, "scale": scale, "num_classes": schema.num_classes}) + "\n"


@contextmanager
def _new_folder(directory: Path) -> Iterator[Path]:
    """Give a hidden folder beside, which becomes the folder when all is written and synced."""
    taken = TaskError(f"The folder '{directory}' has content: remove it, or choose another folder.")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise taken
    temporary = directory.with_name(f".{directory.name}.{uuid4().hex[:12]}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for path in [*temporary.iterdir(), temporary]:
            sync(path)
        try:
            temporary.replace(directory)
        except OSError as error:
            raise (taken if directory.exists() else error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(directory.parent)
