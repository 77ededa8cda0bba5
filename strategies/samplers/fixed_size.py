"""Cohorts of a fixed size: how many clients are asked, and when there are too few of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees
from strategies.options import Options, integer, number


@dataclass(frozen=True)
class FixedSize:
    """The size of a cohort: ``clients_per_round``, 0 = all clients; what the samplers of a fixed number have in common.

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

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the size of a cohort from the options of a strategy."""
        return cls(integer(options, "clients-per-round", 0), number(options, "over-selection", 1.0))

    @property
    def guarantees(self) -> Guarantees:
        """Nothing, in general; a sampler that draws uniformly says otherwise."""
        return Guarantees()

    @property
    def goal(self) -> int:
        """The clients per round, where more than these are asked."""
        return self.clients_per_round if self.over_selection > 1 else 0

    @property
    def asked(self) -> int:
        """How many clients are asked in a round; 0 = all."""
        return asked(self.clients_per_round, self.over_selection)

    def cohort_size(self, population_size: int) -> int:
        """Return how many updates a round has at most."""
        return min(self.clients_per_round or population_size, population_size)

    def check(self, population_size: int) -> None:
        """Raise StrategyError where the cohort would be larger than the population, or empty."""
        check_size(self.clients_per_round, population_size)
        if self.asked > population_size:
            raise StrategyError(
                f"The key 'over-selection' is {self.over_selection}, which asks {self.asked} clients for "
                f"{self.clients_per_round}, but there are only {population_size}: lower it or 'clients-per-round'."
            )


def asked(clients_per_round: int, over_selection: float) -> int:
    """Return how many clients a round asks that needs so many, ceil(over_selection * clients_per_round)."""
    # A product such as 10 * 1.1 lies a rounding above the whole number that is meant.
    return math.ceil(round(clients_per_round * over_selection, 6))


def check_size(clients_per_round: int, population_size: int) -> None:
    """Raise StrategyError where there are fewer clients than a round needs, or none."""
    if population_size < 1:
        raise StrategyError("The population is empty: at least one client is needed to train.")
    if clients_per_round > population_size:
        raise StrategyError(
            f"The key 'clients-per-round' is {clients_per_round}, but there are only {population_size} "
            f"clients: set it to at most {population_size}, or to 0 for all of them."
        )


def check_mean_size(selection: str, clients_per_round: int) -> None:
    """Raise StrategyError for what no cohort can have as its mean size."""
    refuse_all(selection, clients_per_round)
    if clients_per_round < 0:
        raise StrategyError(f"The key 'clients-per-round' is {clients_per_round}, but must be 1 or more.")


def refuse_over_selection(selection: str, options: Options, why: str) -> None:
    """Raise StrategyError where more clients would be asked than are needed; ``why`` completes the sentence."""
    over_selection = number(options, "over-selection", 1.0)
    if over_selection != 1:
        raise StrategyError(
            f"The key 'over-selection' is {over_selection:g}, but with 'selection' '{selection}' {why}: leave it at 1, "
            "or change 'selection'."
        )


def refuse_all(selection: str, clients_per_round: int) -> None:
    """Raise StrategyError where every client is asked, so that there is nothing to choose."""
    if clients_per_round == 0:
        raise StrategyError(
            f"The key 'selection' is '{selection}', but 'clients-per-round' 0 asks every client: set it to how many "
            "a round needs, or 'selection' to 'uniform'."
        )
