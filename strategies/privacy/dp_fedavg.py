"""DP-FedAvg: each client's update is clipped, and the sum of all gets Gaussian noise. User-level central privacy.

McMahan, Ramage, Talwar, Zhang: "Learning Differentially Private Recurrent Language Models", 2018, algorithm 1 with the
estimator of a fixed denominator: with clipping norm S, noise multiplier z and n clients expected in a round,

    release = (sum of clipped updates + N(0, (z S)^2)) / n.

Every client counts the same, and nothing of the release depends on who came: neither the noise nor the denominator, and
not even whether there is one. A round in which every client has failed, or in which Poisson selection drew none,
releases noise alone, for a skipped round would say that nobody took part. (Where nobody at all could be drawn, nothing
was asked of anybody, and the round is skipped.) So the key 'min-replies' has no say. Rounds without a single good
update count towards 'max-skipped-rounds' all the same, unless chance drew nobody: a federation in which nobody can
train should say so. That its end is to be seen is no part of the guarantee.

With `noise_cohort_size` a simulation with few clients has the noise on the mean that a cohort of N would have, at the
same sampling rate: z S / N, as in pfl-research (Granqvist et al., "pfl-research: simulation framework for accelerating
research in Private Federated Learning", 2024, "noise cohort size"). What is accounted holds for that larger federation;
the clients of the simulation have n / N of the noise that they would need, so that no real ones are taken.

What differs from the paper: the same n for cohorts of a fixed size, drawn without replacement, whose accounting is
another; all clients count the same, where the paper lets examples count up to a bound.

The sum is rounded in fixed point, each number of an update by 2^-33 at most, so that one client may move it by up to
S + 2^-33 sqrt(size): that is the norm which the noise is measured by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from strategies.aggregators import NOTHING, Fold, LinearFold
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.guarantees import Guarantees, Property
from strategies.layout import ModelLayout
from strategies.options import Options, flag, integer, number
from strategies.privacy.accounting import Release
from strategies.privacy.clipping import Clipping
from strategies.privacy.noise import noised_mean
from strategies.privacy.spending import simulated_cohort
from strategies.samplers import KnownSampler, Sampler
from strategies.updates import FloatVector, State, Update

ROUNDING = 2.0**-33  # of a number in `FixedPointSum`, at most

GUARANTEES = Guarantees(
    gives=frozenset({Property.BOUNDED_UPDATES, Property.NODE_SUMS, Property.NOTHING_ELSE}),
    needs=frozenset(
        {
            *(Property.LINEAR, Property.EQUAL_WEIGHTS, Property.NOTHING_ELSE),
            *(Property.KNOWN_SAMPLING, Property.INDEPENDENT_SAMPLING),
        }
    ),
)
"""Nodes may add up what they have clipped, see `strategies.privacy.clipping`."""


@dataclass(frozen=True)
class ClippedSum:
    """The sum of clipped updates with noise on it: what DP-FedAvg with and without adaptive clipping share.

    ``expected_clients`` (n) is how many take part in a round on average: what the sampler is set to as well. With a
    noise multiplier of 0 updates are clipped and there is no privacy. With a ``noise_cohort_size`` (N) above 0 the
    noise on the mean is that of N clients.
    """

    expected_clients: int
    noise_multiplier: float = 0.5
    clipping_norm: float = 1.0
    noise_cohort_size: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        """Raise StrategyError where there is no such mechanism."""
        if self.expected_clients < 1:
            raise StrategyError(
                f"The key 'clients-per-round' is {self.expected_clients}, but differential privacy divides by the "
                "number of clients that are expected in a round: set it to 1 or more."
            )
        if not 0 <= self.noise_multiplier < math.inf:
            raise StrategyError(
                f"The key 'noise-multiplier' is {self.noise_multiplier}, but must be 0 (no privacy) or more."
            )
        if not 0 < self.clipping_norm < math.inf:
            raise StrategyError(
                f"The key 'clipping-norm' is {self.clipping_norm}, but must be a finite number above 0."
            )
        if self.noise_cohort_size < 0 or 0 < self.noise_cohort_size <= self.expected_clients:
            raise StrategyError(
                f"The key 'noise-cohort-size' is {self.noise_cohort_size}, but must be 0 (off) or more than "
                f"'clients-per-round', {self.expected_clients}: it is the larger cohort whose noise is simulated."
            )

    @property
    def guarantees(self) -> Guarantees:
        """Bounded updates; a sum in which all count the same, of a known sample, and nothing learnt beside it."""
        return GUARANTEES

    @property
    def caveat(self) -> str:
        """Whether there is less noise than this run's own clients need."""
        return simulated_cohort(self.noise_cohort_size)

    @property
    def accounted_clients(self) -> int:
        """How many clients are expected in the rounds that are accounted: N, or n where it is 0."""
        return self.noise_cohort_size or self.expected_clients

    @property
    def scale(self) -> float:
        """N / n: as many times less noise than they need is put on the sums of n clients."""
        return self.accounted_clients / self.expected_clients

    @property
    def unconditional(self) -> bool:
        """Whether there is a release says nothing of who took part."""
        return True

    def release(self, round: int, sampler: Sampler, clients: int) -> Release | None:
        """Return what a sample of so many clients lets out; where nobody can be drawn, nothing is."""
        if not isinstance(sampler, KnownSampler):  # which the guarantees have refused already
            raise StrategyError(f"Nobody knows with which probability {type(sampler).__name__} draws a client.")
        return Release(sampler.sampling, sampler.rate(clients), self.noise_multiplier) if clients else None

    def clip(self, update: Update, config: Mapping[str, float], layout: ModelLayout) -> Update:
        """Shorten an update that is too long, and say whether it was, where that is counted."""
        return Clipping.from_config(config).clip(update, layout)

    def released(
        self, fold: Fold, clipping_norm: float, noise_multiplier: float, noise: np.random.Generator
    ) -> FloatVector:
        """Return (sum + N(0, (z S n / N)^2)) / n, float32 [size], of a round with this S and z."""
        total = total_of(fold)
        deviation = noise_multiplier * sensitivity(clipping_norm, total.size) / self.scale
        return noised_mean(total, deviation, self.expected_clients, noise)

    def told(self, state: State) -> dict[str, float]:
        """Return the norm, z, and the noise on the mean."""
        return self.noise_told(self.clipping_norm, self.noise_multiplier)

    def noise_told(self, clipping_norm: float, noise_multiplier: float) -> dict[str, float]:
        """Return what a record tells of a round with this S and z, the latter that of the sum of updates."""
        return {
            "clipping-norm": clipping_norm,
            "noise-multiplier": self.noise_multiplier,
            "noise-deviation": noise_multiplier * clipping_norm / self.accounted_clients,
        }


