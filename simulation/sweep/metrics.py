"""What a sweep may judge its runs by: a value of the round records, and whether more of it is better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.report.reading import Run
from app.report.series import Measure, curve, of


@dataclass(frozen=True)
class Metric:
    """A key of the central or the federated evaluation."""

    name: str
    title: str
    group: Literal["central", "federated"]
    key: str
    higher_is_better: bool

    @property
    def measure(self) -> Measure:
        """What reads the value from a round; None where the round was not evaluated so."""
        return of(self.group, self.key)

    @property
    def unit(self) -> Literal["share", "loss"]:
        """How a value is written and drawn."""
        return "loss" if self.key == "loss" else "share"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """What Optuna calls it."""
        return "maximize" if self.higher_is_better else "minimize"

    def final(self, run: Run) -> float:
        """Return the last value that a run was evaluated to; NaN where it never was."""
        values = curve(run, self.measure).y
        return float(values[-1]) if len(values) else math.nan

    def order(self, value: float) -> tuple[bool, float]:
        """Return a sort key: the best value first, NaN behind everything."""
        if math.isnan(value):
            return True, 0.0
        return False, -value if self.higher_is_better else value

    def median(self, values: Sequence[float]) -> float:
        """Return the median, in which a NaN counts as the worst value there is: NaN where it is in the middle."""
        worst = -math.inf if self.higher_is_better else math.inf
        known = [worst if math.isnan(value) else value for value in values]
        if not known or (middle := float(np.median(known))) == worst:
            return math.nan
        return middle


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Central accuracy", "central", "accuracy", True),
        Metric("loss", "Central loss", "central", "loss", False),
        Metric("clients-accuracy", "Clients' mean accuracy", "federated", "accuracy", True),
        Metric("clients-loss", "Clients' mean loss", "federated", "loss", False),
        Metric("worst-clients-accuracy", "Worst tenth of clients", "federated", "accuracy-worst-10", True),
        Metric("backdoor", "Backdoor success", "central", "backdoor", False),
    )
}
