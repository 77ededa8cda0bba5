"""Uniform selection: every cohort of the size is equally likely; what FedAvg does.

McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017, algorithm 1. Drawing
takes time in proportion to the cohort, however large the population is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strategies.guarantees import Guarantees, Property
from strategies.population import ClientInfo
from strategies.privacy.accounting import Sampling
from strategies.samplers.drawing import draw
from strategies.samplers.fixed_size import FixedSize
from strategies.samplers.sampler import PURPOSE, Losses, no_losses
from strategies.seeding import generator


@dataclass(frozen=True)
class UniformSampler(FixedSize):
    """A fixed number of clients, uniformly without replacement; 0 = all of them."""

    @property
    def guarantees(self) -> Guarantees:
        """Known sampling, fixed in size and without replacement, unless speed decides which of those asked count."""
        return Guarantees(gives=frozenset({Property.KNOWN_SAMPLING} if self.goal == 0 else ()))

    @property
    def sampling(self) -> Sampling:
        """How accountants call it."""
        return "fixed"

    def rate(self, clients: int) -> float:
        """Return the probability with which each of so many clients takes part."""
        return min(1.0, self.asked / clients) if self.asked else 1.0

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int, losses: Losses = no_losses) -> list[str]:
        """Draw the cohort: every set of that size is equally likely.

        Where fewer clients are left than it should hold (nodes are gone), it holds all of them: the run goes on.
        """
        places = draw(len(clients), self.asked, generator(seed, round, "", PURPOSE))
        return [clients[place].id for place in places]
