"""The format of a checkpoint: facts as JSON, arrays as NumPy writes them, and a digest over all of it.

    "fedkeras checkpoint 1", {"facts": {...}, "groups": [...], "arrays": [[group, name], ...]}, .npy, .npy, ..., SHA-256

(two lines, then bytes; the digest is the last 32).

The digest is compared before anything else is read: what was cut off, or of which a bit has flipped, is never taken for
a state. (Zip, as in NumPy's npz, has a checksum for each array and none for the list of them.) Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from strategies.updates import AnyArray, State

NAME = b"fedkeras checkpoint "
FIRST_LINE = NAME + b"1\n"
DIGEST_BYTES = hashlib.sha256().digest_size


class DamagedError(ValueError):
    """The bytes are no checkpoint that this program can read."""


@dataclass(frozen=True, eq=False)
class Content:
    """What a checkpoint holds: ``facts`` as JSON knows them, and arrays by group and name."""

    facts: Mapping[str, Any]
    groups: Mapping[str, State] = field(default_factory=dict)


def to_bytes(content: Content) -> bytes:
    """Write a checkpoint. Raises TypeError for an array whose dtype NumPy's format cannot tell, such as bfloat16."""
    named = [(group, name) for group, arrays in content.groups.items() for name in arrays]
    listed = {"facts": content.facts, "groups": list(content.groups), "arrays": named}
    stream = io.BytesIO()
    stream.write(FIRST_LINE)
    stream.write(json.dumps(listed).encode() + b"\n")
    for group, name in named:
        _write(stream, content.groups[group][name], f"{group}/{name}")
    stream.write(hashlib.sha256(stream.getbuffer()).digest())
    return stream.getvalue()


def from_bytes(data: bytes) -> Content:
    """Read a checkpoint; its arrays are read-only. Raises DamagedError for anything that `to_bytes` has not written."""
    if data.startswith(NAME) and not data.startswith(FIRST_LINE):
        raise DamagedError("it was written by another version of this program")
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if not data.startswith(FIRST_LINE) or hashlib.sha256(body).digest() != digest:
        raise DamagedError(f"its {len(data)} bytes are not those that were written")
    stream = io.BytesIO(body)
    stream.seek(len(FIRST_LINE))
    listed = json.loads(stream.readline())
    groups: dict[str, dict[str, AnyArray]] = {group: {} for group in listed["groups"]}
    for group, name in listed["arrays"]:
        groups[group][name] = _read(stream)
    return Content(listed["facts"], groups)


def _write(stream: io.BytesIO, array: AnyArray, name: str) -> None:
    told = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(array.dtype))
    if array.dtype.hasobject or told != array.dtype:
        raise TypeError(f"The array '{name}' is of the dtype {array.dtype}, which a checkpoint cannot hold.")
    np.lib.format.write_array(stream, array, allow_pickle=False)


def _read(stream: io.BytesIO) -> AnyArray:
    array: AnyArray = np.lib.format.read_array(stream, allow_pickle=False)
    array.flags.writeable = False
    return array
