"""What is sent of an update: which of its values, and everything as the simplest choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from strategies.compression.positions import Positions
from strategies.errors import StrategyError
from strategies.guarantees import Property
from strategies.options import Option, Options, number
from strategies.updates import FloatVector


class Sparsifier(Protocol):
    """A choice of values; ``wire_id`` names its kind in a payload."""

    wire_id: ClassVar[int]
    unbiased: ClassVar[bool]
    gives: ClassVar[frozenset[Property]]

    @property
    def settings(self) -> Mapping[str, Option]:
        """The options it was made from, its name under 'codec'."""

    def count(self, size: int) -> int | None:
        """Return how many values are sent of so many; None where that depends on the update."""

    def select(self, delta: FloatVector, round_seed: int) -> tuple[FloatVector, Positions | None]:
        """Return the values to send and their increasing positions; None where it is all of them, or `agreed`.

        The values may be the delta itself. What is not sent is 0 for who reads the update.
        """

    def agreed(self, size: int, round_seed: int) -> Iterator[Positions] | None:
        """Return the positions, some at a time, where they follow from the round's seed; None where they are sent."""


@dataclass(frozen=True)
class Everything:
    """Every value."""

    wire_id: ClassVar[int] = 0
    unbiased: ClassVar[bool] = True
    gives: ClassVar[frozenset[Property]] = frozenset()

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def settings(self) -> Mapping[str, Option]:
        """The name alone."""
        return {"codec": "full"}

    def count(self, size: int) -> int:
        """Return the size."""
        return size

    def select(self, delta: FloatVector, round_seed: int) -> tuple[FloatVector, None]:
        """Return the delta itself."""
        return delta, None

    def agreed(self, size: int, round_seed: int) -> None:
        """Nothing needs to be known where all is sent."""


@dataclass(frozen=True)
class Share:
    """A ``share`` of an update's values, above 0 and at most 1."""

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise StrategyError(
                f"The key 'codec-share' is {self.share}, but must be above 0, so that something is sent, and at most 1."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the key 'codec-share'."""
        return cls(number(options, "codec-share", 0.01))

    def count(self, size: int) -> int:
        """Return k, how many of so many values that is: at least one."""
        return max(1, round(self.share * size))
