"""What FedBuff remembers between two steps: who is at work, since when and from which model, and who is drawn next.

In a simulated world the clients at work are sent to work again by a run that goes on, at the times at which they had
begun, and so are back when they would have been. Where time is real, they are gone with the process that they worked
for, and others begin in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import groupby

from flwr.app import ArrayRecord

from strategies import wire
from strategies.clock import World
from strategies.draws import Draws
from strategies.slots import AT_WORK, BACK, LATE, Flight, Origin, Slots
from strategies.snapshot import PaceMemory
from strategies.states import StrategyStates
from strategies.updates import State

WEIGHTS = "weights"


@dataclass(frozen=True)
class Begun:
    """A client that has begun and is not taken yet: drawn in which cohort, at work on the model of which round.

    It began and will be late at those simulated seconds, and ``state`` says whether it is at work, back or late.
    """

    client: str
    cohort: int
    round: int
    began: float
    due: float
    state: str


@dataclass(frozen=True)
class Model:
    """What clients begin from in a round: how many steps had made it, its weights, and the states of the parts."""

    steps: int
    arrays: ArrayRecord
    states: StrategyStates


def remembered(grid: object, slots: Slots, draws: Draws, steps: int) -> PaceMemory:
    """Return all that a run which goes on must know."""
    begun = list(_begun(slots)) if isinstance(grid, World) else []
    origins = {flight.origin.round: flight.origin for flight in _flights(slots)} if begun else {}
    facts = {
        "steps": steps,
        "cohort": draws.cohort,
        "queue": draws.waiting,
        "begun": [[getattr(one, field.name) for field in fields(Begun)] for one in begun],
        "models": {str(number): origin.steps for number, origin in origins.items()},
    }
    groups = {f"{number}/{name}": arrays for number, origin in origins.items() for name, arrays in _groups(origin)}
    return PaceMemory(facts, groups)


def begun_of(memory: PaceMemory) -> list[list[Begun]]:
    """Return who has begun, those together that did at one time, in the order of time."""
    begun = sorted((Begun(*row) for row in memory.facts["begun"]), key=lambda one: (one.began, one.client))
    return [list(together) for _, together in groupby(begun, key=lambda one: one.began)]


def models_of(memory: PaceMemory) -> dict[int, Model]:
    """Return what they have begun from, by round."""
    return {int(number): _model(int(number), steps, memory.groups) for number, steps in memory.facts["models"].items()}


def _model(number: int, steps: int, groups: Mapping[str, State]) -> Model:
    states = {part.name: groups[f"{number}/{part.name}"] for part in fields(StrategyStates)}
    return Model(steps, wire.array_record(dict(groups[f"{number}/{WEIGHTS}"])), StrategyStates(**states))


def _groups(origin: Origin) -> Iterator[tuple[str, State]]:
    yield WEIGHTS, {name: wire.decode(array) for name, array in origin.record.items()}
    for part in fields(StrategyStates):
        yield part.name, getattr(origin.terms.states, part.name)


def _begun(slots: Slots) -> Iterator[Begun]:
    for flight in slots.working.values():
        yield _told(flight, AT_WORK)
    for flight, reply in slots.finished:
        yield _told(flight, LATE if reply is None else BACK)


def _flights(slots: Slots) -> list[Flight]:
    return [*slots.working.values(), *(flight for flight, _ in slots.finished)]


def _told(flight: Flight, state: str) -> Begun:
    return Begun(flight.client, flight.cohort, flight.origin.round, flight.began, flight.due, state)
