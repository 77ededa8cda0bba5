"""Samplers: which clients take part in a round.

Drawing a cohort takes time in proportion to the cohort, however large the population is. Over-selection (Bonawitz et
al., "Towards Federated Learning at Scale: System Design", 2019, section 2.2) asks more clients than a round needs, so
that it need not wait for the slowest, nor for those that drop out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.population import ClientInfo
from strategies.seeding import generator

PURPOSE = "cohort"


class Sampler(Protocol):
    """Chooses the cohort of a round from (round, clients, seed) alone: round 7 needs no earlier round."""

    @property
    def guarantees(self) -> Guarantees:
        """What the sampler gives and needs."""

    @property
    def goal(self) -> int:
        """How many good updates end a round; 0 = those of all that were asked."""

    def check(self, population_size: int) -> None:
        """Raise StrategyError at start if no cohort could be drawn from so many clients."""

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int) -> list[str]:
        """Return the ids of the cohort, sorted. ``clients`` are those there are now, sorted by id (`Population`)."""


@dataclass(frozen=True)
class UniformSampler:
    """A fixed number of clients, uniformly without replacement (McMahan et al. 2017, "FedAvg"); 0 = all of them.

    With ``over_selection`` 1.3 a round asks ceil(1.3 n) clients and is over when n of them have given a good update.
    """

    clients_per_round: int = 0
    over_selection: float = 1.0

    def __post_init__(self) -> None:
        if self.clients_per_round < 0:
            raise StrategyError(
                f"The key 'clients-per-round' is {self.clients_per_round}, but must be 0 (all clients) or more."
            )
        if not 1 <= self.over_selection < math.inf:
            raise StrategyError(f"The key 'over-selection' is {self.over_selection}, but must be 1 (nobody) or more.")
        if self.over_selection > 1 and self.clients_per_round == 0:
            raise StrategyError(
                f"The key 'over-selection' is {self.over_selection}, but every client is asked already: set "
                "'clients-per-round' to how many good updates a round needs, or 'over-selection' to 1."
            )

    @property
    def guarantees(self) -> Guarantees:
        """Nothing: accounting for samples of fixed size is a matter of its own."""
        return Guarantees()

    @property
    def goal(self) -> int:
        """The clients per round, where more than these are asked."""
        return self.clients_per_round if self.over_selection > 1 else 0

    @property
    def asked(self) -> int:
        """How many clients are asked in a round; 0 = all."""
        return asked(self.clients_per_round, self.over_selection)

    def check(self, population_size: int) -> None:
        """Raise StrategyError where the cohort would be larger than the population, or empty."""
        if population_size < 1:
            raise StrategyError("The population is empty: at least one client is needed to train.")
        if self.clients_per_round > population_size:
            raise StrategyError(
                f"The key 'clients-per-round' is {self.clients_per_round}, but there are only {population_size} "
                f"clients: set it to at most {population_size}, or to 0 for all of them."
            )
        if self.asked > population_size:
            raise StrategyError(
                f"The key 'over-selection' is {self.over_selection}, which asks {self.asked} clients for "
                f"{self.clients_per_round}, but there are only {population_size}: lower it or 'clients-per-round'."
            )

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int) -> list[str]:
        """Draw the cohort: every set of that size is equally likely.

        Where fewer clients are left than it should hold (nodes are gone), it holds all of them: the run goes on.
        """
        places = draw(len(clients), self.asked, generator(seed, round, "", PURPOSE))
        return [clients[place].id for place in places]


def asked(clients_per_round: int, over_selection: float) -> int:
    """Return how many clients a round asks that needs so many, ceil(over_selection * clients_per_round)."""
    # A product such as 10 * 1.1 lies a rounding above the whole number that is meant.
    return math.ceil(round(clients_per_round * over_selection, 6))


def draw(size: int, count: int, generator: np.random.Generator) -> list[int]:
    """Draw so many of the numbers below ``size``, each set equally likely, or all (0, or as many as there are); sorted.

    Takes O(count log count) steps on average. Uniform numbers are scaled here and not by `Generator.choice`, whose
    stream may differ between versions of NumPy; one drawn before is rejected, which leaves every set as likely.
    """
    if count == 0 or count >= size:
        return list(range(size))
    drawn: set[int] = set()
    while len(drawn) < count:
        drawn.add(int(generator.random() * size))
    return sorted(drawn)
