"""Who is online by a recorded trace: a CSV file whose lines ``client,from,to`` say that a client was online.

Times are in seconds since the run's start; a client is online at ``from`` and gone at ``to``. Lines may come in any
order, a first line ``client,from,to`` is a heading, and stretches of one client that overlap or touch are one. Who is
not in the file is never online, and after its last line nobody is. A client whose stretch ends before its work is done
drops out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.errors import UserError
from simulation.draws import Crowd, Draws, Flags, Floats, Keys

COLUMNS = ["client", "from", "to"]
Stretch = tuple[str, float, float]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trace:
    """Stretches of time by client: those of the client with ``keys[k]`` lie from ``bounds[k]`` to ``bounds[k + 1]``.

    ``keys`` are sorted; a client's stretches are sorted and apart.
    """

    keys: Keys
    bounds: Indices
    starts: Floats
    ends: Floats

    @classmethod
    def of(cls, stretches: Iterable[Stretch], draws: Draws) -> Trace:
        """Sort the stretches (client, from, to) by client and time, and join those that overlap or touch."""
        listed = list(stretches)
        keys = draws.crowd([client for client, _, _ in listed]).keys
        times = np.array([stretch[1:] for stretch in listed], np.float64).reshape(-1, 2)
        order = np.lexsort((times[:, 0], keys))
        joined = list(_joined(keys[order].tolist(), times[order].tolist()))
        owners = np.array([key for key, _, _ in joined], np.uint64)
        own, first = np.unique(owners, return_index=True)
        starts, ends = (np.array([entry[column] for entry in joined], np.float64) for column in (1, 2))
        return cls(own, np.append(first, len(owners)).astype(np.int64), starts, ends)

    def online(self, crowd: Crowd, now: float) -> Flags:
        """Tell of each client whether it is online now."""
        return self.leaving(crowd, now) > now

    def leaving(self, crowd: Crowd, now: float) -> Floats:
        """Return when the stretch that each client is in ends; minus infinity for those who are in none."""
        return self._of_latest(crowd, now, self.ends)

    def next_online(self, crowd: Crowd, now: float) -> float | None:
        """Return now, or the next start of a stretch; None after the last."""
        if self.online(crowd, now).any():
            return now
        rows = self._rows(crowd)
        rows = rows[rows >= 0]
        following = self._first_after(rows, now)
        later = following[following < self.bounds[rows + 1]]
        return float(self.starts[later].min()) if len(later) else None

    def knows(self, crowd: Crowd) -> bool:
        """Tell whether any of the clients is in the trace."""
        return bool((self._rows(crowd) >= 0).any())

    def _of_latest(self, crowd: Crowd, now: float, values: Floats) -> Floats:
        rows = self._rows(crowd)
        known = np.flatnonzero(rows >= 0)
        latest = self._first_after(rows[known], now) - 1
        begun = latest >= self.bounds[rows[known]]
        result = np.full(len(crowd), -np.inf)
        result[known[begun]] = values[latest[begun]]
        return result

    def _rows(self, crowd: Crowd) -> Indices:
        """Return where each client stands in ``keys``, -1 for those who are not there."""
        if len(self.keys) == 0:
            return np.full(len(crowd), -1)
        rows = np.minimum(np.searchsorted(self.keys, crowd.keys), len(self.keys) - 1)
        return np.where(self.keys[rows] == crowd.keys, rows, -1)

    def _first_after(self, rows: Indices, now: float) -> Indices:
        """Return the first stretch of each row that starts after now, or the row's end: a binary search of all rows."""
        low, high = self.bounds[rows], self.bounds[rows + 1]
        while (open_ := low < high).any():
            middle = (low + high) // 2
            begun = self.starts[np.minimum(middle, len(self.starts) - 1)] <= now
            low, high = np.where(open_ & begun, middle + 1, low), np.where(open_ & ~begun, middle, high)
        return low


def _joined(keys: list[int], times: list[list[float]]) -> Iterator[tuple[int, float, float]]:
    current: tuple[int, float, float] | None = None
    for key, (start, end) in zip(keys, times, strict=True):
        if current is not None and current[0] == key and start <= current[2]:
            current = (key, current[1], max(current[2], end))
            continue
        if current is not None:
            yield current
        current = (key, start, end)
    if current is not None:
        yield current


def read_trace(path: Path, draws: Draws) -> Trace:
    """Read a trace file. Raises UserError: one sentence with file and line for what is malformed."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = csv.reader(lines, strict=True)
            stretches = [
                _stretch(path, rows.line_num, row) for row in rows if row and (rows.line_num, row) != (1, COLUMNS)
            ]
    except OSError as error:
        raise UserError(
            f"The key 'availability-trace' is '{path}', which cannot be read ({error.strerror}): correct the path."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The file '{path}' of 'availability-trace' is no CSV file in UTF-8 ({error}).") from error
    if not stretches:
        raise UserError(f"The file '{path}' of 'availability-trace' has no lines: it must hold some 'client,from,to'.")
    return Trace.of(stretches, draws)


def _stretch(path: Path, line: int, row: list[str]) -> Stretch:
    try:
        client, start, end = row[0].strip(), *map(float, row[1:])
        if client and 0 <= start < end < math.inf:
            return client, start, end
    except ValueError:
        pass
    raise UserError(
        f"Line {line} of '{path}' ('availability-trace') is '{','.join(row)[:80]}', but must be 'client,from,to' with "
        "seconds since the run's start, 0 <= from < to."
    )
