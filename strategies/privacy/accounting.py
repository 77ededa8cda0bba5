"""What the releases of a run cost in privacy: epsilon at a given delta, by two accountants, of which the tighter holds.

- RDP, Renyi differential privacy: Mironov, "Renyi Differential Privacy", 2017; under Poisson sampling Mironov, Talwar,
  Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism", 2019; under sampling without replacement Wang,
  Balle, Kasiviswanathan, "Subsampled Renyi Differential Privacy and Analytical Moments Accountant", 2019, theorem 27.
  Costs are vectors over the orders that add up, so that it can keep pace with a run.
- PLD, privacy loss distributions: Koskela, Jälkö, Honkela, "Computing Tight Differential Privacy Guarantees Using
  FFT", 2020; Doroshenko et al., "Connect the Dots", 2022. Tighter, but slow for little noise. It does not know
  sampling without replacement.

Both are dp-accounting's. The noise multiplier z is the noise's standard deviation over the *clipping norm* S, for all
ways of sampling. One client more or less moves a sum of clipped updates by S; one client replaced by another moves it
by 2 S. dp-accounting's RDP of sampling without replacement wants the deviation over that, z / 2: with z instead it
would claim 5.24 where a worst case attains 14 (tests/strategies/privacy/test_accounting.py computes it).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from strategies.errors import StrategyError

Sampling = Literal["poisson", "fixed", "none", "local", "cyclic"]
"""Each client by itself with one probability; so many of them, without replacement; all of them in every round; each
client releases its own update, with noise of its own, and who takes part is seen; or each once in a pass of rounds, all
of which is one release."""

Adjacency = Literal["add or remove one", "replace one"]

Renyi = npt.NDArray[np.float64]
"""Renyi divergences at `ORDERS`, float64 [orders]: what releases cost, which adds up."""

Accountant = Literal["RDP", "PLD"]

SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)
UNSAMPLED, REPLACED = ("none", "local", "cyclic"), ("fixed", "local")
ADJACENCIES: tuple[Adjacency, ...] = get_args(Adjacency)
ACCOUNTANTS: tuple[Accountant, ...] = get_args(Accountant)
ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *range(11, 64), 128, 256, 512, 1024)
"""dp-accounting's own; written down here, for checkpoints hold vectors over them."""

PLD_EPSILON, PLD_NOISE = 50.0, 0.3  # beyond these PLD takes minutes, and there is no privacy worth the name
PLD_RELEASES = 8  # different ones, which take a tenth of a second each
FINEST, COARSEST, STEPS = 1e-4, 1e-3, 30  # of the grid of PLD; a deviation of a release's privacy loss has so many


@dataclass(frozen=True)
class Release:
    """What one round, or one pass, lets out: a Gaussian mechanism on a sample of the clients.

    ``rate`` is the probability with which a client takes part, ``noise_multiplier`` z. With adaptive clipping z is that
    of the sum of updates and the count of clipped ones together. Raises StrategyError where there is no such mechanism.
    """

    sampling: Sampling
    rate: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise StrategyError(f"The sampling is '{self.sampling}', but must be one of {', '.join(SAMPLINGS)}.")
        if not 0 <= self.rate <= 1:
            raise StrategyError(
                f"The sampling rate is {self.rate:g}, but a client takes part with a probability from 0 to 1: "
                "'clients-per-round' must not be more than there are clients."
            )
        if self.sampling in UNSAMPLED and self.rate != 1:
            raise StrategyError(f"The sampling rate is {self.rate:g}, but without sampling every client takes part: 1.")
        if not 0 <= self.noise_multiplier < math.inf:
            raise StrategyError(
                f"The key 'noise-multiplier' is {self.noise_multiplier}, but must be 0 (no privacy) or more."
            )

    @property
    def adjacency(self) -> Adjacency:
        """Which two populations are hard to tell apart.

        With a cohort of fixed size, only those of the same size; of a single client's release, any two data sets of it.
        """
        return "replace one" if self.sampling in REPLACED else "add or remove one"

    @property
    def noise_over_change(self) -> float:
        """The noise's standard deviation over what one client can change: by 2 S where it is replaced."""
        return self.noise_multiplier / 2 if self.sampling in REPLACED else self.noise_multiplier

    @property
    def event(self) -> Any:
        """The same as a `dp_accounting.DpEvent`."""
        import dp_accounting as dp

        gaussian = dp.GaussianDpEvent(self.noise_over_change)
        if self.sampling == "poisson":
            return dp.PoissonSampledDpEvent(self.rate, gaussian)
        if self.sampling == "fixed":  # of the sizes only the ratio counts
            return dp.SampledWithoutReplacementDpEvent(1, self.rate, gaussian)
        return gaussian


@dataclass(frozen=True)
class Epsilons:
    """What the accountants say of the same releases; ``pld`` is None where that one was not asked."""

    rdp: float
    pld: float | None

    @property
    def tightest(self) -> float:
        """The smaller one: both are upper bounds."""
        return self.rdp if self.pld is None else min(self.rdp, self.pld)

    @property
    def accountant(self) -> Accountant:
        """Whose figure that is."""
        return "RDP" if self.pld is None or self.rdp <= self.pld else "PLD"


