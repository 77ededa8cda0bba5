"""All that a run remembers between two rounds, and where it is handed so that the run can go on from it.

Whatever is drawn at random is derived from the seed and the round, or drawn anew (noise and secret cohorts of a
deployment), so that is all there is: the weights, the states of the strategy's parts, which updates counted, who is
banned, how many rounds were skipped, and the simulated clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from flwr.app import ArrayRecord

from strategies import wire
from strategies.errors import StrategyError
from strategies.states import StrategyStates
from strategies.updates import State

WEIGHTS, BANS, WATCHED, PACE = "weights", "bans", "watched", "pace/"
PARTS = tuple(part.name for part in fields(StrategyStates))
FACTS = ("round", "skipped", "clock", "committed", "pace")


@dataclass(frozen=True)
class PaceMemory:
    """What a pace remembers besides: ``facts`` as JSON can hold them, and arrays by group and name."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, State] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What is known once round ``round`` is over; nothing of it is changed in place.

    ``committed`` is the round in which each client's update counted last, where clients keep state; ``skipped`` how
    many rounds in a row were skipped; ``clock`` what a simulated world showed, None where time is real. ``watched`` is
    what somebody remembers who has watched the run, of which the strategy knows nothing.
    """

    round: int
    arrays: ArrayRecord
    states: StrategyStates = field(default_factory=StrategyStates)
    committed: Mapping[str, int] = field(default_factory=dict)
    bans: State = field(default_factory=dict)
    skipped: int = 0
    clock: float | None = None
    pace: PaceMemory = field(default_factory=PaceMemory)
    watched: State = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what is no array, as JSON can hold it."""
        return {
            "round": self.round,
            "skipped": self.skipped,
            "clock": self.clock,
            "committed": dict(self.committed),
            "pace": self.pace.facts,
        }

    def groups(self) -> dict[str, State]:
        """Return all arrays, by what they belong to and by name."""
        weights = {name: wire.decode(array) for name, array in self.arrays.items()}
        parts = {name: getattr(self.states, name) for name in PARTS}
        pace = {PACE + name: arrays for name, arrays in self.pace.groups.items()}
        return {WEIGHTS: weights, **parts, BANS: self.bans, WATCHED: self.watched, **pace}

    @classmethod
    def of(cls, facts: Mapping[str, Any], groups: Mapping[str, State]) -> Snapshot:
        """Return the state that `facts` and `groups` have told of. Raises StrategyError where it is not all there."""
        pace = {name.removeprefix(PACE): arrays for name, arrays in groups.items() if name.startswith(PACE)}
        strange = {WEIGHTS, BANS, WATCHED, *PARTS, *map(PACE.__add__, pace)} ^ set(groups) | set(FACTS) ^ set(facts)
        if strange:
            raise StrategyError(f"it is of another version of this program, as {', '.join(sorted(strange))} shows")
        states = StrategyStates(**{name: groups[name] for name in PARTS})
        memory = PaceMemory(facts["pace"], pace)
        given = {**facts, "pace": memory, "arrays": wire.array_record(dict(groups[WEIGHTS]))}
        return cls(states=states, bans=groups[BANS], watched=groups[WATCHED], **given)


class Journal(Protocol):
    """What keeps a run so that it can go on after its process was killed."""

    def begun(self, round: int, ledger: State) -> None:
        """Take down what privacy will have cost once this round is begun; it is durable when this returns."""

    def saved(self) -> int | None:
        """Return the last round whose state is kept, None where there is none; it may wait until that is known."""

    def failed(self) -> int:
        """Return how many states in a row could not be kept, the latest one among them; it may wait as `saved` does."""

    def finished(self, state: Snapshot) -> None:
        """Take the state after a round, whose record the observers have got."""


class NoJournal:
    """Keeps nothing."""

    def begun(self, round: int, ledger: State) -> None:
        """Forget it."""

    def saved(self) -> int | None:
        """Nothing is kept."""
        return None

    def failed(self) -> int:
        """Nothing was tried."""
        return 0

    def finished(self, state: Snapshot) -> None:
        """Forget it."""


NOWHERE: Journal = NoJournal()
