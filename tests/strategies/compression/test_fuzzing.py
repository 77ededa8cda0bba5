"""Ten thousand mutated payloads: each is read or refused, and none takes more than twice the model's memory."""

import struct
import tracemalloc

import numpy as np
import pytest

from strategies.compression.compressed import Compressed
from strategies.compression.header import LENGTH, Header
from strategies.compression.lossless import NoLossless, Zstandard
from strategies.compression.quantizer import Float16, Float32
from strategies.compression.random_k import RandomK
from strategies.compression.rotation import Rotated
from strategies.compression.sign import Sign
from strategies.compression.sparsifier import Everything
from strategies.compression.threshold import Threshold
from strategies.compression.top_k import TopK
from strategies.compression.uniform import Uniform
from strategies.errors import LayoutError

SMALL, LARGE = 100_000, 200_000
EXTREMES = (0, 1, 2, 127, 255, 2**16, SMALL - 1, SMALL, SMALL + 1, LARGE, LARGE + 1, 2**31, 2**32 - 1)

SPARSE = [
    Compressed(TopK(0.01), Float32(), Zstandard()),
    Compressed(TopK(0.01), Uniform(3), NoLossless()),
    Compressed(TopK(0.0025), Sign(), Zstandard()),
    Compressed(TopK(0.3), Uniform(5), Zstandard()),
    Compressed(Threshold(3.0), Float16(), Zstandard()),
    Compressed(Threshold(4.0), Rotated(Uniform(8)), NoLossless()),
    Compressed(RandomK(0.01), Uniform(2), Zstandard()),
]
FULL = [
    Compressed(Everything(), Float32(), Zstandard()),
    Compressed(Everything(), Float16(), NoLossless()),
    Compressed(Everything(), Uniform(1), Zstandard()),
    Compressed(Everything(), Uniform(6), Zstandard()),
    Compressed(Everything(), Rotated(Sign()), Zstandard()),
]


def mutated(payload: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, cut, insert, repeat, overwrite a header's number, or a stretch by noise."""
    data, kind = bytearray(payload), rng.integers(7)
    at = int(rng.integers(len(data)))
    length = int(min(2 ** rng.integers(0, 12), len(data) - at))
    if kind <= 1:  # near the beginning, where header and frame stand, as often as anywhere
        for place in rng.integers(0, min(len(data), 60) if kind else len(data), rng.integers(1, 9)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = rng.bytes(length)
    elif kind == 4:
        data[at:at] = data[at : at + length]
    elif kind == 5:
        data[at : at + length] = rng.bytes(length)
    elif len(data) >= LENGTH:
        place, width = (int(rng.integers(4, 10)), "B") if rng.integers(2) else (10 + 4 * int(rng.integers(3)), "I")
        value = int(rng.choice(EXTREMES))
        struct.pack_into(f"<{width}", data, place, value & 255 if width == "B" else value)
    return bytes(data)


def resealed(data: bytes) -> bytes:
    """The same with a checksum that is right, as a hostile client would send it."""
    if len(data) < LENGTH:
        return data
    fields = struct.unpack("<6B3I", data[4:22])
    return Header(*fields).seal(np.frombuffer(data[LENGTH:], np.uint8)).tobytes()


def read(codec: Compressed, data: bytes, size: int) -> bool:
    """Whether it could be read; anything but LayoutError, or a vector of another kind, fails the test."""
    try:
        delta = codec.decode(np.frombuffer(data, np.uint8), size, 2)
    except LayoutError as error:
        assert error.reason == "malformed"
        assert 0 < len(str(error)) < 500
        return False
    assert (delta.dtype, delta.shape) == (np.float32, (size,))
    return True


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("codecs", "size", "count"), [(SPARSE, SMALL, 8000), (FULL, LARGE, 2000)], ids=["sparse", "full"]
)
def test_mutated_payloads_are_read_or_refused_in_bounded_memory(
    codecs: list[Compressed], size: int, count: int
) -> None:
    rng = np.random.default_rng(7)
    delta = rng.standard_t(4, size).astype(np.float32)
    payloads = [codec.encode(delta, 1, 2).tobytes() for codec in codecs]
    understood = worst = 0
    tracemalloc.start()
    try:
        for k in range(count):
            another = k % 20 == 0  # a payload of a codec that was not asked for
            data = mutated(payloads[(k + another) % len(codecs)], rng)
            data = resealed(data) if k % 5 else data
            tracemalloc.reset_peak()
            held = tracemalloc.get_traced_memory()[0]
            understood += read(codecs[k % len(codecs)], data, size)
            worst = max(worst, tracemalloc.get_traced_memory()[1] - held)
    finally:
        tracemalloc.stop()
    assert worst <= 2 * 4 * size + 4096  # Python's own objects
    assert count / 20 < understood < count  # many mutations get as far as the body
