"""A file of JSON lines that grows whole line by whole line, whenever the process is killed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from app import plain_json


class LineFile:
    """Appends values as lines, and syncs each. A line that could not be written whole is taken back.

    An existing file is continued; a last line without its end, left by a killed process, is dropped first. All raise
    OSError where the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._end = _end_of_lines(self._descriptor)
        os.ftruncate(self._descriptor, self._end)

    def append(self, value: Any) -> None:
        """Write a line of strict JSON, and return when it is on the disk."""
        line = (plain_json.dumps(value) + "\n").encode("utf-8", errors="replace")
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._end + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += len(line)

    def close(self) -> None:
        """Close the file; again changes nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _end_of_lines(descriptor: int, block: int = 1 << 16) -> int:
    """Return the offset just after the last line end of a file."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - block)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
