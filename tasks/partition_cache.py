"""Keeps partitions on disk: dealing needs flwr-datasets, whose import alone takes seconds, in every process."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tasks.cache import cache_folder, whole_file
from tasks.partition import Ids, Indices, Labels, Partition

FORMAT = 1
"""Raise it when a partition is computed or kept differently: what was kept before is then not found."""

_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)

_log = logging.getLogger(__name__)


def kept_partition(labels: Labels, partition: Partition, natural_ids: Ids | None) -> dict[str, Indices]:
    """Return a partition from the cache folder, or deal it and keep it there.

    A damaged file is replaced; a folder that cannot be written to only costs a warning and the time to deal again.
    """
    path = cache_folder() / "partitions" / f"{_key(labels, partition, natural_ids)}.npz"
    parts = _read(path, len(labels))
    if parts is None:
        from tasks.dealing import deal  # imports flwr-datasets when it deals

        parts = deal(labels, partition, natural_ids)
        _write(path, parts)
    return parts


def _key(labels: Labels, partition: Partition, natural_ids: Ids | None) -> str:
    """Hash all that the result depends on, also the versions of what draws the random numbers."""
    versions = {name: version(name) for name in ("numpy", "flwr-datasets")}
    arrays = [labels.astype("<i8"), *([] if natural_ids is None else [natural_ids])]
    shapes = [(array.dtype.str, array.shape) for array in arrays]
    digest = hashlib.sha256(json.dumps([FORMAT, versions, asdict(partition), shapes]).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read(path: Path, examples: int) -> dict[str, Indices] | None:
    """Return what a file holds, or None where there is none or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, flat, ends = file["ids"], file["flat"], file["ends"]
    except FileNotFoundError:
        return None
    except _DAMAGE as error:
        _log.warning("The cached partition %s cannot be read (%s) and is made anew.", path, error)
        return None
    if not _sound(ids, flat, ends, examples):
        _log.warning("The cached partition %s is damaged and is made anew.", path)
        return None
    return dict(zip(map(str, ids.tolist()), np.split(flat, ends[:-1]), strict=True))


def _sound(ids: Ids, flat: Indices, ends: Indices, examples: int) -> bool:
    """Tell whether clients of at least one example share distinct examples."""
    if ids.dtype.kind != "U" or flat.dtype != np.int64 or ends.dtype != np.int64:
        return False
    if not ids.ndim == flat.ndim == ends.ndim == 1 or not 0 < len(ids) == len(ends) == len(set(ids.tolist())):
        return False
    if ends[-1] != len(flat) or np.diff(ends, prepend=0).min() < 1 or flat.min() < 0 or flat.max() >= examples:
        return False
    return bool(np.bincount(flat, minlength=1).max() == 1)


def _write(path: Path, parts: dict[str, Indices]) -> None:
    ends = np.cumsum([len(part) for part in parts.values()], dtype=np.int64)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            np.savez_compressed(
                temporary, ids=np.array(list(parts)), flat=np.concatenate(list(parts.values())), ends=ends
            )
    except OSError as error:
        _log.warning("The partition cannot be kept in %s (%s): every process deals it anew.", path.parent, error)
