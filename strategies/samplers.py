"""Samplers: which clients take part in a round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

    def check(self, population_size: int) -> None:
        """Raise StrategyError at start if no cohort could be drawn from so many clients."""

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int) -> list[str]:
        """Return the ids of the cohort, sorted; they do not depend on the order of ``clients``, those there are now."""


@dataclass(frozen=True)
class UniformSampler:
    """A fixed number of clients, uniformly without replacement (McMahan et al. 2017, "FedAvg"); 0 = all of them."""

    clients_per_round: int = 0

    def __post_init__(self) -> None:
        if self.clients_per_round < 0:
            raise StrategyError(
                f"The key 'clients-per-round' is {self.clients_per_round}, but must be 0 (all clients) or more."
            )

    @property
    def guarantees(self) -> Guarantees:
        """Nothing: accounting for samples of fixed size is a matter of its own."""
        return Guarantees()

    def check(self, population_size: int) -> None:
        """Raise StrategyError where the cohort would be larger than the population, or empty."""
        if population_size < 1:
            raise StrategyError("The population is empty: at least one client is needed to train.")
        if self.clients_per_round > population_size:
            raise StrategyError(
                f"The key 'clients-per-round' is {self.clients_per_round}, but there are only {population_size} "
                f"clients: set it to at most {population_size}, or to 0 for all of them."
            )

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int) -> list[str]:
        """Draw the cohort: every set of that size is equally likely.

        Where fewer clients are left than it should hold (nodes are gone), it holds all of them: the run goes on.
        """
        return draw([client.id for client in clients], self.clients_per_round, generator(seed, round, "", PURPOSE))


def draw(ids: Iterable[str], count: int, generator: np.random.Generator) -> list[str]:
    """Draw so many ids without replacement, each set equally likely, or all (0, or as many as there are); sorted."""
    ordered = sorted(ids)
    if count == 0 or count >= len(ordered):
        return ordered
    # Sorting uniform keys, not Generator.choice: NumPy may change the latter's stream between versions.
    keys = generator.random(len(ordered))
    return sorted(ordered[index] for index in np.argsort(keys, kind="stable")[:count])
