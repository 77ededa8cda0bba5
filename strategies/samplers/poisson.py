"""Poisson selection: each client takes part with the same probability, independently of all others.

This is the sampling that the amplification theorems of differential privacy assume (Abadi et al., "Deep Learning with
Differential Privacy", 2016, section 3.1; McMahan et al., "Learning Differentially Private Recurrent Language Models",
2018, algorithm 1). The size of the cohort is random, with mean ``clients_per_round``; it may be 0: such a round has no
clients, the model stays, and it does not count towards 'max-skipped-rounds'.

The probability is clients-per-round / clients, of those that can be asked in the round (online, not banned): whoever
accounts takes it round by round, from `PoissonSampler.rate`. It protects from those alone who do not know the seed,
which `strategies.selection` sees to. Drawing takes time in proportion to the cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from strategies.guarantees import Guarantees, Property
from strategies.options import Options, integer
from strategies.population import ClientInfo
from strategies.privacy.accounting import Sampling
from strategies.samplers.drawing import draw_independently
from strategies.samplers.fixed_size import check_mean_size, check_size, refuse_over_selection
from strategies.samplers.sampler import PURPOSE, Losses, no_losses
from strategies.seeding import generator


@dataclass(frozen=True)
class PoissonSampler:
    """Each client with probability ``clients_per_round`` / number of clients."""

    clients_per_round: int

    def __post_init__(self) -> None:
        check_mean_size("poisson", self.clients_per_round)

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the expected size; to ask more than are needed and stop early would make the probabilities unknown."""
        refuse_over_selection("poisson", options, "chance alone may say who takes part")
        return cls(integer(options, "clients-per-round", 0))

    @property
    def guarantees(self) -> Guarantees:
        """Known sampling: `rate` for each client, independently."""
        return Guarantees(gives=frozenset({Property.KNOWN_SAMPLING, Property.INDEPENDENT_SAMPLING}))

    @property
    def sampling(self) -> Sampling:
        """How accountants call it."""
        return "poisson"

    @property
    def goal(self) -> int:
        """No number of updates ends a round early."""
        return 0

    def rate(self, clients: int) -> float:
        """Return the probability with which each of so many clients takes part."""
        return min(1.0, self.clients_per_round / clients)

    def cohort_size(self, population_size: int) -> int:
        """Return how many clients are expected."""
        return min(self.clients_per_round, population_size)

    def check(self, population_size: int) -> None:
        """Raise StrategyError where more clients are expected than there are."""
        check_size(self.clients_per_round, population_size)

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int, losses: Losses = no_losses) -> list[str]:
        """Draw the cohort, which may be empty."""
        if not clients:
            return []
        places = draw_independently(len(clients), self.rate(len(clients)), generator(seed, round, "", PURPOSE))
        return [clients[place].id for place in places]
