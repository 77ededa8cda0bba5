"""The folder for what can always be made anew, and files in it that are either wholly there or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def cache_folder() -> Path:
    """Return ``$FEDKERAS_CACHE``, or ``~/.cache/fedkeras``; it may not exist yet."""
    # os.path's expanduser, since Path's raises where a container's user has no home; then "~" stays as it is.
    return Path(os.path.expanduser(os.environ.get("FEDKERAS_CACHE") or "~/.cache/fedkeras"))  # noqa: PTH111


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; then sync it, give it its name and sync the folder.

    The folder must be there. The temporary name keeps the suffix, which Keras goes by. Processes that write the same
    file at once do not disturb each other: the last one's stays. Raises OSError; if the body raises, the old file
    stays and nothing of the new one is left. A killed process can leave a hidden ``.<name>.<random>.tmp<suffix>``
    behind, which nothing reads.
    """
    temporary = path.with_name(f".{path.stem[:80]}.{uuid4().hex[:12]}.tmp{path.suffix}")
    try:
        yield temporary
        sync(temporary, os.O_RDWR)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path, flags: int = os.O_RDONLY) -> None:
    """Return once a file, or which files a folder has, is on the disk. Raises OSError."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
