"""A run's privacy before it starts: epsilon of a plan, the noise that a budget asks for, and what that protects."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from strategies.errors import StrategyError
from strategies.privacy.accounting import (
    PLD_EPSILON,
    PLD_NOISE,
    UNSAMPLED,
    Adjacency,
    Epsilons,
    Release,
    Sampling,
    epsilons,
    neighbours,
    pld_epsilon,
    quiet_accountant,
)
from strategies.privacy.spending import meaning, simulated_cohort, warnings, with_caveat

LEAST_NOISE = 0.05
TOLERANCE = 1e-5  # of a noise multiplier
STEP = 0.85  # PLD mostly needs 5 to 15 % less noise than RDP, and with little it is slow


@dataclass(frozen=True)
class Plan:
    """So many rounds, each a release of DP-FedAvg, or ``pass_rounds`` of them together one of DP-FTRL.

    ``clients_per_round`` is the cohort's size or, with Poisson or cyclic selection, its mean; 0 = all. In a release one
    client can move what gets noise by ``sensitivity`` clipping norms. ``noise_cohort_size`` is that of a larger cohort
    whose noise is simulated, 0 = of none. Raises StrategyError where there is no such mechanism, or no such delta.
    """

    population: int
    clients_per_round: int
    sampling: Sampling
    rounds: int
    noise_multiplier: float
    delta: float
    adaptive: bool = False
    pass_rounds: int = 1
    sensitivity: float = 1.0
    noise_cohort_size: int = 0

    def __post_init__(self) -> None:
        if self.population < 1 or self.rounds < 1:
            raise StrategyError(
                f"The plan has {self.population} clients and {self.rounds} rounds, but needs one of each at least."
            )
        if not 0 < self.delta < 1:
            raise StrategyError(f"The key 'budget-delta' is {self.delta}, but must lie between 0 and 1.")
        if self.cohort > self.population:
            raise StrategyError(
                f"The key 'clients-per-round' is {self.cohort}, but there are only {self.population} clients: the "
                f"sampling rate would be above 1. Set it to at most {self.population}."
            )
        if self.adaptive and self.noise_multiplier > 0:
            from strategies.privacy.adaptive import AdaptiveDPFedAvg

            # which knows where its split of the noise ends
            AdaptiveDPFedAvg(self.cohort, self.noise_multiplier, noise_cohort_size=self.noise_cohort_size)
        _ = self.release  # which refuses the rest that cannot be

    @property
    def cohort(self) -> int:
        """How many clients take part in a round, on average."""
        return self.population if self.sampling in ("none", "local") else self.clients_per_round or self.population

    @property
    def release(self) -> Release:
        """What each round, or each pass, releases."""
        rate = 1.0 if self.sampling in UNSAMPLED else self.cohort / self.population
        return Release(self.sampling, rate, self.noise_multiplier / self.sensitivity)

    @property
    def adjacency(self) -> Adjacency:
        """Which two populations are hard to tell apart."""
        return self.release.adjacency

    def releases(self, rounds: int) -> int:
        """Return how many releases the first so many rounds begin."""
        return math.ceil(rounds / self.pass_rounds)

    def after(self, rounds: int) -> Epsilons:
        """Return the epsilon of the first so many rounds."""
        return epsilons({self.release: self.releases(rounds)}, self.delta)

    def rounds_within(self, epsilon: float) -> int:
        """Return how many of the rounds the tighter accountant allows."""
        return bisect_right(range(1, self.rounds + 1), epsilon, key=lambda rounds: self.after(rounds).tightest)

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each reason not to call this privacy."""
        scale = self.noise_cohort_size / self.cohort if self.noise_cohort_size else 1.0
        yield from warnings(self.noise_multiplier, self.delta, round(self.population * scale))

    def meaning(self, epsilon: float) -> str:
        """Say in one sentence what the guarantee covers."""
        releases, rate = self.releases(self.rounds), f"{self.release.rate:.4g}"
        covered = meaning(epsilon, self.delta, self.sampling, self.adjacency, releases, rate)
        return with_caveat(covered, self.caveat) if math.isfinite(epsilon) else covered

    @property
    def caveat(self) -> str:
        """Why the run of this plan is not private, whatever its noise; "" where it is."""
        return simulated_cohort(self.noise_cohort_size)


def with_least_noise(plan: Plan, epsilon: float) -> Plan:
    """Return the plan with the smallest noise multiplier that keeps to ``epsilon``, by the tighter accountant.

    It lies at most `TOLERANCE` above the smallest, and never below `LEAST_NOISE`, or `PLD_NOISE` by PLD. Raises
    StrategyError where adaptive clipping does not allow as much noise, or where no noise is enough.
    """
    if not 0 < epsilon <= PLD_EPSILON:
        raise StrategyError(
            f"The epsilon to keep to is {epsilon:g}, but must be above 0 and at most {PLD_EPSILON:g}; above 10 it says "
            "little already."
        )
    if _with_noise(plan, LEAST_NOISE).after(plan.rounds).rdp <= epsilon:
        return replace(plan, noise_multiplier=LEAST_NOISE)
    noise = _calibrated_by_rdp(plan, epsilon)
    found = _with_noise(plan, noise).after(plan.rounds)
    if found.pld is not None and found.pld < epsilon:
        least = noise
        while _with_noise(plan, least).after(plan.rounds).tightest <= epsilon:
            if least == PLD_NOISE:
                return replace(plan, noise_multiplier=least)
            least = max(PLD_NOISE, STEP * least)
        noise = _calibrated_by_pld(plan, epsilon, least, noise)
    return replace(plan, noise_multiplier=noise)


def _with_noise(plan: Plan, noise_multiplier: float) -> Plan:
    """Return the plan with other noise, however much of it adaptive clipping allows."""
    return replace(plan, noise_multiplier=noise_multiplier, adaptive=False)


def _calibrated_by_rdp(plan: Plan, epsilon: float) -> float:
    import dp_accounting as dp

    releases = plan.releases(plan.rounds)

    def event(noise_multiplier: float) -> Any:
        return dp.SelfComposedDpEvent(_with_noise(plan, noise_multiplier).release.event, releases)

    def fresh() -> Any:
        return dp.rdp.RdpAccountant(neighboring_relation=neighbours(plan.adjacency))

    interval = dp.LowerEndpointAndGuess(LEAST_NOISE, 1.0)
    with quiet_accountant():
        return float(dp.calibrate_dp_mechanism(fresh, event, epsilon, plan.delta, interval, tol=TOLERANCE))


def _calibrated_by_pld(plan: Plan, epsilon: float, least: float, enough: float) -> float:
    """Search between two noise multipliers, by the same figures that a run is accounted with."""
    from scipy.optimize import brentq  # half a second of each process of a node, which has no need of it

    def excess(noise_multiplier: float) -> float:
        release = _with_noise(plan, noise_multiplier).release
        return pld_epsilon({release: plan.releases(plan.rounds)}, plan.delta) - epsilon

    noise = float(brentq(excess, least, enough, xtol=TOLERANCE / 2))
    while excess(noise) > 0:
        noise += TOLERANCE / 2
    return noise
