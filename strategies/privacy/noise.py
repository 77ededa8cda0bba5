"""Where noise comes from, and how it is put on an exact sum.

What a deployment releases gets noise from the operating system's entropy: who knows the run's seed, as every node does,
must not be able to take the noise off again. A simulation protects nobody, and its noise is derived from the seed, so
that a run can be repeated.

Noise is drawn in float64 and added to the sum in float64, in blocks of bounded memory, and the result rounded to
float32 only then. (`GaussianSumQuery` of TensorFlow Privacy draws float32 from a generator of its own, which could be
neither repeated nor added to a sum in fixed point; the tests compare with it.) What float64 leaves open: the last bits
of a noised number may tell something of what is below the noise (Mironov, "On Significance of the Least Significant
Bits for Differential Privacy", 2012). The sum itself is a whole multiple of 2^-32 and only float32 of the result gets
out, which narrows that way but does not close it. And the generator, seeded with 128 bits of the system's entropy,
is NumPy's, which is not made to withstand cryptanalysis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from strategies.fixed_point import FixedPointSum, FloatVector
from strategies.seeding import generator

PURPOSE = "privacy-noise"

NoiseSource = Callable[[int], np.random.Generator]
"""Returns the generator of the noise of a round."""


def system_noise(round: int) -> np.random.Generator:
    """Return a generator that nobody can foresee or repeat."""
    return np.random.default_rng()  # of fresh entropy from the operating system


def derived_noise(seed: int) -> NoiseSource:
    """Return what derives the noise from the run's seed, for simulations."""
    return lambda round: generator(seed, round, "", PURPOSE)


def noised_mean(total: FixedPointSum, deviation: float, divisor: float, noise: np.random.Generator) -> FloatVector:
    """Return (sum + N(0, deviation^2)) / divisor, float32 [size]."""
    mean = np.empty(total.size, dtype=np.float32)
    for block, values in total.blocks():
        noised = np.add(values, deviation * noise.standard_normal(values.size), out=values)
        mean[block] = np.divide(noised, divisor, out=values)
    return mean


def mean_with(total: FixedPointSum, vector: npt.NDArray[np.float64], deviation: float, divisor: float) -> FloatVector:
    """Return (sum + deviation * vector) / divisor, float32 [size], with noise that is there already."""
    mean = np.empty(total.size, dtype=np.float32)
    for block, values in total.blocks():
        noised = np.add(values, deviation * vector[block], out=values)
        mean[block] = np.divide(noised, divisor, out=values)
    return mean
