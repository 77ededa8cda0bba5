"""Positions: read as written in every code, against Golomb-Rice read bit by bit, and against the entropy."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.compression.bits import pack
from strategies.compression.positions import (
    SOME,
    Bitmap,
    Coder,
    FixedGaps,
    GolombGaps,
    NoPositions,
    Positions,
    checked,
    gaps_of,
    smallest,
)
from strategies.errors import LayoutError

SIZE = 1000


def coders(positions: Positions) -> list[Coder]:
    gaps = gaps_of(positions)
    return [FixedGaps.fitted(gaps), GolombGaps.fitted(gaps), Bitmap()]


def read(coder: Coder, data: np.ndarray, size: int, count: int) -> list[int]:
    return [int(p) for some in checked(coder.read(data, size, count), size, count) for p in some]


def at_random(share: float, size: int, seed: int = 0) -> Positions:
    return np.flatnonzero(np.random.default_rng(seed).random(size) < share)


@given(st.sets(st.integers(0, SIZE - 1)))
def test_read_as_written_in_every_code(chosen: set[int]) -> None:
    positions = np.array(sorted(chosen), np.int64)
    for coder in [*coders(positions), smallest(positions, SIZE)]:
        data = coder.write(positions, SIZE)
        assert len(data) == coder.length(SIZE, len(positions))
        assert read(coder, data, SIZE, len(positions)) == positions.tolist()


@pytest.mark.parametrize("share", [0.001, 0.01, 0.2, 0.5, 0.9])
def test_read_as_written_over_many_pieces(share: float) -> None:
    size = 20 * SOME + 5
    positions = at_random(share, size)
    for coder in coders(positions):
        assert read(coder, coder.write(positions, size), size, len(positions)) == positions.tolist()


@given(st.lists(st.integers(0, SIZE - 1), min_size=1, unique=True))
def test_golomb_rice_read_bit_by_bit_is_the_same(chosen: list[int]) -> None:
    positions = np.array(sorted(chosen))
    coder = GolombGaps.fitted(gaps_of(positions))
    data = int.from_bytes(coder.write(positions, SIZE).tobytes(), "little")
    lowest = [data >> k * coder.width & (1 << coder.width) - 1 for k in range(len(positions))]
    if coder.width > 8:  # the lower byte of each has a plane of its own
        lowest = [
            data >> 8 * k & 255 | (data >> 8 * len(positions) + k * (coder.width - 8) & 1) << 8
            for k in range(len(positions))
        ]
    unary, position, found = data >> 8 * math.ceil(len(positions) * coder.width / 8), -1, []
    for low in lowest:
        above = (unary & -unary).bit_length() - 1
        unary >>= above + 1
        position += (above << coder.width | low) + 1
        found.append(position)
    assert found == positions.tolist()


@pytest.mark.parametrize("share", [0.01, 1 / 400])
def test_golomb_is_within_two_percent_of_the_entropy(share: float) -> None:
    """The bound of positions that are independent of each other: H(p) / p bits for each."""
    size = 4_000_000
    positions = at_random(share, size)
    entropy = -(share * math.log2(share) + (1 - share) * math.log2(1 - share)) / share
    coder = smallest(positions, size)
    bits = 8 * coder.length(size, len(positions)) / len(positions)
    assert isinstance(coder, GolombGaps)
    assert 0.99 * entropy < bits < 1.02 * entropy
    if share == 0.01:
        assert bits == pytest.approx(8.11, abs=0.03)


@pytest.mark.parametrize("share", [0.0003, 0.003, 0.03, 0.1, 0.2])
def test_the_width_that_is_chosen_is_the_best_of_all(share: float) -> None:
    gaps = gaps_of(at_random(share, 300_000))
    lengths = [width * len(gaps) + int((gaps >> width).sum()) + len(gaps) for width in range(20)]
    best = GolombGaps.fitted(gaps)
    assert best.width * len(gaps) + best.unary == min(lengths)


@pytest.mark.parametrize(
    ("positions", "coder"),
    [
        (np.arange(SIZE), NoPositions()),
        (np.zeros(0, np.int64), FixedGaps(0)),
        (np.arange(100), FixedGaps(0)),  # all at the beginning: nothing has to be written
        (np.arange(7, SIZE, 8), FixedGaps(3)),
        (at_random(0.5, SIZE), Bitmap()),
    ],
)
def test_the_smallest_code_is_chosen(positions: Positions, coder: Coder) -> None:
    assert smallest(positions, SIZE) == coder
    assert coder.length(SIZE, len(positions)) <= min(other.length(SIZE, len(positions)) for other in coders(positions))


def raw(bits: str) -> np.ndarray:
    """Bits as they are read, the first the lowest of the first byte."""
    return np.packbits([int(bit) for bit in bits], bitorder="little")


@pytest.mark.parametrize(
    ("coder", "data", "count", "why"),
    [
        (FixedGaps(4), pack(np.array([5, 5]), 4), 2, "do not lie within the 10"),
        (FixedGaps(32), pack(np.array([2**32 - 1] * 3), 32), 3, "do not lie within the 10"),
        (GolombGaps(0, 3), raw("11100000"), 2, "more than its 2 values"),
        (GolombGaps(0, 3), raw("00011000"), 2, "more than its 2 values"),
        (GolombGaps(0, 8), raw("00000001"), 2, "2 values, but positions for 1"),
        (GolombGaps(0, 8), raw("00000000"), 1, "1 values, but positions for 0"),
        (GolombGaps(30, 10), np.concatenate([np.zeros(4, np.uint8), raw("0000000001")]), 1, "wider than the 10"),
        (Bitmap(), raw("1110000000"), 2, "do not lie within the 10"),
        (Bitmap(), raw("1000000000"), 2, "2 values, but positions for 1"),
        (Bitmap(), raw("100000000001"), 2, "do not lie within the 10"),
    ],
)
def test_positions_of_another_process_are_not_believed(coder: Coder, data: np.ndarray, count: int, why: str) -> None:
    with pytest.raises(LayoutError, match=why) as caught:
        read(coder, data, 10, count)
    assert caught.value.reason == "malformed"


def test_without_positions_there_is_a_value_everywhere() -> None:
    size = 2 * SOME + 1
    assert NoPositions().length(size, size) == len(NoPositions().write(np.arange(size), size)) == 0
    assert read(NoPositions(), np.zeros(0, np.uint8), size, size) == list(range(size))


def test_too_many_are_noticed_before_they_are_handed_on() -> None:
    def three() -> Iterator[Positions]:
        yield np.array([1, 2])
        yield np.array([3])

    some = checked(three(), 10, 2)
    assert next(some).tolist() == [1, 2]
    with pytest.raises(LayoutError):
        next(some)
