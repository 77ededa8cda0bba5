"""A codec of parts: which values are sent, how they and their positions are written, and what shortens all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from strategies.compression.header import MAX_SIZE, NOT_FINITE, SHORTENED, Header
from strategies.compression.lossless import Lossless
from strategies.compression.pieces import Bytes
from strategies.compression.positions import (
    Bitmap,
    Coder,
    FixedGaps,
    GolombGaps,
    NoPositions,
    Positions,
    checked,
    smallest,
)
from strategies.compression.quantizer import Float32, Quantizer
from strategies.compression.sparsifier import Everything, Sparsifier
from strategies.errors import LayoutError, StrategyError
from strategies.fixed_point import largest_absolute
from strategies.guarantees import Guarantees, Property
from strategies.options import Option
from strategies.updates import AnyArray, FloatVector

LARGEST = 2.0**64  # far beyond what a sum can take in: what is larger counts as not finite
NOTHING: Bytes = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class Compressed:
    """Sparsifier x quantizer x coder of positions x lossless stage: one payload, uint8 [bytes].

    The decoder takes exactly the sparsifier and quantizer that it has itself, whatever a payload claims; only how the
    positions are written is the payload's choice, as long as it is no longer than a bitmap. Beside the result, and the
    body where it was shortened, which has at most four bytes a value, it needs the memory of a few pieces.
    """

    sparsifier: Sparsifier
    quantizer: Quantizer
    lossless: Lossless

    @property
    def guarantees(self) -> Guarantees:
        """Single updates in the clear, of one round each; no sums of a node, which would not be compressed."""
        exact = isinstance(self.sparsifier, Everything) and isinstance(self.quantizer, Float32)
        own = {Property.SINGLE_UPDATES, Property.INDEPENDENT_SAMPLING, *((Property.EXACT_UPDATES,) if exact else ())}
        return Guarantees(gives=self.sparsifier.gives | own)

    @property
    def unbiased(self) -> bool:
        """Whether both parts that lose something are."""
        return self.sparsifier.unbiased and self.quantizer.unbiased

    @property
    def settings(self) -> Mapping[str, Option]:
        """Those of the parts."""
        return {**self.quantizer.settings, **self.sparsifier.settings, **self.lossless.settings}

    def encode(self, delta: FloatVector, seed: int, round_seed: int) -> Bytes:
        """Write a delta; one that is not finite, or has a value beyond 2^64, is sent as that fact alone."""
        size = len(delta)
        if size > MAX_SIZE:
            raise StrategyError(f"A model of {size} values cannot be compressed, only one of at most {MAX_SIZE}.")
        if not largest_absolute(delta) <= LARGEST:
            return self._header(size, 0, NOT_FINITE, NoPositions()).seal(NOTHING)
        values, positions = self.sparsifier.select(delta, round_seed)
        coder = NoPositions() if positions is None else smallest(positions, size)
        places = NOTHING if positions is None else coder.write(positions, size)
        body = np.concatenate([places, self.quantizer.write(values, seed)])
        shorter = self.lossless.shorten(body) if len(body) <= 4 * size else None
        header = self._header(size, len(values), 0 if shorter is None else SHORTENED, coder)
        return header.seal(body if shorter is None else shorter)

    def decode(self, payload: AnyArray, size: int, round_seed: int) -> FloatVector:
        """Read a delta; one that was not finite is NaN everywhere."""
        if payload.dtype != np.uint8 or payload.ndim != 1:
            raise LayoutError("dtype", f"A compressed update is a row of bytes, but {payload.dtype.name} was sent.")
        header, body = Header.open(np.ascontiguousarray(payload, np.uint8))
        self._check(header, size)
        if header.not_finite:
            self._body(header, body, 0)
            return np.full(size, np.nan, np.float32)
        agreed = self.sparsifier.agreed(size, round_seed)
        coder = _coder(header, size, sent=agreed is None and header.count < size)
        split = coder.length(size, header.count)
        body = self._body(header, body, split + self.quantizer.length(header.count))
        delta = np.empty(size, np.float32)
        self.quantizer.read(body[split:], delta[size - header.count :])
        if header.count < size:
            read = coder.read(body[:split], size, header.count) if agreed is None else agreed
            _spread(delta, header.count, checked(read, size, header.count))
        return delta

    def _header(self, size: int, count: int, flags: int, coder: Coder) -> Header:
        parts = self.sparsifier.wire_id, self.quantizer.wire_id, self.quantizer.bits
        return Header(*parts, flags, coder.wire_id, coder.width, size, count, coder.unary)

    def _check(self, header: Header, size: int) -> None:
        agreed = self._header(size, 0, 0, NoPositions())
        for name in ("sparsifier", "quantizer", "bits", "size"):
            if (sent := getattr(header, name)) != (own := getattr(agreed, name)):
                _refuse(f"its {name} is {sent}, but {own} was asked for")
        if header.flags not in (0, SHORTENED, NOT_FINITE):
            _refuse(f"its flags are {header.flags}")
        count = 0 if header.not_finite else self.sparsifier.count(size)
        if header.count > size or count not in (None, header.count):
            allowed = f"has only {size}" if count is None else f"should send {count}"
            _refuse(f"it claims {header.count} values, but {allowed}")

    def _body(self, header: Header, body: Bytes, length: int) -> Bytes:
        if header.shortened:
            if length > 4 * header.size:
                _refuse(f"it was shortened from {length} bytes, but at most {4 * header.size} may be")
            body = self.lossless.restore(body, length)
        if len(body) != length:
            _refuse(f"its header stands for {length} bytes, but {len(body)} follow")
        return body


def _coder(header: Header, size: int, sent: bool) -> Coder:
    """Return how the positions of a payload are written; raises LayoutError where that is not allowed."""
    coders: dict[int, Coder] = {
        NoPositions.wire_id: NoPositions(),
        FixedGaps.wire_id: FixedGaps(header.width),
        GolombGaps.wire_id: GolombGaps(header.width, header.unary),
        Bitmap.wire_id: Bitmap(),
    }
    coder = coders.get(header.coder)
    if coder is None or sent is isinstance(coder, NoPositions):
        _refuse(f"its positions are written in the way {header.coder}")
    if (coder.width, coder.unary) != (header.width, header.unary) or header.width > 32:
        _refuse(f"its gaps have {header.width} bits and {header.unary} in unary")
    if coder.length(size, header.count) > Bitmap().length(size, header.count):
        _refuse("its positions take more than a bit for each value of the model")
    return coder


def _spread(delta: FloatVector, count: int, positions: Iterator[Positions]) -> None:
    """Move the values at the end of a vector to their increasing positions, in place; the rest becomes 0.

    None of the positions lies behind its value, as all later ones have to have room: nothing is written over unread.
    """
    unread = len(delta) - count
    delta[:unread] = 0
    for some in positions:
        place = slice(unread, unread + len(some))
        values = delta[place].copy()
        delta[place] = 0
        delta[some] = values
        unread = place.stop


def _refuse(why: str) -> NoReturn:
    raise LayoutError("malformed", f"The compressed update cannot be read: {why}.")
