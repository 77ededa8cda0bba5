"""Pieces of vectors, and random bits that no version of NumPy may change: server and client draw the same."""

import numpy as np
import pytest

from strategies.compression import positions, rotation, sign, uniform
from strategies.compression.pieces import PIECE, RandomBits, pieces
from strategies.seeding import seed_sequence


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_pieces_make_up_the_whole(count: int) -> None:
    covered = [k for place in pieces(count) for k in (place.start, place.stop)]
    assert covered[:1] + covered[-1:] == ([0, count] if count else [])
    assert covered[1:-1:2] == covered[2::2]
    assert all(place.stop - place.start <= PIECE for place in pieces(count))


def test_a_piece_holds_whole_blocks_and_whole_bytes_of_bits() -> None:
    assert [PIECE % block for block in (uniform.BLOCK, sign.BLOCK, rotation.BLOCK)] == [0, 0, 0]
    assert positions.SOME % 8 == 0


def test_the_bits_are_the_generators_own_in_order() -> None:
    raw = np.random.SFC64(seed_sequence(7, 0, "", "x")).random_raw(6)
    bits = RandomBits(7, "x")
    assert bits.words(2).tolist() == raw[:2].tolist()
    assert bits.halves(3).tolist() == [int(raw[2]) >> shift & 0xFFFF for shift in (0, 16, 32)]
    assert bits.words(1).tolist() == [raw[3]]


def test_the_first_words_never_change() -> None:
    """What was drawn when this was written: updates on their way, and other versions of NumPy, rely on it."""
    assert RandomBits(1, "random-k").words(2).tolist() == [5438629380755166533, 15365441945014509975]


def test_signs_are_the_highest_bit_and_as_often_set_as_not() -> None:
    signs = RandomBits(3, "x").signs(100_000)
    assert set(signs.tolist()) == {0, 2**31}
    assert abs(np.count_nonzero(signs) - 50_000) < 5 * np.sqrt(25_000)  # wrong once in 1.7 million seeds


def test_purposes_and_seeds_draw_their_own() -> None:
    drawn = {RandomBits(seed, purpose).words(1).item() for seed in (0, 1, 2**63) for purpose in ("a", "b")}
    assert len(drawn) == 6
