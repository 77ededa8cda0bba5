"""A folder that only one process at a time works in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import UserError


@contextmanager
def only_one(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold the folder for this process, whose end releases it too, however it comes.

    Raises UserError with the sentence ``otherwise`` where another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _take(descriptor, otherwise)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, otherwise: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(otherwise) from None
