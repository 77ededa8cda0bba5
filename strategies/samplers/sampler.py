"""What every sampler is, and what it may ask before it chooses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.population import ClientInfo
from strategies.privacy.accounting import Sampling

PURPOSE = "cohort"

Losses = Callable[[Sequence[str]], Mapping[str, float]]
"""Asks these clients for the loss of the present global model on their training examples; who is silent is left out."""


def no_losses(clients: Sequence[str]) -> Mapping[str, float]:
    """Raise StrategyError: whoever draws here has nobody to ask."""
    raise StrategyError(f"Nobody can ask {len(clients)} clients for their losses here: give the sampler its 'losses'.")


class Sampler(Protocol):
    """Chooses the cohort of a round from (round, clients, seed) alone, and losses if it asks for them.

    So round 7 needs no earlier round.
    """

    @property
    def guarantees(self) -> Guarantees:
        """What the sampler gives and needs."""

    @property
    def goal(self) -> int:
        """How many good updates end a round; 0 = those of all that were asked."""

    def cohort_size(self, population_size: int) -> int:
        """Return how many updates a round of so many clients is for: at most so many, or on average (Poisson)."""

    def check(self, population_size: int) -> None:
        """Raise StrategyError at start if no cohort could be drawn from so many clients."""

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int, losses: Losses = no_losses) -> list[str]:
        """Return the ids of the cohort, sorted. ``clients`` are those there are now, sorted by id (`Population`)."""


@runtime_checkable
class KnownSampler(Protocol):
    """What a sampler that gives KNOWN_SAMPLING tells accountants."""

    @property
    def sampling(self) -> Sampling:
        """How it draws."""

    def rate(self, clients: int) -> float:
        """Return the probability with which each of so many clients takes part."""
