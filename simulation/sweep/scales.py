"""Where the values of a key stand on an axis: listed values side by side, drawn numbers where they lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import LogLocator, MaxNLocator

from app.config import Value
from app.report.findings import show
from simulation.sweep.plan import Plan
from simulation.sweep.sections import Range

_MAX_TICKS = 5


@dataclass(frozen=True)
class Scale:
    """One axis: ``place`` maps a value to a coordinate; ``ticks`` are coordinates and what to write there."""

    place: Callable[[Value], float]
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float

    def share(self, coordinate: float) -> float:
        """Return how far a coordinate lies between the ends of the axis, 0 to 1."""
        return (coordinate - self.low) / (self.high - self.low) if self.high > self.low else 0.5


def scale_of(plan: Plan, key: str) -> Scale:
    """Return the axis of a key that varies."""
    draw = plan.random.get(key)
    if isinstance(draw, Range):
        return _log_scale(draw) if draw.log else _linear_scale(draw)
    return _side_by_side(plan.grid[key] if draw is None else draw.values)


def _side_by_side(values: Sequence[Value]) -> Scale:
    """Numbers in their order, anything else as it stands in the file."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    listed = sorted(values, key=float) if numbers else list(values)
    step = -(-len(listed) // 8)
    ticks = tuple((float(place), show(value)) for place, value in enumerate(listed) if place % step == 0)
    return Scale(lambda value: float(listed.index(value)), ticks, 0.0, len(listed) - 1.0)


def _linear_scale(draw: Range) -> Scale:
    ticks = MaxNLocator(_MAX_TICKS, integer=draw.whole).tick_values(draw.low, draw.high)
    inside = tuple((float(tick), f"{tick:g}") for tick in ticks if draw.low <= tick <= draw.high)
    return Scale(float, inside, draw.low, draw.high)


def _log_scale(draw: Range) -> Scale:
    subs = (1.0,) if draw.high / draw.low > 100 else (1.0, 2.0, 5.0)
    ticks = LogLocator(base=10.0, subs=subs, numticks=_MAX_TICKS + 1).tick_values(draw.low, draw.high)
    inside = tuple((math.log10(tick), f"{tick:g}") for tick in ticks if draw.low <= tick <= draw.high)
    return Scale(lambda value: math.log10(float(value)), inside, math.log10(draw.low), math.log10(draw.high))
