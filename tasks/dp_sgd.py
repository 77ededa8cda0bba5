"""Example-level differential privacy of a client's training: its settings, and its batches with their noise.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang: "Deep Learning with Differential Privacy" (2016), algorithm 1.
In each step every example is in the batch with probability q = batch size / examples, independently of all others and
of the steps before: what `dp_accounting`'s Poisson-sampled Gaussian events are about. An example's gradient is clipped
to an L2 norm, the gradients are added up, Gaussian noise goes on the sum, and the result is divided by the *expected*
batch size, which says nothing about who was drawn. A step that draws nobody releases noise all the same. Clients with
no more examples than a batch holds train on all of them in every step, and no sampling protects them.

Adjacency is add/remove one: data sets that differ in one example of one client; how many examples it has counts as
public. What is protected are the weights. The training loss, the accuracy and the numbers of examples that a client
reports beside them are not.

What differs from TensorFlow Privacy: microbatches. An example that joins one moves its clipped gradient from one vector
of norm at most C to another, so by up to 2 C, and the noise here is made for that; there it is made for C.

The noise is NumPy's ziggurat normal over PCG64, in float32 as the gradients are: exact enough for any statistic, but
with the caveat of Mironov, "On Significance of the Least Significant Bits for Differential Privacy" (2012): the last
bits of floating-point noise can tell more than real numbers would. Batches and noise are as secret as the seed is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tasks.batches import NARROWEST, batch_width
from tasks.data import Examples
from tasks.errors import TaskError

_BATCHES, _NOISE, _PARTS = 2, 3, 4  # purposes of a seed; 1 is that of the model's own generators


@dataclass(frozen=True)
class DpSgd:
    """Clip each example's gradient to the L2 norm ``clip``; noise of ``noise_multiplier`` times the sensitivity.

    With ``microbatches`` above 0 a batch is dealt at random to so many, and their mean gradients are clipped instead of
    single examples': cheaper to hold where a model is large, but twice as much noise is needed for the same guarantee.
    """

    clip: float
    noise_multiplier: float
    microbatches: int = 0

    def __post_init__(self) -> None:
        for key, value, allowed in (
            ("dp-sgd-clip", self.clip, 0 < self.clip < math.inf),
            ("dp-sgd-noise-multiplier", self.noise_multiplier, 0 <= self.noise_multiplier < math.inf),
        ):
            if not allowed:
                least = "above" if key == "dp-sgd-clip" else "at least"
                raise TaskError(f"{key}={value} is not allowed: it must be {least} 0, and finite.")
        if self.microbatches < 0:
            raise TaskError(f"dp-sgd-microbatches={self.microbatches} is too small: it must be at least 0.")

    @property
    def sensitivity(self) -> float:
        """By how much one example can change the sum of clipped gradients, in L2 norm."""
        return 2 * self.clip if self.microbatches else self.clip

    @property
    def noise(self) -> float:
        """Standard deviation of the noise on each number of the sum."""
        return self.noise_multiplier * self.sensitivity


@dataclass(frozen=True)
class NoisyBuffers:
    """Room for some steps: ``x`` float32 [steps, rows, *input_shape], ``y`` int32 [steps, rows], and ``noise``.

    Rows whose label is -1 are no examples; they hold the client's first one. ``noise`` float32 [steps, numbers] is
    standard normal. ``averaged`` float32 [2] says what a part's summed gradient is multiplied by before it is clipped,
    and what the noisy sum is divided by; a part is an example or a microbatch.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int32]
    noise: npt.NDArray[np.float32]
    averaged: npt.NDArray[np.float32]


class PoissonBatches:
    """Batches into which each example comes by a coin toss of its own in every step, beside each step's noise.

    The rows of microbatches take turns: first one of each, then another of each, so that a step needs no more turns
    than its largest one has examples. ``rows`` says how many rows the steps need at most; it is the same for many
    draws, so that few widths have to be compiled.
    """

    def __init__(self, examples: Examples, batch_size: int, steps: int, seed: int, dp_sgd: DpSgd) -> None:
        self._examples, self._noise = examples, np.random.default_rng((seed, _NOISE))
        self._left, self._next, self.seen = steps, 0, 0
        expected, microbatches = min(batch_size, len(examples)), dp_sgd.microbatches
        self._averaged = (microbatches / expected, float(microbatches)) if microbatches else (1.0, float(expected))
        self._draws = _draws(len(examples), expected / len(examples), steps, microbatches, seed)
        self._parts = max(1, microbatches)
        most = max(int(np.bincount(parts, minlength=1).max()) for _, parts in self._draws)
        if not microbatches and len(examples) <= batch_size:
            self.rows = batch_width(len(examples), batch_size)
        else:
            self.rows = self._parts * _padded(most, math.ceil(expected / self._parts))

    def fill(self, into: NoisyBuffers) -> int:
        """Put the next batches and their noise there; return how many they are: as many as fit, or as are left."""
        steps, rows = min(len(self._draws) - self._next, len(into.y)), into.y.shape[1]
        for step in range(steps):
            chosen, parts = self._draws[self._next + step]
            slots = _slots(parts, self._parts)
            indices = np.zeros(rows, np.intp)
            indices[slots] = chosen
            np.take(self._examples.x, indices, axis=0, out=into.x[step], mode="clip")  # "raise" would copy once more
            into.y[step] = -1
            into.y[step, slots] = self._examples.y[chosen]
            self.seen += len(chosen)
        into.averaged[...] = self._averaged
        self._noise.standard_normal(out=into.noise[:steps], dtype=np.float32)
        self._next += steps
        return steps


def _draws(
    num_examples: int, probability: float, steps: int, microbatches: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw who is in each step's batch, and in which microbatch of it, counting from 0; without any, all in one."""
    generator, dealer = (np.random.default_rng((seed, purpose)) for purpose in (_BATCHES, _PARTS))
    draws = []
    for _ in range(steps):
        chosen = np.flatnonzero(generator.random(num_examples) < probability)
        parts = dealer.integers(max(1, microbatches), size=len(chosen))
        draws.append((chosen, parts))
    return draws


def _slots(parts: np.ndarray, count: int) -> np.ndarray:
    """Return each example's row: the next of those that belong to its part, which is one in so many."""
    order = np.argsort(parts, kind="stable")
    of_part = parts[order]
    slots = np.empty(len(parts), np.intp)
    slots[order] = of_part + count * (np.arange(len(parts)) - np.searchsorted(of_part, of_part))
    return slots


def _padded(most: int, expected: int) -> int:
    """Return a number of rows that holds ``most``, one of few: the expected number, and from there on in quarters."""
    step = max(NARROWEST, math.ceil(expected / 4)) if expected >= NARROWEST else max(1, NARROWEST // 4)
    return expected + step * max(0, math.ceil((most - expected) / step))
