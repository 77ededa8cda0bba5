"""Cyclic selection: each client is asked once in every pass of so many rounds, in the same round of each.

Cho, Sharma, Joshi, Xu, Kale, Zhang: "On the Convergence of Federated Averaging with Cyclic Client Participation",
ICML 2023: groups of clients take turns. Here a client's group, its *slot* in a pass of P rounds, is a hash of the run's
seed and its id, and all of the slot whose turn it is take part. In the paper the groups are of one size, and some
clients of a group are drawn.

So no client takes part twice within P rounds, whoever connects or is lost meanwhile, and what one client does moves no
other to another round. That is the participation schema of Choquette-Choo et al., "Multi-Epoch Matrix Factorization
Mechanisms for Private Machine Learning", ICML 2023 (some times, P rounds apart), which mechanisms need whose noise is
correlated over rounds. Nothing about it need be random or secret. The price: cohorts differ in size as those of Poisson
selection do, with mean clients / P.

Drawing takes time in proportion to the population where other clients are online than in the round before: some
microseconds for each.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, integer
from strategies.population import ClientInfo
from strategies.samplers.fixed_size import check_mean_size, check_size, refuse_over_selection
from strategies.samplers.sampler import Losses, no_losses
from strategies.seeding import number_below

logger = logging.getLogger(__name__)

PURPOSE = "slot"
FAR = 1.25  # so many times too few or too many clients in a round, on average, are worth a warning


@dataclass(frozen=True)
class CyclicSampler:
    """All clients of a slot; ``pass_rounds`` (P) slots take turns, each meant for ``clients_per_round`` clients."""

    clients_per_round: int
    pass_rounds: int

    def __post_init__(self) -> None:
        check_mean_size("cyclic", self.clients_per_round)
        if self.pass_rounds < 1:
            raise StrategyError(f"The key 'pass-rounds' is {self.pass_rounds}, but a pass has 1 round or more.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the size of a cohort and the length of a pass from the options of a strategy."""
        refuse_over_selection("cyclic", options, "all clients of a slot are asked and count")
        return cls(integer(options, "clients-per-round", 0), pass_rounds(options))

    @property
    def guarantees(self) -> Guarantees:
        """Once in a pass at most, always as many rounds apart."""
        return Guarantees(gives=frozenset({Property.BOUNDED_PARTICIPATION}))

    @property
    def goal(self) -> int:
        """No number of updates ends a round early."""
        return 0

    def cohort_size(self, population_size: int) -> int:
        """Return how many clients are in a slot on average, rounded up."""
        return math.ceil(population_size / self.pass_rounds)

    def check(self, population_size: int) -> None:
        """Raise StrategyError where a cohort would be larger than the population; warn where its size is far off."""
        check_size(self.clients_per_round, population_size)
        mean = population_size / self.pass_rounds
        if not 1 / FAR <= mean / self.clients_per_round <= FAR:
            logger.warning(
                "A pass of %d rounds ('pass-rounds') has %.3g of the %d clients in a round on average, but "
                "'clients-per-round' is %d: set one of the two so that their product is the number of clients.",
                *(self.pass_rounds, mean, population_size, self.clients_per_round),
            )

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int, losses: Losses = no_losses) -> list[str]:
        """Return the clients of the slot whose turn it is; there may be none."""
        slots = _slots(tuple(client.id for client in clients), seed, self.pass_rounds)
        return list(slots[(round - 1) % self.pass_rounds])


def pass_rounds(options: Options) -> int:
    """Read the key 'pass-rounds'; 0 = so many that 'num-clients' clients take part 'clients-per-round' at a time.

    Raises StrategyError where neither says how many clients there are.
    """
    given, clients = integer(options, "pass-rounds", 0), integer(options, "num-clients", 0)
    if given:
        return given
    if clients < 1:
        raise StrategyError(
            "The key 'pass-rounds' is 0, but nothing says how many clients there are: set it to the number of clients "
            "by 'clients-per-round'."
        )
    return math.ceil(clients / max(1, integer(options, "clients-per-round", 0)))


@lru_cache(maxsize=1)
def _slots(clients: tuple[str, ...], seed: int, count: int) -> list[list[str]]:
    """Return the clients of each slot, in their order."""
    slots: list[list[str]] = [[] for _ in range(count)]
    for client in clients:
        slots[number_below(count, seed, 0, client, PURPOSE)].append(client)
    return slots