@dataclass(frozen=True)
class DPFedAvg(ClippedSum):
    """Clipping to ``clipping_norm`` (S), noise of ``noise_multiplier`` (z) times that on the sum."""

    per_layer: bool = False

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read 'clients-per-round', 'noise-multiplier', 'clipping-norm', 'noise-cohort-size', 'per-layer-clipping'."""
        cohort = integer(options, "noise-cohort-size", 0)
        return cls(*common(options), flag(options, "per-layer-clipping", False), noise_cohort_size=cohort)

    def init(self, size: int) -> State:
        """Return no state."""
        return NOTHING

    def config(self, state: State) -> dict[str, float]:
        """Return the norm, and how to clip to it."""
        return Clipping(self.clipping_norm, self.per_layer).to_config()

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        """Return the noised sum, divided by the expected number of clients."""
        return self.released(fold, self.clipping_norm, self.noise_multiplier, noise), state


def total_of(fold: Fold) -> FixedPointSum:
    """Return the exact sum that noise is put on."""
    if not isinstance(fold, LinearFold):  # which the guarantees have refused already
        raise StrategyError("Noise for privacy belongs on a sum, but this aggregator has none.")
    return fold.total


def sensitivity(clipping_norm: float, size: int) -> float:
    """Return by how much one client can move the sum of updates of this length."""
    return clipping_norm + ROUNDING * math.sqrt(size)


def common(options: Options) -> tuple[int, float, float]:
    """Read the keys of the first three fields of `ClippedSum`, in their order."""
    return (
        integer(options, "clients-per-round", 0),
        number(options, "noise-multiplier", 0.5),
        number(options, "clipping-norm", 1.0),
    )
