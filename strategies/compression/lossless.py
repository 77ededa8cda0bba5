"""The lossless stage: zstandard (RFC 8878) on top of what is written, where it pays.

Whether it pays is decided for every payload, by a sample of it: that needs no memory of earlier rounds, and follows
what updates become as the training goes on. Level 1: on packed bits higher levels take much longer and gain nothing.

What is sent may be a bomb. So a frame must name its length, which must be the one that the payload's header stands for,
before anything is allocated, and may not ask for a larger window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import zstandard

from strategies.compression.pieces import Bytes
from strategies.errors import LayoutError
from strategies.options import Option

LEVEL = 1
SAMPLES, SAMPLE = 4, 2**14
MOST = 0.95  # of its length
MIN_WINDOW = 2**10  # the smallest that zstandard has


class Lossless(Protocol):
    """What may make a payload shorter in the end."""

    @property
    def settings(self) -> Mapping[str, Option]:
        """Its name under 'codec-lossless'."""

    def shorten(self, body: Bytes) -> Bytes | None:
        """Return the body in fewer bytes; None where that does not pay."""

    def restore(self, shortened: Bytes, length: int) -> Bytes:
        """Return the body of this length; raises LayoutError where it is none."""


@dataclass(frozen=True)
class NoLossless:
    """Nothing on top."""

    settings: ClassVar[Mapping[str, Option]] = {"codec-lossless": "none"}

    def shorten(self, body: Bytes) -> None:
        """Decline."""

    def restore(self, shortened: Bytes, length: int) -> Bytes:
        """Raise LayoutError: nobody was asked for it."""
        raise LayoutError("malformed", "The update went through zstandard, but 'codec-lossless' is 'none'.")


@dataclass(frozen=True)
class Zstandard:
    """Zstandard, where a sample becomes shorter by a twentieth."""

    settings: ClassVar[Mapping[str, Option]] = {"codec-lossless": "zstd"}

    def shorten(self, body: Bytes) -> Bytes | None:
        """Return one frame that names its length."""
        sample = _sample(body)
        if len(_frame(sample)) > MOST * len(sample):
            return None
        shorter = _frame(body)
        return shorter if len(shorter) <= MOST * len(body) else None

    def restore(self, shortened: Bytes, length: int) -> Bytes:
        """Return what the frame holds."""
        try:
            frame = zstandard.get_frame_parameters(shortened.data)
            if frame.content_size != length or frame.window_size > max(length, MIN_WINDOW):
                raise LayoutError(
                    "malformed", f"The update does not hold the {length} bytes that belong to its header."
                )
            body = zstandard.ZstdDecompressor().decompress(shortened.data, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise LayoutError("malformed", f"The update is no frame of zstandard: {error}") from error
        return np.frombuffer(body, np.uint8)


def _frame(data: Bytes) -> Bytes:
    return np.frombuffer(zstandard.ZstdCompressor(level=LEVEL).compress(data.data), np.uint8)


def _sample(body: Bytes) -> Bytes:
    """Return the body, or where it is long some stretches of it."""
    if len(body) <= SAMPLES * SAMPLE:
        return body
    starts = np.linspace(0, len(body) - SAMPLE, SAMPLES).astype(int)
    return np.concatenate([body[start : start + SAMPLE] for start in starts])
