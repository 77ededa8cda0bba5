"""Rotation against SciPy's Hadamard matrix: orthonormal, its own way back, and what it does to quantizers."""

import numpy as np
import pytest
from scipy.linalg import hadamard

from strategies.compression.pieces import PIECE, RandomBits
from strategies.compression.quantizer import Float32
from strategies.compression.rotation import BLOCK, PURPOSE, SEED_LENGTH, Rotated
from strategies.compression.sign import Sign
from strategies.compression.uniform import Uniform


def through(quantizer: Rotated, values: np.ndarray, seed: int = 0) -> np.ndarray:
    data = quantizer.write(values, seed)
    assert len(data) == quantizer.length(len(values))
    out = np.full(len(values), np.nan, np.float32)
    quantizer.read(data, out)
    return out


def rotated(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, int]:
    """What reaches the quantizer, and the rotation's own seed."""
    data = Rotated(Float32()).write(values, seed)
    return data[SEED_LENGTH:].copy().view(np.float32), int(data[:SEED_LENGTH].copy().view(np.uint64)[0])


@pytest.mark.parametrize(("size", "blocks"), [(1, [1]), (2, [2]), (44, [32, 8, 4]), (4113, [4096, 16, 1])])
def test_signs_then_the_matrix_of_hadamard_in_blocks(size: int, blocks: list[int]) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    found, own = rotated(values)
    signed = np.where(RandomBits(own, PURPOSE).signs(size), -values, values)
    start = 0
    for block in blocks:
        place = slice(start, start + block)
        expected = hadamard(block, dtype=np.float32) @ signed[place] / np.sqrt(block)
        np.testing.assert_allclose(found[place], expected, atol=2e-5)
        start = place.stop


@pytest.mark.parametrize("size", [1, 3, 1000, BLOCK, PIECE + BLOCK + 77])
def test_the_way_back_and_the_length_of_the_vector(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    before = values.copy()
    np.testing.assert_allclose(through(Rotated(Float32()), values), values, atol=1e-5)
    assert np.linalg.norm(rotated(values)[0]) == pytest.approx(np.linalg.norm(values), rel=1e-5)
    assert values.tobytes() == before.tobytes()


def test_one_value_is_spread_over_its_block() -> None:
    found, _ = rotated(np.eye(1, BLOCK, 5, dtype=np.float32)[0])
    assert set(np.abs(found).tolist()) == {1 / 64}


def test_seeds_rotate_differently() -> None:
    values = np.ones(64, np.float32)
    (one, first), (again, same), (other, second) = rotated(values, 1), rotated(values, 1), rotated(values, 2)
    assert first == same != second
    assert one.tobytes() == again.tobytes() != other.tobytes()


def test_a_rotated_stochastic_quantizer_is_unbiased() -> None:
    """1000 draws, each with its own rotation: means within 5 standard errors, which fails once in 40,000 seeds."""
    values = np.random.default_rng(0).normal(size=44).astype(np.float32)
    found = np.array([through(Rotated(Uniform(1)), values, seed) for seed in range(1000)], np.float64)
    assert (np.abs(found.mean(axis=0) - values) < 5 * found.std(axis=0) / np.sqrt(1000)).all()


def test_rotation_helps_where_few_values_stand_out() -> None:
    """One value of 30 in a block of 512 normal ones makes the levels 4.3 wide; spread, it makes them about 0.8."""
    values = np.random.default_rng(0).normal(size=BLOCK).astype(np.float32)
    values[::512] = 30
    plain, out = Uniform(4), np.empty(BLOCK, np.float32)
    plain.read(plain.write(values, 0), out)
    assert np.linalg.norm(through(Rotated(plain), values) - values) < 0.3 * np.linalg.norm(out - values)


@pytest.mark.parametrize("kind", ["normal", "one", "heavy"])
def test_drive_leaves_one_minus_two_over_pi_of_any_update(kind: str) -> None:
    """Vargaftik et al. 2021: the error of normal values, whatever the update; one value alone comes through exactly."""
    rng = np.random.default_rng(0)
    values = {"normal": rng.normal(size=BLOCK), "heavy": rng.standard_t(3, size=BLOCK), "one": np.eye(1, BLOCK, 5)[0]}
    values_of = values[kind].astype(np.float32)
    lost = np.square(through(Rotated(Sign()), values_of) - values_of).sum() / np.square(values_of).sum()
    assert lost == pytest.approx(0 if kind == "one" else 1 - 2 / np.pi, abs=0.02)


def test_it_is_what_its_quantizer_is() -> None:
    assert Rotated(Uniform(3)).unbiased
    assert not Rotated(Sign()).unbiased
    assert Rotated(Sign()).wire_id == 0x83
    assert Rotated(Uniform(3)).bits == 3
