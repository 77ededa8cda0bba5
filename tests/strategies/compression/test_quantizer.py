"""Floating point values: exact, or rounded to half precision as NumPy does, and cut off where it would overflow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from strategies.compression.quantizer import Float16, Float32, Quantizer

FINITE = arrays(np.float32, st.integers(0, 50), elements=st.floats(-(2.0**64), 2.0**64, width=32))


def through(quantizer: Quantizer, values: np.ndarray) -> np.ndarray:
    data = quantizer.write(values, seed=0)
    assert len(data) == quantizer.length(len(values))
    out = np.full(len(values), np.nan, np.float32)
    quantizer.read(data, out)
    return out


@given(FINITE)
def test_float32_changes_no_bit(values: np.ndarray) -> None:
    assert through(Float32(), values).tobytes() == values.tobytes()


@given(FINITE)
def test_float16_is_the_nearest_that_is_finite(values: np.ndarray) -> None:
    expected = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)
    assert through(Float16(), values).tobytes() == expected.tobytes()


def test_the_error_of_float16() -> None:
    values = np.exp(np.random.default_rng(0).uniform(-20, 11, 100_000)).astype(np.float32)
    error = np.abs(through(Float16(), values) - values)
    assert (error <= np.maximum(values * 2.0**-11, 2.0**-25)).all()


@pytest.mark.parametrize("value", [1e5, -1e20])
def test_float16_cuts_off_what_is_too_large(value: float) -> None:
    assert through(Float16(), np.array([value], np.float32)).tolist() == [np.copysign(65504, value)]
