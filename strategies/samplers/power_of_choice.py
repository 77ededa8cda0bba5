"""Power-of-choice: of some candidates, those take part for whom the present model is worst.

Cho, Wang, Joshi: "Towards Understanding Biased Client Selection in Federated Learning", AISTATS 2022, section 4, the
strategy pi_pow-d: (1) d candidates are drawn without replacement with probability proportional to their number of
examples; (2) the server sends them the global model, and they answer with its loss on their training examples; (3) the
m clients of the highest loss are the cohort. d = m is selection by size; the larger d, the faster the loss falls at
first, and the more biased the model is towards clients that are hard to fit. As in the paper, the updates are
averaged uniformly, unless 'weighting' is 'examples'.

What differs: ties are broken by client id, not at random, and over-selection asks the ceil(1.3 m) highest. Who does not
answer, or not with a finite number, comes last. The losses are believed: a client that claims a high one takes part
whenever it is a candidate. In a simulated world the question takes no simulated time.

Drawing takes time in proportion to the population; asking, to the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, integer, number
from strategies.population import ClientInfo
from strategies.samplers.drawing import draw_weighted
from strategies.samplers.fixed_size import FixedSize, refuse_all
from strategies.samplers.sampler import Losses, no_losses
from strategies.samplers.weighted import sizes
from strategies.seeding import generator

PURPOSE = "candidates"


@dataclass(frozen=True)
class PowerOfChoice(FixedSize):
    """The clients of the highest losses among ``candidates`` (d in the paper), drawn by size; 0 = twice as many."""

    candidates: int = 0

    def __post_init__(self) -> None:
        refuse_all("power-of-choice", self.clients_per_round)
        super().__post_init__()
        if self.candidates and self.candidates < self.asked:
            raise StrategyError(
                f"The key 'power-of-choice-candidates' is {self.candidates}, but {self.asked} clients are chosen from "
                "them in a round: set it to at least that, or to 0 for twice as many, or lower 'clients-per-round'."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the size of the cohort and the number of candidates from the options of a strategy."""
        return cls(
            integer(options, "clients-per-round", 0),
            number(options, "over-selection", 1.0),
            integer(options, "power-of-choice-candidates", 0),
        )

    @property
    def guarantees(self) -> Guarantees:
        """Gives nothing; needs one model that all candidates can be asked about, and learns their losses on it."""
        return Guarantees(needs=frozenset({Property.COMMON_START}), takes=frozenset({Property.NOTHING_ELSE}))

    def check(self, population_size: int) -> None:
        """Raise StrategyError where there are not so many candidates; twice as many as are chosen may be all."""
        super().check(population_size)
        if self.candidates > population_size:
            raise StrategyError(
                f"The key 'power-of-choice-candidates' is {self.candidates}, but there are only {population_size} "
                f"clients: set it to at most {population_size}, or to 0 for twice as many as a round asks."
            )

    def sample(self, round: int, clients: Sequence[ClientInfo], seed: int, losses: Losses = no_losses) -> list[str]:
        """Draw candidates, ask them and choose; where there are no more than a round asks, all of them unasked."""
        if len(clients) <= self.asked:
            return [client.id for client in clients]
        count = self.candidates or 2 * self.asked
        places = draw_weighted(sizes(clients), count, generator(seed, round, "", PURPOSE))
        candidates = [clients[place].id for place in places]
        return highest(candidates, losses(candidates) if len(candidates) > self.asked else {}, self.asked)


def highest(candidates: Sequence[str], losses: Mapping[str, float], count: int) -> list[str]:
    """Return the candidates of the highest losses, sorted by id; ties go to the lower id."""

    def rank(client: str) -> tuple[float, str]:
        loss = losses.get(client, math.nan)
        return (-loss if math.isfinite(loss) else math.inf, client)

    return sorted(sorted(candidates, key=rank)[:count])
