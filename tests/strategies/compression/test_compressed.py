"""Every combination of parts: there and back, the bytes that the header accounts for, and what is refused."""

import itertools
import struct
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strategies.compression.compressed import LARGEST, Compressed
from strategies.compression.header import LENGTH, NOT_FINITE, SHORTENED, Header
from strategies.compression.lossless import NoLossless, Zstandard
from strategies.compression.positions import Bitmap, FixedGaps, GolombGaps, NoPositions
from strategies.compression.quantizer import Float16, Float32, Quantizer
from strategies.compression.random_k import RandomK
from strategies.compression.registry import QUANTIZERS, SPARSIFIERS
from strategies.compression.rotation import Rotated
from strategies.compression.sign import Sign
from strategies.compression.sparsifier import Everything, Sparsifier
from strategies.compression.threshold import Threshold
from strategies.compression.top_k import TopK
from strategies.compression.uniform import Uniform
from strategies.errors import LayoutError

CHOICES: list[Sparsifier] = [Everything(), TopK(0.1), Threshold(1.2), RandomK(0.25)]
WRITTEN: list[Quantizer] = [
    Float32(),
    Float16(),
    Uniform(1),
    Uniform(4),
    Uniform(7),
    Sign(),
    Rotated(Uniform(3)),
    Rotated(Sign()),
]
COMBINATIONS = [Compressed(*parts) for parts in itertools.product(CHOICES, WRITTEN, (NoLossless(), Zstandard()))]

VALUES = st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, 1e-45, -1e-38, 1.0])
DELTAS = arrays(np.float32, st.integers(1, 1300), elements=VALUES)


def named(codec: Compressed) -> str:
    inner = getattr(codec.quantizer, "quantizer", codec.quantizer)
    rotated = "rotated-" if inner is not codec.quantizer else ""
    parts = (
        type(codec.sparsifier).__name__,
        f"{rotated}{type(inner).__name__}{inner.bits}",
        type(codec.lossless).__name__,
    )
    return "-".join(parts)


def delta_of(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, size).astype(np.float32)


def test_every_part_that_has_a_name_is_among_the_combinations() -> None:
    options = {"codec-share": 0.1, "codec-threshold": 1.2, "codec-bits": 4}
    assert {type(of(options)) for of in SPARSIFIERS.values()} == {type(part) for part in CHOICES}
    assert {type(of(options)) for of in QUANTIZERS.values()} <= {type(part) for part in WRITTEN}
    assert len({part.wire_id for part in CHOICES}) == len(CHOICES)
    assert len({(part.wire_id, part.bits) for part in WRITTEN}) == len(WRITTEN)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codec", COMBINATIONS, ids=named)
@settings(max_examples=12)
@given(delta=DELTAS, seed=st.integers(0, 2**63 - 1))
def test_there_and_back(codec: Compressed, delta: np.ndarray, seed: int) -> None:
    before, size = delta.tobytes(), len(delta)
    payload = codec.encode(delta, seed, 5)
    decoded = codec.decode(payload, size, 5)
    assert (payload.dtype, payload.ndim) == (np.uint8, 1)
    assert (decoded.dtype, decoded.shape) == (np.float32, (size,))
    assert np.isfinite(decoded).all()
    assert codec.encode(delta, seed, 5).tobytes() == payload.tobytes()
    assert codec.decode(payload, size, 5).tobytes() == decoded.tobytes()
    assert delta.tobytes() == before
    _only_what_was_chosen(codec, delta, decoded)


def _only_what_was_chosen(codec: Compressed, delta: np.ndarray, decoded: np.ndarray) -> None:
    values, positions = codec.sparsifier.select(delta, 5)
    agreed = codec.sparsifier.agreed(len(delta), 5)
    if positions is None:
        positions = np.arange(len(delta)) if agreed is None else np.concatenate(list(agreed))
    left_out = np.ones(len(delta), bool)
    left_out[positions] = False
    assert not decoded[left_out].any()
    if isinstance(codec.quantizer, Float32):
        assert decoded[positions].tobytes() == values.tobytes()


