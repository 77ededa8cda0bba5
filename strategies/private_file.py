"""Files for the owner's eyes only that are wholly there or not at all, whoever is killed while writing them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

ABANDONED_SECONDS = 3600.0


def write(path: Path, fill: Callable[[BinaryIO], object], durable: bool) -> None:
    """Write a file under another name, and give it its own. Raises OSError, and then leaves what was there.

    A ``durable`` one is on the disk when this returns; its folder must be there.
    """
    temporary = path.with_name(f".{path.stem}.{uuid4().hex[:12]}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            fill(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        _sync(path.parent)


def delete_abandoned(folder: Path) -> None:
    """Delete what processes left half written that were killed; they may still be at a young one."""
    for left in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                left.unlink()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
