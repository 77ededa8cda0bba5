"""Curves out of round records: a measured value over rounds, over seconds or over bytes; and rounds put in bins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.report.reading import Round, Run

Measure = Callable[[Round], float | None]
Over = Literal["rounds", "seconds", "simulated", "bytes", "uplink"]

MAX_BARS = 120


@dataclass(frozen=True)
class Curve:
    """Points of one series, float64 each; only rounds that have the value. ``y`` may hold NaN and infinities."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


def curve(run: Run, measure: Measure, over: Over = "rounds") -> Curve:
    """Return a value over rounds, or over what they had cost in total by the end of each."""
    position = positions(run, over)
    points = [
        (x, value) for x, record in zip(position, run.rounds, strict=True) if (value := measure(record)) is not None
    ]
    x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return Curve(x, y)


def positions(run: Run, over: Over) -> np.ndarray:
    """Return where each round stands: its number, or the seconds or bytes (both ways, or up) spent up to its end.

    "simulated" are the seconds on the clock of a simulated world; a round that does not say ended with the one before.
    """
    if over == "rounds":
        return np.array([record.number for record in run.rounds], dtype=np.float64)
    if over == "seconds":
        return np.cumsum([record.duration() for record in run.rounds], dtype=np.float64)
    if over == "simulated":
        return np.maximum.accumulate([record.simulated_seconds or 0.0 for record in run.rounds], dtype=np.float64)
    if over == "uplink":
        return np.cumsum([record.bytes_up for record in run.rounds], dtype=np.float64)
    return np.cumsum([record.bytes_down + record.bytes_up for record in run.rounds], dtype=np.float64)


def overs(runs: Sequence[Run]) -> tuple[Over, Over, Over]:
    """Return what to draw curves over. Where every run has a simulated clock, that is the time that is meant."""
    clocks = [any(record.simulated_seconds is not None for record in run.rounds) for run in runs]
    return "rounds", "simulated" if all(clocks) else "seconds", "bytes"


def of(group: Literal["train", "central", "federated"], key: str) -> Measure:
    """Return the measure that reads a key of one of a record's groups."""

    def measure(record: Round) -> float | None:
        values = getattr(record, group)
        return None if values is None else values.get(key)

    return measure


@dataclass(frozen=True)
class Bars:
    """Mean values of bins of ``size`` rounds that follow each other: ``x`` [bins], ``heights`` [series, bins]."""

    x: np.ndarray
    heights: np.ndarray
    size: int

    @property
    def caption(self) -> str:
        """What to say of the bins; nothing where each is one round."""
        return "" if self.size == 1 else f"Each bar is the mean of {self.size} rounds."


def bars(rounds: tuple[Round, ...], values: np.ndarray, limit: int = MAX_BARS) -> Bars:
    """Put the rounds in at most ``limit`` bins of one size, the last one the rest. ``values`` is [series, rounds]."""
    numbers = np.array([record.number for record in rounds], dtype=np.float64)
    size = bin_size(len(rounds), limit)
    means = _bin_means(np.vstack([numbers, values]), size)
    return Bars(means[0], means[1:], size)


def bin_size(count: int, limit: int) -> int:
    """Return how many neighbours share a bin so that there are at most ``limit`` bins."""
    return max(1, -(-count // limit))


def smoothed(points: Curve, size: int) -> Curve:
    """Return the curve as the means of bins of ``size`` neighbours."""
    x, y = _bin_means(np.stack([points.x, points.y]), size)
    return Curve(x, y)


def _bin_means(rows: np.ndarray, size: int) -> np.ndarray:
    starts = np.arange(0, rows.shape[1], size)
    return np.add.reduceat(rows, starts, axis=1) / np.diff(np.append(starts, rows.shape[1]))
