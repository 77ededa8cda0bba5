"""Sign with norm against its formula, and sparse ternary compression, which is made of it."""

import numpy as np
import pytest

from strategies.compression.pieces import PIECE
from strategies.compression.registry import codec_of
from strategies.compression.sign import BLOCK, Sign


def through(values: np.ndarray) -> np.ndarray:
    data = Sign().write(values, 0)
    assert len(data) == Sign().length(len(values))
    out = np.full(len(values), np.nan, np.float32)
    Sign().read(data, out)
    return out


@pytest.mark.parametrize("size", [1, 7, BLOCK, BLOCK + 1, PIECE + 3 * BLOCK + 5])
def test_every_block_becomes_its_mean_size_with_signs(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    found = through(values)
    for start in range(0, size, BLOCK):
        own = values[start : start + BLOCK]
        expected = np.abs(own.astype(np.float64)).mean() * np.where(own >= 0, 1, -1)
        np.testing.assert_allclose(found[start : start + BLOCK], expected, rtol=1e-6)


def test_the_contraction_of_the_paper() -> None:
    """||x - C(x)||^2 = (1 - ||x||_1^2 / (d ||x||_2^2)) ||x||^2 (Karimireddy et al. 2019): 1 - 2/pi of normal values."""
    values = np.random.default_rng(0).normal(size=BLOCK).astype(np.float32).astype(np.float64)
    lost = np.square(values - through(values.astype(np.float32))).sum()
    assert lost == pytest.approx(values @ values - np.abs(values).sum() ** 2 / BLOCK, rel=1e-5)
    assert lost / (values @ values) == pytest.approx(1 - 2 / np.pi, abs=0.05)


def test_zeros_are_plus_and_a_block_of_zeros_is_zeros() -> None:
    assert through(np.array([0, -0.0, -1, 3], np.float32)).tolist() == [1, 1, -1, 1]
    assert not through(np.zeros(BLOCK + 5, np.float32)).any()


def test_nothing_is_written_of_nothing() -> None:
    assert through(np.zeros(0, np.float32)).tolist() == []


def test_stc_is_algorithm_1_of_sattler_et_al() -> None:
    delta = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    codec = codec_of({"codec": "stc", "codec-share": 0.01})
    top = np.sort(np.argsort(-np.abs(delta))[:40])
    expected = np.zeros(4000)
    expected[top] = np.abs(delta[top].astype(np.float64)).mean() * np.sign(delta[top])
    np.testing.assert_allclose(codec.decode(codec.encode(delta, 0, 0), 4000, 0), expected, rtol=1e-6)
