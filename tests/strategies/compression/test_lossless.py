"""The lossless stage: used where it pays, and bombs are refused before they go off."""

import struct
import tracemalloc

import numpy as np
import pytest
import zstandard

from strategies.compression.compressed import Compressed
from strategies.compression.header import SHORTENED, Header
from strategies.compression.lossless import SAMPLE, SAMPLES, NoLossless, Zstandard
from strategies.compression.quantizer import Float32
from strategies.compression.sparsifier import Everything
from strategies.errors import LayoutError

ZEROS = 2**26


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, count).astype(np.uint8)


@pytest.mark.parametrize("count", [100, 5000, SAMPLES * SAMPLE + 1, 1_000_003])
def test_what_repeats_becomes_shorter_and_comes_back(count: int) -> None:
    body = noise(count) & 3
    shorter = Zstandard().shorten(body)
    assert shorter is not None
    assert len(shorter) < 0.35 * count + 50  # two bits a byte, the code's imperfection, and the frame
    assert Zstandard().restore(shorter, count).tobytes() == body.tobytes()


@pytest.mark.parametrize("count", [0, 1, 100, SAMPLES * SAMPLE + 1])
def test_what_would_not_become_shorter_is_left_as_it_is(count: int) -> None:
    assert Zstandard().shorten(noise(count)) is None


def test_a_long_body_is_judged_by_stretches_from_beginning_to_end() -> None:
    body = noise(20 * SAMPLE)
    body[SAMPLE:] = 0
    assert Zstandard().shorten(body) is not None


def test_without_it_nothing_is_shortened_and_nothing_is_taken() -> None:
    assert NoLossless().shorten(np.zeros(1000, np.uint8)) is None
    with pytest.raises(LayoutError, match="'codec-lossless' is 'none'"):
        NoLossless().restore(Zstandard().shorten(np.zeros(1000, np.uint8)), 1000)


def frame(data: bytes, **kwargs: bool) -> bytes:
    return zstandard.ZstdCompressor(level=1, **kwargs).compress(data)


def lying(length: int) -> bytes:
    """A frame of 64 MiB of zeros that says it holds ``length`` bytes."""
    honest = bytearray(frame(bytes(ZEROS)))
    place = honest.index(struct.pack("<I", ZEROS))
    honest[place : place + 4] = struct.pack("<I", length)
    return bytes(honest)


SKIPPABLE = struct.pack("<II", 0x184D2A50, 1000) + bytes(1000)
HUGE_WINDOW = struct.pack("<IBBI", 0xFD2FB528, 0x80, 0xA8, 1000) + bytes(20)  # of 2 GiB, and 1000 bytes of content

HOSTILE = {
    "honest-bomb": frame(bytes(ZEROS)),
    "lying-bomb": lying(1000),
    "no-length": frame(bytes(1000), write_content_size=False),
    "shorter": frame(bytes(999)),
    "huge-window": HUGE_WINDOW,
    "skippable": SKIPPABLE,
    "two-frames": frame(bytes(1000)) + frame(bytes(ZEROS)),
    "trailing": frame(bytes(1000)) + b"x",
    "cut": frame(noise(1000).tobytes())[:-5],
    "corrupt": frame(bytes(500) + noise(500).tobytes())[:40] + bytes(300),
    "empty": b"",
    "no-frame": bytes(100),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bombs_and_other_frames_that_are_not_what_they_should_be(name: str) -> None:
    """Each in the place of the 1000 bytes of 250 values."""
    codec = Compressed(Everything(), Float32(), Zstandard())
    header = Header(0, 0, 32, SHORTENED, 0, 0, 250, 250, 0)
    assert codec.decode(header.seal(np.frombuffer(frame(bytes(1000)), np.uint8)), 250, 0).tolist() == [0] * 250
    payload = header.seal(np.frombuffer(HOSTILE[name], np.uint8))
    tracemalloc.start()
    try:
        with pytest.raises(LayoutError) as caught:
            codec.decode(payload, 250, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.reason == "malformed"
    assert peak < 20_000


def test_what_becomes_longer_although_its_sample_did_not_is_left_as_it_is() -> None:
    body = noise(100 * SAMPLE)
    for start in np.linspace(0, len(body) - SAMPLE, SAMPLES).astype(int):
        body[start : start + SAMPLE] = 0
    assert Zstandard().shorten(body) is None
