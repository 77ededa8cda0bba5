"""Top-k: the largest values of an update, over all its layers.

Aji and Heafield: "Sparse Communication for Distributed Gradient Descent", 2017; Stich, Cordonnier, Jaggi: "Sparsified
SGD with Memory", 2018. Biased: what is never among the largest is never sent, unless error feedback adds it up. With
one size for the values that are sent, their mean (the quantizer `Sign`: one for every 4096), this is sparse ternary
compression: Sattler, Wiedemann, Müller, Samek: "Robust and Communication-Efficient Federated Learning from Non-IID
Data", 2019, algorithm 1.

What is specified here: of values that are as large as the least that is kept, the first are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from strategies.compression.positions import Positions
from strategies.compression.sparsifier import Share
from strategies.guarantees import Property
from strategies.options import Option
from strategies.updates import FloatVector


@dataclass(frozen=True)
class TopK(Share):
    """The ``share`` of all values that is the largest, at least one value."""

    wire_id: ClassVar[int] = 1
    unbiased: ClassVar[bool] = False
    gives: ClassVar[frozenset[Property]] = frozenset()

    @property
    def settings(self) -> Mapping[str, Option]:
        """The share."""
        return {"codec": "top-k", "codec-share": self.share}

    def select(self, delta: FloatVector, round_seed: int) -> tuple[FloatVector, Positions]:
        """Return the k largest values."""
        positions = largest(np.abs(delta), self.count(len(delta)))
        return delta[positions], positions

    def agreed(self, size: int, round_seed: int) -> None:
        """Nothing: the positions depend on the update."""


def largest(sizes: FloatVector, count: int) -> Positions:
    """Return where the ``count`` largest of these values stand, increasing; of equal ones, the first."""
    least = np.partition(sizes, len(sizes) - count)[len(sizes) - count]
    chosen = sizes > least
    equal = np.flatnonzero(sizes == least)
    chosen[equal[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)
