"""Threshold: the values of an update that stand out from it, however many they are.

Strom: "Scalable Distributed DNN Training Using Commodity GPU Cloud Computing", 2015; Sahu, Dutta, Abdelmoniem,
Banerjee, Canini, Kalnis: "Rethinking Gradient Sparsification as Total Error Minimization", 2021: a value is sent if its
size is at least a threshold. Cheaper than top-k, as nothing has to be ordered.

What differs from the papers: the threshold is a multiple of the update's root mean square, so that one setting fits
every model, learning rate and round. A threshold of 1 or less always sends something; a large one may send nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from strategies.compression.pieces import pieces
from strategies.compression.positions import Positions
from strategies.errors import StrategyError
from strategies.guarantees import Property
from strategies.options import Option, Options, number
from strategies.updates import FloatVector

FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Threshold:
    """The values whose size is at least ``multiple`` times the root mean square of all."""

    wire_id: ClassVar[int] = 2
    unbiased: ClassVar[bool] = False
    gives: ClassVar[frozenset[Property]] = frozenset()
    multiple: float

    def __post_init__(self) -> None:
        if not 0 < self.multiple < math.inf:
            raise StrategyError(
                f"The key 'codec-threshold' is {self.multiple}, but must be a finite number above 0: values are sent "
                "from so many times the update's root mean square on."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'codec-threshold'."""
        return cls(number(options, "codec-threshold", 3.0))

    @property
    def settings(self) -> Mapping[str, Option]:
        """The multiple."""
        return {"codec": "threshold", "codec-threshold": self.multiple}

    def count(self, size: int) -> None:
        """That depends on the update."""

    def select(self, delta: FloatVector, round_seed: int) -> tuple[FloatVector, Positions]:
        """Return the values that stand out; of an update of zeros, none."""
        squares = math.fsum(float(np.square(delta[place], dtype=np.float64).sum()) for place in pieces(len(delta)))
        least = min(self.multiple * math.sqrt(squares / len(delta)), FLOAT32_MAX)
        positions = np.flatnonzero((np.abs(delta) >= least) & (delta != 0))
        return delta[positions], positions

    def agreed(self, size: int, round_seed: int) -> None:
        """Nothing: the positions depend on the update."""
