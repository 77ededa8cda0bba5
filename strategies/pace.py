"""Paces: when the server steps. In rounds, each waiting for its cohort, or whenever a buffer of updates is full.

A pace is a frozen value, the sixth part of a composition; what runs at it is `strategies.federated` or
`strategies.fedbuff`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, integer, number


class Pace(Protocol):
    """When clients begin and when the server steps."""

    @property
    def guarantees(self) -> Guarantees:
        """What the pace gives, needs and takes away."""


@dataclass(frozen=True)
class Synchronous:
    """In rounds: all clients of a cohort begin from the same model, and the server steps once with their updates."""

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def guarantees(self) -> Guarantees:
        """Updates of equal age, to be added up anywhere, of clients that begin from one model, in rounds that end."""
        of_rounds = {Property.COMMON_START, Property.CLIENT_STATE, Property.ROUNDS}
        return Guarantees(gives=frozenset({Property.NODE_SUMS, *of_rounds}))


@dataclass(frozen=True)
class Buffered:
    """FedBuff: ``concurrency`` clients train at any time, and the server steps with every ``buffer_size`` updates.

    Nguyen et al., "Federated Learning with Buffered Asynchronous Aggregation", 2022, algorithm 1. An update that missed
    tau steps of the server counts (1 + tau)^-``staleness_exponent`` of itself; one that missed more than
    ``max_staleness`` (0 = no limit) is rejected. A ``concurrency`` of 0 lets all clients train at once.
    """

    buffer_size: int = 10
    concurrency: int = 0
    staleness_exponent: float = 0.5
    max_staleness: int = 0

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise StrategyError(f"The key 'buffer-size' is {self.buffer_size}, but must be 1 or more.")
        if self.concurrency < 0:
            raise StrategyError(
                f"The key 'concurrency' is {self.concurrency}, but must be 0 ('clients-per-round') or more."
            )
        if not 0 <= self.staleness_exponent < math.inf:
            raise StrategyError(f"The key 'staleness-exponent' is {self.staleness_exponent}, but must be 0 or more.")
        if self.max_staleness < 0:
            raise StrategyError(f"The key 'max-staleness' is {self.max_staleness}, but must be 0 (no limit) or more.")

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys; as many clients train at any time as FedAvg would ask in a round, where 'concurrency' is 0."""
        return cls(
            integer(options, "buffer-size", 10),
            integer(options, "concurrency", 0) or integer(options, "clients-per-round", 0),
            number(options, "staleness-exponent", 0.5),
            integer(options, "max-staleness", 0),
        )

    @property
    def guarantees(self) -> Guarantees:
        """Each update is weighed by its age, so the server must see it; which clients are in a step, speed decides."""
        return Guarantees(
            needs=frozenset({Property.SINGLE_UPDATES}),
            takes=frozenset({Property.KNOWN_SAMPLING, Property.BOUNDED_PARTICIPATION}),
        )

    def discount(self, staleness: int) -> float:
        """Return s(tau), what is left of an update that missed so many steps: 1 for none."""
        return float((1.0 + staleness) ** -self.staleness_exponent)

    def too_stale(self, staleness: int) -> bool:
        """Tell whether an update has missed so many steps that it must not count."""
        return 0 < self.max_staleness < staleness
