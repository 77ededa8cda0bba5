"""Reads arrays out of an npz file that nobody vouches for: no pickles, and no memory that the file does not back.

``np.load`` believes the size that a member declares and allocates it. Here the size is first checked against the zip
directory, and that against what so many compressed bytes can hold.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.errors import TaskError

Array = npt.NDArray[Any]

_DEFLATE_LIMIT = 1032  # deflate makes no run of bytes more than about 1,032 times smaller
_PLAIN_KINDS = "biufUS"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_arrays(path: Path, keys: Iterable[str], optional: Iterable[str], source: str) -> dict[str, Array]:
    """Read the arrays of these keys, and of the optional ones that are there: numbers or strings, not empty.

    ``source`` starts the sentences, as in ``dataset='npz:a.npz'``. Raises `TaskError`.
    """
    try:
        if not path.is_file():
            raise TaskError(f"{source}: there is no file '{path.absolute()}'; 'dataset' must name an npz file.")
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = [*keys, *(key for key in optional if key in members)]
            for key in wanted:
                if key not in members:
                    raise TaskError(
                        f"{source}: there is no array '{key}' in the file, only {_listed(members)}: choose keys as in "
                        f"'npz:{path.name}?x=KEY&y=KEY'."
                    )
            return {
                key: _read(archive, members[key], path.stat().st_size, f"{source}: array '{key}'") for key in wanted
            }
    except TaskError:
        raise
    except PermissionError as error:
        raise TaskError(f"{source}: the file may not be read ({error.strerror}): change its permissions.") from error
    except Exception as error:  # zipfile, zlib and NumPy answer malformed bytes with a dozen kinds of exceptions
        raise TaskError(
            f"{source}: the file is not a readable npz ({type(error).__name__}: {_first_line(error)}): write it anew "
            "with numpy.savez_compressed."
        ) from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file_size: int, what: str) -> Array:
    _check_directory(info, file_size, what)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise TaskError(f"{what} has the format version {version}, but only numbers and strings are read.")
        shape, _, dtype = _HEADERS[version](file)
        _check_header(shape, dtype, info.file_size - file.tell(), what)
    with archive.open(info) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at its end zipfile compares the checksum
    return array


def _check_directory(info: zipfile.ZipInfo, file_size: int, what: str) -> None:
    """Refuse a member that says it is larger than its compressed bytes can be."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise TaskError(f"{what} is compressed in a way that NumPy does not write: use numpy.savez_compressed.")
    ratio = _DEFLATE_LIMIT if info.compress_type == zipfile.ZIP_DEFLATED else 1
    if info.compress_size > file_size or info.file_size > ratio * info.compress_size:
        raise TaskError(f"{what} declares more bytes than the file holds: the file is corrupt, write it anew.")


def _check_header(shape: tuple[int, ...], dtype: np.dtype[Any], payload: int, what: str) -> None:
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject or dtype.itemsize == 0:
        raise TaskError(f"{what} has dtype {dtype}, but only arrays of real numbers or strings are read.")
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != payload:
        raise TaskError(
            f"{what} declares {dtype} of shape {list(shape)}, but {payload} bytes follow: the file is corrupt, write "
            "it anew."
        )
    if payload == 0:
        raise TaskError(f"{what} is empty, of shape {list(shape)}.")


def _listed(names: Iterable[str], most: int = 12) -> str:
    ordered = [repr(name) for name in names]
    return ", ".join(ordered[:most] or ["nothing"]) + (", ..." if len(ordered) > most else "")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no details"])[0][:200]
