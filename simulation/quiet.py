"""Keeps from the terminal what TensorFlow says of itself when it is loaded, before its own log level counts."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.log_filter import is_noise

STDERR = 2
SECONDS = 1.0  # to hand on what is still in the pipe; processes that were started meanwhile keep it open


@contextmanager
def without_noise() -> Iterator[None]:
    """Hand on the lines that this process writes to its standard error, without the noise.

    TensorFlow writes to the file descriptor, past Python, so that is what is replaced, by a pipe.
    """
    reading, writing = os.pipe()
    terminal = os.dup(STDERR)
    os.dup2(writing, STDERR)
    os.close(writing)
    reader = threading.Thread(target=_hand_on, args=(reading, terminal), name="stderr", daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.dup2(terminal, STDERR)
        reader.join(SECONDS)


def _hand_on(reading: int, terminal: int) -> None:
    with os.fdopen(reading, "rb") as lines:
        for line in lines:
            if not is_noise(line.decode(errors="replace")):
                os.write(terminal, line)
