"""Stochastic uniform quantization: unbiased, the variance bound of QSGD, and what a payload may not hold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strategies.compression.bits import packed_length
from strategies.compression.scales import LARGEST_SCALE
from strategies.compression.uniform import BLOCK, Uniform
from strategies.errors import LayoutError

BITS = range(1, 9)


def through(quantizer: Uniform, values: np.ndarray, seed: int = 0) -> np.ndarray:
    data = quantizer.write(values, seed)
    assert len(data) == quantizer.length(len(values))
    out = np.full(len(values), np.nan, np.float32)
    quantizer.read(data, out)
    return out


def levels(bits: int) -> np.ndarray:
    s = 2 ** (bits - 1) - 1
    return np.arange(-s, s + 1) / s if s else np.array([-1.0, 1.0])


def drawn(values: np.ndarray, bits: int, draws: int) -> np.ndarray:
    """So many independent quantizations of a block of values: as many blocks of one long vector."""
    block = np.zeros(BLOCK, np.float32)
    block[: len(values)] = values
    out = through(Uniform(bits), np.tile(block, draws), seed=bits)
    return out.reshape(draws, BLOCK)[:, : len(values)].astype(np.float64)


@pytest.mark.parametrize("bits", BITS)
def test_unbiased_over_ten_thousand_draws(bits: int) -> None:
    """Every mean within 5 standard errors: of 8 x 40 means one is not once in 5000 seeds."""
    values = np.random.default_rng(0).normal(size=40).astype(np.float32)
    values[:4] = 0, 1e-6, np.abs(values).max() * 1.5, -1
    found = drawn(values, bits, 10_000)
    step = float(np.abs(values).max()) / max(1, 2 ** (bits - 1) - 1)
    error = found.std(axis=0) / 100 + step * 2.0**-15
    assert (np.abs(found.mean(axis=0) - values) < 5 * error).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("kind", ["normal", "one", "equal", "heavy"])
def test_the_variance_is_within_the_bound_of_qsgd(bits: int, kind: str) -> None:
    """E||Q(x) - x||^2 <= min(n / s^2, sqrt(n) / s) ||x||^2, with s levels above zero; 1 bit: the first half alone."""
    rng = np.random.default_rng(1)
    kinds = {"normal": rng.normal(size=BLOCK), "one": np.eye(1, BLOCK, 7)[0], "equal": np.full(BLOCK, 0.3)}
    values = {**kinds, "heavy": rng.standard_t(2, size=BLOCK)}[kind].astype(np.float32)
    s = max(1, 2 ** (bits - 1) - 1)
    bound = min(BLOCK / s**2, math.sqrt(BLOCK) / s if bits > 1 else math.inf) * float(values @ values)
    squares = np.square(drawn(values, bits, 200) - values).sum(axis=1)
    assert squares.mean() <= bound * (1 + 1e-6)
    chances = np.interp(values / np.abs(values).max(), levels(bits), np.arange(len(levels(bits)))) % 1
    width = float(np.abs(values).max()) * (levels(bits)[1] - levels(bits)[0])
    exact = float((width**2 * chances * (1 - chances)).sum())  # of rounding without bias, coordinate by coordinate
    assert squares.mean() == pytest.approx(exact, rel=0.05, abs=1e-9 * float(values @ values))


@given(arrays(np.float32, st.integers(1, 1100), elements=st.floats(-1e9, 1e9, width=32)), st.integers(1, 8))
def test_every_value_becomes_one_of_the_two_levels_around_it(values: np.ndarray, bits: int) -> None:
    found = through(Uniform(bits), values)
    for start in range(0, len(values), BLOCK):
        own, got = values[start : start + BLOCK].astype(np.float64), found[start : start + BLOCK]
        largest = np.abs(own).max()
        if largest < 2.0**-100:
            assert not got.any()
            continue
        grid = levels(bits) * largest
        tolerance = 2.0**-14 * (grid[1] - grid[0])
        assert (np.abs(got[:, None] - grid).min(axis=1) <= largest * 1e-6).all()
        assert (np.abs(got - own) <= (grid[1] - grid[0]) + tolerance).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_zeros_stay_zeros_and_the_largest_value_stays_exact(bits: int) -> None:
    values = np.array([0, -0.0, 0.25, 0, -3.14159], np.float32)
    found = through(Uniform(bits), values)
    assert found[[0, 1, 3]].tolist() == [0, 0, 0]
    assert found[4] == values[4]


@pytest.mark.parametrize("bits", BITS)
def test_blocks_of_zeros_or_of_next_to_nothing_are_zeros(bits: int) -> None:
    tiny = np.array([0, 1e-45, -1e-38, 7e-31], np.float32)
    assert not through(Uniform(bits), tiny).any()
    assert not through(Uniform(bits), np.zeros(BLOCK + 1, np.float32)).any()


@pytest.mark.parametrize("bits", BITS)
def test_the_largest_values_and_those_just_above_nothing_come_through(bits: int) -> None:
    for scale in (2.0**-100, LARGEST_SCALE):
        found = through(Uniform(bits), np.array([scale, -scale], np.float32))
        assert found.tolist() == [np.float32(scale), np.float32(-scale)]


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    one, again, other = (Uniform(3).write(values, seed) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes() != other.tobytes()


def test_a_block_does_not_depend_on_what_follows_it() -> None:
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    whole, part = through(Uniform(4), values), through(Uniform(4), values[:70_000])
    assert whole[: 70_000 // BLOCK * BLOCK].tobytes() == part[: 70_000 // BLOCK * BLOCK].tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_level_that_does_not_exist_is_malformed(bits: int) -> None:
    data = Uniform(bits).write(np.ones(9, np.float32), 0)
    data[-packed_length(9, bits) :] = 0xFF
    with pytest.raises(LayoutError, match=f"of {bits} bits has a level above {2**bits - 2}"):
        Uniform(bits).read(data, np.empty(9, np.float32))


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf, 2.0**103])
def test_a_scale_that_nobody_could_have_written_is_malformed(scale: float) -> None:
    data = Uniform(4).write(np.ones(BLOCK + 9, np.float32), 0)
    data[4:8] = np.array([scale], "<f4").view(np.uint8)
    with pytest.raises(LayoutError, match=r"negative, beyond 2\^102 or not a number"):
        Uniform(4).read(data, np.empty(BLOCK + 9, np.float32))
