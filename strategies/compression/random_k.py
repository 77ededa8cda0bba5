"""Random-k: values at random places, which are the same for all clients of a round and are never sent.

Konečný, McMahan, Yu, Richtárik, Suresh, Bacon: "Federated Learning: Strategies for Improving Communication Efficiency",
2016, section 3 ("subsampling"): client and server draw the places from a seed. Each value is multiplied by the inverse
of its chance to be sent, which makes this unbiased: E||Q(x) - x||^2 = (n/k - 1) ||x||^2.

What differs from the paper: the seed is the round's and not the client's, so that updates have one support and can be
added up in secret; the server never reads it from a payload. And of k equal stretches of the model one place each
is drawn, in place of k places anywhere: every place has the same chance, k / n, and the error is the same, but the
places come in order and need memory for k of them, not for n.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from strategies.compression.pieces import RandomBits, pieces
from strategies.compression.positions import SOME, Positions
from strategies.compression.sparsifier import Share
from strategies.guarantees import Property
from strategies.options import Option
from strategies.updates import FloatVector

PURPOSE = "random-k"


@dataclass(frozen=True)
class RandomK(Share):
    """A ``share`` of all values, at least one, at the places that the round's seed gives."""

    wire_id: ClassVar[int] = 3
    unbiased: ClassVar[bool] = True
    gives: ClassVar[frozenset[Property]] = frozenset({Property.EQUAL_SUPPORT})

    @property
    def settings(self) -> Mapping[str, Option]:
        """The share."""
        return {"codec": "random-k", "codec-share": self.share}

    def select(self, delta: FloatVector, round_seed: int) -> tuple[FloatVector, None]:
        """Return the values at the agreed places, each divided by its chance to be there."""
        size, count = len(delta), self.count(len(delta))
        values = np.empty(count, np.float32)
        for place, positions in zip(pieces(count, SOME), self.agreed(size, round_seed), strict=True):
            np.multiply(delta[positions], np.diff(_bounds(place, size, count)), out=values[place], casting="same_kind")
        return values, None

    def agreed(self, size: int, round_seed: int) -> Iterator[Positions]:
        """Yield one place of each stretch; the chances differ by at most 2^-32."""
        count, bits = self.count(size), RandomBits(round_seed, PURPOSE)
        for place in pieces(count, SOME):
            bounds = _bounds(place, size, count)
            drawn = bits.words(place.stop - place.start) >> np.uint64(32)
            yield (bounds[:-1] + (drawn * np.diff(bounds) >> np.uint64(32))).astype(np.int64)


def _bounds(place: slice, size: int, count: int) -> npt.NDArray[np.uint64]:
    """Return where the stretches of these values begin, and where the last ends."""
    return np.arange(place.start, place.stop + 1, dtype=np.uint64) * np.uint64(size) // np.uint64(count)
