"""The privacy of a client's single examples, where clients train by DP-SGD: what their own noise comes to.

Abadi, Chu, Goodfellow, McMahan, Mironov, Talwar, Zhang: "Deep Learning with Differential Privacy", 2016. Each step of a
client's training is a Gaussian mechanism on a Poisson sample of its examples, each with probability q = batch size /
examples, or 1 where a batch holds them all. With what others see of a client, its updates, composed over all steps of
all rounds in which it was asked, one example more or less is hard to tell. How many examples a client has counts as
public; one that does not say is promised nothing. Microbatches change nothing here: their noise is made for what an
example can change of them.

Each client has an epsilon of its own, and adding up clients adds nothing, as their examples are different ones. It is
RDP's (`strategies.privacy.accounting`): for a thousand clients of different sizes PLD would take minutes.
A round in which a client was asked counts with all steps, whatever came back. Whoever trains in batches that are not
drawn so, as a stock app may, has no such guarantee.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from strategies.errors import StrategyError
from strategies.privacy.accounting import Epsilons, Release, epsilons, rdp_epsilon, total
from strategies.privacy.participations import UNTOLD, Asked
from strategies.privacy.plan import Plan

Steps = Callable[[int], int]
"""Returns how many steps a client with so many examples does in a round."""


@dataclass(frozen=True)
class ExampleLevel:
    """DP-SGD in batches of ``batch_size`` on average, with noise of ``noise_multiplier`` times what an example changes.

    Raises StrategyError where there is no such mechanism or no such delta.
    """

    batch_size: int
    noise_multiplier: float
    steps: Steps
    delta: float

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise StrategyError(f"The key 'batch-size' is {self.batch_size}, but must be 1 or more.")
        if not 0 < self.delta < 1:
            raise StrategyError(f"The key 'dp-sgd-delta' is {self.delta}, but must lie between 0 and 1.")

    def releases(self, examples: int, participations: int) -> Mapping[Release, int]:
        """Return the steps of a client with so many examples in so many rounds; none without examples.

        How many steps `UNTOLD` examples make, and how they are drawn, is not known: they count as if without noise.
        """
        if examples == 0 or participations < 1:
            return {}
        if examples == UNTOLD:
            return {Release("none", 1.0, 0.0): participations}
        rate = min(1.0, self.batch_size / examples)
        release = Release("poisson" if rate < 1 else "none", rate, self.noise_multiplier)
        return {release: participations * self.steps(examples)}

    def epsilons(self, examples: int, participations: int) -> Epsilons:
        """Return the epsilon of such a client by both accountants."""
        return epsilons(self.releases(examples, participations), self.delta)

    def epsilon(self, asked: Asked) -> float:
        """Return that of all rounds by RDP: a tenth of a second for a number of examples met for the first time."""
        return _epsilon(self, tuple(sorted(asked.items())))


@lru_cache(maxsize=2**16)
def _epsilon(level: ExampleLevel, asked: tuple[tuple[int, int], ...]) -> float:
    steps: Counter[Release] = Counter()
    for examples, rounds in asked:
        steps.update(level.releases(examples, rounds))
    return rdp_epsilon(total(steps), level.delta)


@dataclass(frozen=True)
class ExamplePlan:
    """A client with so many ``examples`` that is asked in each of so many ``rounds``: the worst a run can do to it.

    Raises StrategyError where there is no such client.
    """

    level: ExampleLevel
    examples: int
    rounds: int

    def __post_init__(self) -> None:
        if self.examples < 1 or self.rounds < 1:
            raise StrategyError(
                f"The plan has {self.examples} examples and {self.rounds} rounds, but needs one of each at least."
            )

    @property
    def delta(self) -> float:
        """The delta that epsilon holds for."""
        return self.level.delta

    @property
    def steps(self) -> Plan:
        """The same as steps of a mechanism, which draws examples as others draw clients."""
        (release, steps), *_ = self.level.releases(self.examples, self.rounds).items()
        drawn = min(self.level.batch_size, self.examples)
        return Plan(self.examples, drawn, release.sampling, steps, release.noise_multiplier, self.delta)

    def with_noise(self, noise_multiplier: float) -> ExamplePlan:
        """Return the plan with other noise."""
        return replace(self, level=replace(self.level, noise_multiplier=noise_multiplier))

    def after(self, rounds: int) -> Epsilons:
        """Return the epsilon of the first so many rounds."""
        return self.level.epsilons(self.examples, rounds)

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each reason not to call this privacy."""
        if self.level.noise_multiplier == 0:
            yield "No privacy of examples: the key 'dp-sgd-noise-multiplier' is 0, so that gradients get no noise."
        if self.delta >= 1 / self.examples:
            yield (
                f"The key 'dp-sgd-delta' is {self.delta:g}, not below 1 / examples = {1 / self.examples:g}: such a "
                "guarantee still allows that one of them is published. Lower it."
            )

    def meaning(self, epsilon: float) -> str:
        """Say in one sentence what the guarantee covers."""
        if not math.isfinite(epsilon):
            return "No privacy of examples: whoever sees a client's updates may learn everything about each of them."
        rate = self.steps.release.rate
        drawn = f"draws each example with probability {rate:.4g}, independently" if rate < 1 else "takes all examples"
        return (
            f"Example-level differential privacy, epsilon {epsilon:.4g} and delta {self.delta:g}, add or remove one: "
            f"what a client with {self.examples} examples sends in {self.rounds} rounds hardly tells whether any one "
            f"of them was there; this assumes that every step {drawn}, trusts the client, and whoever starts the run "
            "to ask for that noise, and covers its updates, not what it reports beside them."
        )


@dataclass(frozen=True)
class ClientCost:
    """What a client that now has so many ``examples``, None where it does not say, has let out of each by taking part.

    ``participations`` says how often it did.
    """

    client: str
    examples: int | None
    participations: int
    epsilon: float


def costs(level: ExampleLevel, examples: Mapping[str, int], asked: Mapping[str, Asked]) -> list[ClientCost]:
    """Return what it has cost each client, the highest epsilon first; ``examples`` are those of all clients known."""
    found = [
        ClientCost(client, None if size == UNTOLD else size, sum(rounds.values()), level.epsilon(rounds))
        for client, size in examples.items()
        for rounds in [asked.get(client, {})]
    ]
    return sorted(found, key=lambda cost: (-cost.epsilon, cost.client))


def summary(found: list[ClientCost], delta: float) -> str:
    """Say in a sentence what the examples of all clients are protected by; ``found`` is not empty."""
    worst, median = found[0], statistics.median(cost.epsilon for cost in found)
    size = "a number of examples that it keeps to itself" if worst.examples is None else f"{worst.examples} examples"
    return (
        f"Privacy of single examples: epsilon {_number(worst.epsilon)} at delta {delta:g} for the client that it cost "
        f"most ({worst.client}: {size}, asked {worst.participations} times), "
        f"{_number(median)} for the median one. {COVERED}"
    )


COVERED = (
    "It covers whether any one example was among a client's training data, from all who see its updates, and assumes "
    "that each step draws every example independently."
)


def _number(epsilon: float) -> str:
    return f"{epsilon:.4g}" if math.isfinite(epsilon) else "infinite (no privacy)"
