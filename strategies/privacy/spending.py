"""What a run tells of its privacy, round by round: what was spent so far, by the ledger, and the noise of the round.

The told epsilon is the one that the budget stops by: the tighter of two accountants, see `accounting`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, cast

from strategies.privacy.accounting import ACCOUNTANTS, ADJACENCIES, SAMPLINGS, Accountant, Adjacency, Sampling
from strategies.privacy.ledger import Ledger
from strategies.updates import State

if TYPE_CHECKING:
    from strategies.privacy.budget import Budget

NO_PRIVACY = "has no privacy"  # of a run, as other caveats
OF_MEAN, OF_UPDATE = "noise-deviation", "update-noise-deviation"
"""What mechanisms tell of their noise, its standard deviation: on each number of the mean, or of a single update."""

CENTRAL = (
    "User-level differential privacy, epsilon {epsilon:.4g} and delta {delta:g}, {adjacency}: the models of all "
    "{releases} together hardly tell {whom}; this {assumed}, trusts the server, and covers the models alone, not "
    "what clients report beside them."
)
LOCAL = (
    "User-level local differential privacy, epsilon {epsilon:.4g} and delta {delta:g}, {adjacency}: what a client "
    "sends in all of at most {releases} hardly tells whether it holds its own data or any other; this {assumed}, "
    "trusts the client, and whoever starts the run to ask for that noise, and covers its updates alone, not what it "
    "reports beside them."
)
WHOM: dict[Adjacency, str] = {
    "add or remove one": "whether any one client took part at all, with all its data",
    "replace one": "whether any one client, with all its data, was this or another one",
}
ASSUMED: dict[Sampling, str] = {
    "none": "assumes nothing of who takes part",
    "local": "assumes nothing of who takes part",
    "poisson": "assumes that every round draws each client with probability {rate}, independently, that nobody sees "
    "whom, and that all may know how many clients there are",
    "fixed": "assumes that every round draws a fixed number of clients, each with probability {rate}, that nobody sees "
    "whom, and that all may know how many clients there are",
    "cyclic": "assumes that no client takes part twice in a pass (all may know in which round it does)",
}


@dataclass(frozen=True)
class Spending:
    """What all releases until now come to, and how this round is noised.

    ``accountant`` is the one whose ``epsilon`` it is, infinite without noise; ``rate`` is the largest with which a
    client was sampled; ``left`` is what of the budget's epsilon is left, None without one. ``noise`` is what the
    mechanism tells (`strategies.composition.Privacy.told`), ``caveat`` why these figures protect nobody, "" where they
    do.
    """

    epsilon: float
    delta: float
    accountant: Accountant
    adjacency: Adjacency
    sampling: Sampling
    rate: float
    releases: int
    left: float | None = None
    noise: Mapping[str, float] = field(default_factory=dict)
    caveat: str = ""

    @classmethod
    def of(cls, ledger: State, budget: Budget, noise: Mapping[str, float], caveat: str = "") -> Self | None:
        """Return what a ledger (as arrays) comes to; None of an empty one."""
        known = Ledger.of(ledger)
        if not known.releases:
            return None
        found, widest = known.epsilons(budget.delta), max(known.releases, key=lambda release: release.rate)
        return cls(
            epsilon=found.tightest,
            delta=budget.delta,
            accountant=found.accountant,
            adjacency=widest.adjacency,
            sampling=widest.sampling,
            rate=widest.rate,
            releases=known.rounds,
            left=budget.epsilon - found.tightest if budget.epsilon else None,
            noise=noise,
            caveat=caveat if math.isfinite(found.tightest) else NO_PRIVACY,
        )

    @property
    def epsilon_in_words(self) -> str:
        """Epsilon to three digits; without noise there is none."""
        return f"{self.epsilon:.3g}" if math.isfinite(self.epsilon) else "no privacy"

    def on_mean_of(self, updates: int) -> Self:
        """Return it with the noise on the mean of so many updates, where each brings its own; else as it is."""
        if OF_UPDATE not in self.noise or not updates:
            return self
        return replace(self, noise={**self.noise, OF_MEAN: self.noise[OF_UPDATE] / math.sqrt(updates)})

    def to_json(self) -> dict[str, Any]:
        """Return plain values with keys in kebab-case; "epsilon-left" and "caveat" only where there is one."""
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant,
            "adjacency": self.adjacency,
            "sampling": self.sampling,
            "sampling-rate": self.rate,
            "releases": self.releases,
            **({} if self.left is None else {"epsilon-left": self.left}),
            **self.noise,
            **({"caveat": self.caveat} if self.caveat else {}),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError where it is something else."""
        known = {"epsilon", "delta", "sampling-rate", "releases", "epsilon-left"}
        words = {"accountant": ACCOUNTANTS, "adjacency": ADJACENCIES, "sampling": SAMPLINGS}
        for key, allowed in words.items():
            if value[key] not in allowed:
                raise ValueError(f"{key} is none of {', '.join(allowed)}")
        left = value.get("epsilon-left")
        return cls(
            epsilon=float(value["epsilon"]),
            delta=float(value["delta"]),
            accountant=cast(Accountant, value["accountant"]),
            adjacency=cast(Adjacency, value["adjacency"]),
            sampling=cast(Sampling, value["sampling"]),
            rate=float(value["sampling-rate"]),
            releases=int(value["releases"]),
            left=None if left is None else float(left),
            noise={key: float(number) for key, number in value.items() if key not in {*known, *words, "caveat"}},
            caveat=str(value.get("caveat", "")),
        )

    @property
    def meaning(self) -> str:
        """Say in one sentence what the guarantee covers, and before it why it is none for this run."""
        covered = meaning(
            self.epsilon, self.delta, self.sampling, self.adjacency, self.releases, f"at most {self.rate:.4g}"
        )
        return with_caveat(covered, self.caveat) if math.isfinite(self.epsilon) else covered


def meaning(epsilon: float, delta: float, sampling: Sampling, adjacency: Adjacency, releases: int, rate: str) -> str:
    """Say in one sentence what so many rounds, or passes, cover, in which a client takes part with this probability."""
    if not math.isfinite(epsilon):
        return "No privacy: whoever sees the models may learn everything about a client."
    sentence = LOCAL if sampling == "local" else CENTRAL
    assumed, whom = ASSUMED[sampling].format(rate=rate), WHOM[adjacency]
    counted = f"{releases} {'passes' if sampling == 'cyclic' else 'rounds'}"
    return sentence.format(
        epsilon=epsilon, delta=delta, adjacency=adjacency, releases=counted, whom=whom, assumed=assumed
    )


def with_caveat(covered: str, caveat: str) -> str:
    """Return what a guarantee covers, after why this run does not give it, if so."""
    return f"The run {caveat}. Of that cohort it would hold: {covered}" if caveat else covered


def simulated_cohort(size: int) -> str:
    """Say what a run is whose noise is that of a larger cohort, to follow "the run ..."; "" for a size of 0."""
    return f"simulates the noise of a cohort of {size}; this run itself is not private" if size else ""


def warnings(noise_multiplier: float, delta: float, population: int) -> Iterator[str]:
    """Yield a sentence for each reason not to call this privacy."""
    if noise_multiplier == 0:
        yield "No privacy: the key 'noise-multiplier' is 0, so that updates are clipped but get no noise."
    if delta >= 1 / population:
        yield (
            f"The key 'budget-delta' is {delta:g}, not below 1 / population = {1 / population:g}: such a guarantee "
            "still allows that one client's data are published. Lower it."
        )
