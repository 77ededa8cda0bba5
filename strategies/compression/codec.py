"""How a flat delta is written for the wire and read again: what a codec is, and the one that leaves it as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from strategies.errors import LayoutError
from strategies.guarantees import Guarantees, Property
from strategies.options import Option
from strategies.updates import AnyArray, FloatVector


class Codec(Protocol):
    """Both halves of a compression, so that they are tested together: one array out, the same array in.

    A codec remembers nothing: error feedback keeps the residual ``delta - decode(encode(delta))`` outside, per client.
    ``seed`` is the client's in this round, for what is random in its payload alone. ``round_seed`` is the same for all
    clients of a round and known to the server, which never takes it from a payload: for what they have in common.
    """

    def __hash__(self) -> int:
        """A codec is a frozen value."""

    @property
    def guarantees(self) -> Guarantees:
        """What the codec gives (SINGLE_UPDATES, unless it masks them) and needs (LINEAR, where it masks)."""

    @property
    def unbiased(self) -> bool:
        """Whether a delta, decoded, has the delta as its expected value: error feedback then only adds noise."""

    @property
    def settings(self) -> Mapping[str, Option]:
        """What a client must be told, by the keys of a run config: `codec_of` makes an equal codec of it."""

    def encode(self, delta: FloatVector, seed: int, round_seed: int) -> AnyArray:
        """Write a delta, float32 [size], which is not changed.

        What is not finite must stay so once it is decoded, at least somewhere, so that admission rejects it.
        """

    def decode(self, payload: AnyArray, size: int, round_seed: int) -> FloatVector:
        """Read a delta, float32 [size], the same to the bit wherever it is read.

        The payload comes from another process: whatever is wrong with it raises LayoutError, before memory beyond the
        model's size is taken.
        """


@dataclass(frozen=True)
class Dense:
    """No compression: the delta itself."""

    @property
    def guarantees(self) -> Guarantees:
        """Single updates, in the clear and as they are, that can be added up."""
        return Guarantees(
            gives=frozenset(
                {
                    *(Property.SINGLE_UPDATES, Property.EXACT_UPDATES, Property.NODE_SUMS),
                    Property.INDEPENDENT_SAMPLING,
                }
            )
        )

    @property
    def unbiased(self) -> bool:
        """Nothing is lost."""
        return True

    @property
    def settings(self) -> Mapping[str, Option]:
        """Nothing: a client that is told nothing sends all."""
        return {}

    def encode(self, delta: FloatVector, seed: int, round_seed: int) -> FloatVector:
        """Return the delta as it is."""
        return delta

    def decode(self, payload: AnyArray, size: int, round_seed: int) -> FloatVector:
        """Return the delta after checking dtype and shape."""
        if payload.dtype != np.float32:
            raise LayoutError("dtype", f"A dense update must be float32, but is {payload.dtype.name}.")
        if payload.shape != (size,):
            raise LayoutError("shape", f"A dense update must have the shape ({size},), but has {payload.shape}.")
        return payload.astype(np.float32, copy=False)