@pytest.mark.parametrize("codec", COMBINATIONS, ids=named)
def test_the_payload_has_the_bytes_that_its_header_accounts_for(codec: Compressed) -> None:
    for size in (1, 2, 511, 513, 4096, 70_001):
        payload = codec.encode(delta_of(size), 1, 2)
        magic, *fields = struct.unpack("<3s7B3II", payload[:LENGTH].tobytes())
        version, _, _, bits, flags, coder, width, told, count, unary, crc = fields
        assert (magic, version, told, bits) == (b"FKU", 1, size, codec.quantizer.bits)
        assert crc == zlib.crc32(payload[:22].tobytes() + payload[26:].tobytes())
        position_bits = {0: [], 1: [count * width], 2: [count * width, unary], 3: [size]}[coder]
        positions = sum(-(-each // 8) for each in position_bits)
        length = positions + codec.quantizer.length(count)
        assert positions <= -(-size // 8)
        if flags == SHORTENED:
            assert len(payload) < LENGTH + length
            assert len(codec.lossless.restore(payload[LENGTH:], length)) == length
        else:
            assert len(payload) == LENGTH + length


@pytest.mark.parametrize("codec", COMBINATIONS, ids=named)
def test_what_is_not_finite_stays_so(codec: Compressed) -> None:
    for value in (np.nan, np.inf, -np.inf, 2 * LARGEST):
        delta = delta_of(600)
        delta[7] = value
        payload = codec.encode(delta, 1, 2)
        assert len(payload) == LENGTH
        assert np.isnan(codec.decode(payload, 600, 2)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codec", COMBINATIONS, ids=named)
def test_vectors_of_one_extreme_value_come_through_finite(codec: Compressed) -> None:
    for value, size in itertools.product((0.0, -0.0, 1e-45, -1e-38, LARGEST, -LARGEST), (1, 700)):
        delta = np.full(size, value, np.float32)
        decoded = codec.decode(codec.encode(delta, 1, 2), size, 2)
        assert np.isfinite(decoded).all()
        assert np.abs(decoded).max() <= 4.01 * np.sqrt(size) * abs(delta[0])  # random-k and rotation


@pytest.mark.parametrize("codec", COMBINATIONS, ids=named)
def test_reading_takes_at_most_twice_the_memory_of_the_model(codec: Compressed) -> None:
    size = 200_000
    payload = codec.encode(delta_of(size), 1, 2)
    tracemalloc.start()
    try:
        codec.decode(payload, size, 2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * 4 * size + 4096  # Python's own objects


def test_the_wire_format_never_changes_within_a_version() -> None:
    """Written when the version was made: clients of an older release write this, and servers must read it."""
    delta = np.array([0.5, -3, 0.25, 2, 0, 0, -1, 8], np.float32)
    payload = Compressed(TopK(0.5), Sign(), NoLossless()).encode(delta, 1, 2)
    assert payload.tobytes().hex() == "464b550101030100030008000000040000000000000049f63894ca000060400a"
    decoded = Compressed(TopK(0.5), Sign(), NoLossless()).decode(payload, 8, 2)
    assert decoded.tolist() == [0, -3.5, 0, 3.5, 0, 0, -3.5, 3.5]


def test_decoding_is_the_same_to_the_bit_on_every_machine() -> None:
    """Places from the round's seed, a scale of 6, levels 7 0 5 2 7 of 14, and a rotation of four values and one."""
    codec = Compressed(RandomK(0.5), Rotated(Uniform(4)), NoLossless())
    payload = "464b55010382040000000a00000005000000000000008ab7ec6b83e2e6025928c92a0000c040072507"
    decoded = codec.decode(np.frombuffer(bytes.fromhex(payload), np.uint8), 10, round_seed=2)
    matrix = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    rotated = matrix @ [0, -6, -12 / 7, -30 / 7] / 2
    np.testing.assert_allclose(np.abs(decoded[[1, 3, 4, 6]]), np.abs(rotated), rtol=1e-6, atol=1e-12)
    assert not decoded[[0, 2, 5, 7, 8, 9]].any()
    assert decoded.tobytes().hex() == (
        "000000000000c0c000000000922489400000008000000000b86ddbbf000000000000000000000000"
    )


def resealed(payload: np.ndarray, body: bytes | None = None, **changes: int) -> np.ndarray:
    header, old = Header.open(payload)
    return replace(header, **changes).seal(old if body is None else np.frombuffer(body, np.uint8))


TOP = Compressed(TopK(0.1), Uniform(4), NoLossless())
ALL = Compressed(Everything(), Float32(), Zstandard())
SOME = Compressed(Threshold(1.5), Float16(), Zstandard())
RANDOM = Compressed(RandomK(0.1), Float32(), NoLossless())
SIZE = 1000


@pytest.mark.parametrize(
    ("codec", "changes", "why"),
    [
        (TOP, {"sparsifier": 2}, "its sparsifier is 2, but 1 was asked for"),
        (TOP, {"quantizer": 0x82}, "its quantizer is 130, but 2 was asked for"),
        (TOP, {"bits": 8}, "its bits is 8, but 4 was asked for"),
        (TOP, {"size": 999}, "its size is 999, but 1000 was asked for"),
        (TOP, {"flags": 3}, "its flags are 3"),
        (TOP, {"count": 99}, "it claims 99 values, but should send 100"),
        (TOP, {"count": 2**32 - 1}, "it claims 4294967295 values, but should send 100"),
        (SOME, {"count": 1001}, "it claims 1001 values, but has only 1000"),
        (SOME, {"count": 5}, "its header stands for"),
        (TOP, {"coder": NoPositions.wire_id}, "its positions are written in the way 0"),
        (TOP, {"coder": 4}, "its positions are written in the way 4"),
        (ALL, {"coder": Bitmap.wire_id}, "its positions are written in the way 3"),
        (RANDOM, {"coder": Bitmap.wire_id}, "its positions are written in the way 3"),
        (TOP, {"coder": FixedGaps.wire_id, "width": 33, "unary": 0}, "its gaps have 33 bits"),
        (TOP, {"coder": FixedGaps.wire_id, "width": 32, "unary": 0}, "more than a bit for each value of the model"),
        (TOP, {"coder": FixedGaps.wire_id, "width": 3}, "its gaps have 3 bits and"),
        (TOP, {"coder": Bitmap.wire_id}, "its gaps have"),
        (TOP, {"unary": 2**32 - 1}, "more than a bit for each value of the model"),
        (TOP, {"flags": SHORTENED}, "'codec-lossless' is 'none'"),
        (TOP, {"flags": NOT_FINITE}, "it claims 100 values, but should send 0"),
        (TOP, {"flags": NOT_FINITE, "count": 0}, "its header stands for 0 bytes"),
        (SOME, {"flags": SHORTENED}, "no frame of zstandard"),
    ],
)
def test_a_header_that_was_not_asked_for_is_refused(codec: Compressed, changes: dict[str, int], why: str) -> None:
    payload = resealed(codec.encode(delta_of(SIZE), 1, 2), **changes)
    with pytest.raises(LayoutError, match=why) as caught:
        codec.decode(payload, SIZE, 2)
    assert caught.value.reason == "malformed"


def test_a_body_of_more_than_four_bytes_a_value_is_not_restored() -> None:
    """Positions and float32 of nearly all values would be more than the model itself."""
    codec = Compressed(Threshold(1e-9), Float32(), Zstandard())
    delta = np.ones(SIZE, np.float32)
    delta[0] = 0
    payload = codec.encode(delta, 1, 2)
    assert Header.open(payload)[0].flags == 0
    assert codec.decode(payload, SIZE, 2).tolist() == delta.tolist()
    body = Zstandard().shorten(Header.open(payload)[1])
    assert body is not None
    with pytest.raises(LayoutError, match="shortened from 4121 bytes, but at most 4000 may be"):
        codec.decode(resealed(payload, body.tobytes(), flags=SHORTENED), SIZE, 2)


@pytest.mark.parametrize("payload", [np.zeros(50, np.float32), np.zeros((5, 10), np.uint8), np.zeros(50, np.int8)])
def test_a_payload_is_a_row_of_bytes(payload: np.ndarray) -> None:
    with pytest.raises(LayoutError, match="a row of bytes") as caught:
        TOP.decode(payload, SIZE, 2)
    assert caught.value.reason == "dtype"


def test_the_coder_is_the_payloads_choice() -> None:
    """A client may write gaps where the others write a bitmap: the values are the same."""
    delta = np.zeros(SIZE, np.float32)
    delta[::10] = 1
    codec = Compressed(TopK(0.1), Float32(), NoLossless())
    payload = codec.encode(delta, 1, 2)
    header, body = Header.open(payload)
    values = body[-400:]
    positions = np.arange(0, SIZE, 10)
    for coder in (Bitmap(), GolombGaps(3, 199), FixedGaps(5)):
        written = np.concatenate([coder.write(positions, SIZE), values])
        changed = replace(header, coder=coder.wire_id, width=coder.width, unary=coder.unary).seal(written)
        assert codec.decode(changed, SIZE, 2).tolist() == delta.tolist()