def epsilons(releases: Mapping[Release, int], delta: float) -> Epsilons:
    """Return the epsilon of so many of each of these releases together."""
    adjacency_of(releases)
    rdp = rdp_epsilon(total(releases), delta)
    return Epsilons(rdp, pld_epsilon(releases, delta) if known_to_pld(releases, rdp) else None)


def adjacency_of(releases: Mapping[Release, int]) -> Adjacency | None:
    """Return which populations are hard to tell apart, None without releases; StrategyError where they disagree."""
    found = sorted({release.adjacency for release in releases})
    if len(found) > 1:
        raise StrategyError(
            "Cohorts of a fixed size and others protect from different things (one client replaced, one client more or "
            "less) and cannot be accounted together: leave 'selection' as it is for the whole run."
        )
    return found[0] if found else None


def total(releases: Mapping[Release, int]) -> Renyi:
    """Return the cost of so many of each of these releases."""
    return sum((count * renyi(release) for release, count in releases.items() if count > 0), start=nothing())


def nothing() -> Renyi:
    """Return the cost of no release."""
    return np.zeros(len(ORDERS))


@lru_cache(maxsize=4096)
def renyi(release: Release) -> Renyi:
    """Return what a release costs; read-only. Takes up to half a second, the second time none."""
    from dp_accounting.rdp import RdpAccountant

    cost = nothing()
    if release.rate > 0 and release.noise_multiplier == 0:
        cost += np.inf
    elif release.rate > 0:
        with quiet_accountant():
            cost = RdpAccountant(ORDERS, neighbours(release.adjacency)).compose(release.event).rdp
    cost.flags.writeable = False
    return cost


def rdp_epsilon(cost: Renyi, delta: float) -> float:
    """Return the epsilon at ``delta`` of what costs so much; infinity where there is no privacy."""
    from dp_accounting.rdp import compute_epsilon

    if not 0 < delta < 1:
        raise StrategyError(f"The key 'budget-delta' is {delta}, but must lie between 0 and 1.")
    return float(compute_epsilon(np.array(ORDERS), cost, delta)[0]) if np.isfinite(cost).any() else math.inf


def known_to_pld(releases: Mapping[Release, int], rdp: float) -> bool:
    """Say whether PLD has an answer, and in good time; ``rdp`` is the other accountant's."""
    return (
        0 < rdp <= PLD_EPSILON
        and len(releases) <= PLD_RELEASES
        and all(release.sampling != "fixed" and release.noise_over_change >= PLD_NOISE for release in releases)
    )


def pld_epsilon(releases: Mapping[Release, int], delta: float) -> float:
    """Return the epsilon of so many of each of these releases by PLD.

    Takes hundredths of a second for each different release, tenths for one that is met for the first time.
    """
    return _pld_epsilon(tuple(sorted(releases.items(), key=repr)), delta)


@lru_cache(maxsize=64)
def _pld_epsilon(releases: tuple[tuple[Release, int], ...], delta: float) -> float:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism, identity

    released = [(release, count) for release, count in releases if release.rate > 0 and count > 0]
    grid = min((_grid(release) for release, _ in released), default=FINEST)
    whole = identity(value_discretization_interval=grid)
    for release, count in released:
        if release.sampling in UNSAMPLED:  # together they are one Gaussian mechanism of less noise
            noise = release.noise_over_change / math.sqrt(count)
            whole = whole.compose(from_gaussian_mechanism(noise, value_discretization_interval=grid))
        else:
            whole = whole.compose(_privacy_loss(release, grid).self_compose(count))
    return float(whole.get_epsilon_for_delta(delta))


def _grid(release: Release) -> float:
    """Return the interval of the grid that a release's privacy losses are rounded up to.

    Beside losses that vary by q sqrt(exp(1 / z^2) - 1), a thirtieth of that is little: epsilon grows by a ten
    thousandth or less, and is found ten times faster than on dp-accounting's own grid, the finest here.
    """
    deviation = release.rate * math.sqrt(math.expm1(min(50.0, release.noise_over_change**-2)))
    return min(COARSEST, max(FINEST, deviation / STEPS))


@lru_cache(maxsize=PLD_RELEASES)
def _privacy_loss(release: Release, grid: float) -> Any:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(
        release.noise_multiplier, value_discretization_interval=grid, sampling_prob=release.rate
    )


def neighbours(adjacency: Adjacency) -> Any:
    """Return dp-accounting's name for an adjacency."""
    from dp_accounting import NeighboringRelation

    return NeighboringRelation.REPLACE_ONE if adjacency == "replace one" else NeighboringRelation.ADD_OR_REMOVE_ONE


@contextmanager
def quiet_accountant() -> Iterator[None]:
    """Keep dp-accounting from listing the orders it leaves out: it takes infinity there, and other orders serve."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
