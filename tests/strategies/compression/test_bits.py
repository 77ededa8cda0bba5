"""Packed numbers against one long Python integer, in which number k stands at bit k * width."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.compression.bits import pack, packed_length, unpack


@st.composite
def numbers(draw: st.DrawFn, widest: int) -> tuple[np.ndarray, int]:
    width = draw(st.integers(0, widest))
    drawn = draw(st.lists(st.integers(0, 2**width - 1), max_size=70))
    return np.array(drawn, np.int64), width


@given(numbers(8))
def test_up_to_eight_bits_are_one_long_number(case: tuple[np.ndarray, int]) -> None:
    given_, width = case
    packed = pack(given_, width)
    assert int.from_bytes(packed.tobytes(), "little") == sum(int(n) << k * width for k, n in enumerate(given_))
    assert len(packed) == packed_length(len(given_), width) == -(-len(given_) * width // 8)


@given(numbers(32))
def test_unpacked_as_packed(case: tuple[np.ndarray, int]) -> None:
    given_, width = case
    packed = pack(given_, width)
    assert len(packed) == packed_length(len(given_), width)
    assert len(given_) * width <= 8 * len(packed) < len(given_) * width + 8
    assert unpack(packed, len(given_), width, slice(0, len(given_))).tolist() == given_.tolist()


@pytest.mark.parametrize("width", [1, 3, 7, 8, 9, 16, 21, 32])
@pytest.mark.parametrize("place", [slice(0, 1), slice(3, 17), slice(8, 16), slice(39, 41), slice(5, 5)])
def test_any_stretch_can_be_read(width: int, place: slice) -> None:
    given_ = np.random.default_rng(width).integers(0, 2**width, 41)
    assert unpack(pack(given_, width), 41, width, place).tolist() == given_[place].tolist()


def test_wide_numbers_have_a_plane_for_each_lower_byte() -> None:
    assert pack(np.array([0x1AB, 0x2CD, 0x3EF]), 10).tolist() == [0xAB, 0xCD, 0xEF, 0b111001]
