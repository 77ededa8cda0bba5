"""The clients that train at one time where each begins and ends on its own: who is at work, and who is back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecordValues, Message
from flwr.serverapp import Grid

from strategies import wire
from strategies.admission import Reason
from strategies.clock import clock_of
from strategies.compression.downlink import Broadcast
from strategies.exchange import Exchange
from strategies.replies import Outcome, Rejection
from strategies.terms import RoundTerms

AT_WORK, BACK, LATE = "at work", "back", "late"


@dataclass(frozen=True)
class Origin:
    """What clients begin from in a round: a model, how many steps had made it, and the terms and settings with it."""

    round: int
    steps: int
    record: ArrayRecord
    weights: wire.GlobalWeights
    sent: Broadcast
    terms: RoundTerms
    settings: Mapping[str, ConfigRecordValues]
    beside: Mapping[str, ArrayRecord]
    bytes_down: wire.ByteCounter


@dataclass(frozen=True)
class Flight:
    """A client at work: on which node, since which model, and when (by the grid's clock) it began and will be late.

    ``cohort`` is the number of the cohort that it was drawn in.
    """

    client: str
    cohort: int
    node: int
    load: float
    described: Mapping[str, int]
    origin: Origin
    began: float
    due: float

    def read(self, reply: Message | None) -> list[Outcome]:
        """Return what became of the client; None for a reply means that it is late."""
        if reply is None:
            return [Rejection(self.client, Reason.LATE)]
        return self.origin.terms.reader(self.origin.sent.start, self.described).read(reply, [self.client])


class Slots:
    """The clients at work, and those that have finished but were not taken yet."""

    def __init__(self, grid: Grid, timeout: float) -> None:
        self.clock = clock_of(grid)
        self.working: dict[str, Flight] = {}  # by the id of their message
        self.finished: deque[tuple[Flight, Message | None]] = deque()
        self.repeated: list[str] = []  # the clients of every reply that came again
        self._exchange = Exchange(grid, [], timeout)

    def launch(self, flights: Sequence[tuple[Flight, Message]]) -> None:
        """Send clients to work, all at one instant."""
        self._exchange.send([message for _, message in flights])
        self.working.update((message.metadata.message_id, flight) for flight, message in flights)

    def wait(self, until: float) -> None:
        """Wait until some have finished or are late, or until that time; those of one instant are sorted by id."""
        due = min((flight.due for flight in self.working.values()), default=until)
        replies = self._exchange.next_arrivals(min(until, due) - self.clock())
        back: dict[str, tuple[Flight, Message]] = {}
        for reply in replies:
            request = reply.metadata.reply_to_message_id
            if request in back:
                self.repeated.append(back[request][0].client)
            elif request in self.working:
                back[request] = self.working.pop(request), reply
        self.finished.extend(sorted(back.values(), key=lambda one: one[0].client))
        if not replies:
            self._give_up_late()

    def _give_up_late(self) -> None:
        now = self.clock()
        late = {message: flight for message, flight in self.working.items() if flight.due <= now}
        self._give_up(late)

    def _give_up(self, late: Mapping[str, Flight]) -> None:
        for message in late:
            self._exchange.forget(message)
            del self.working[message]
        self.finished.extend((flight, None) for flight in sorted(late.values(), key=lambda flight: flight.client))

    def recall(self, states: Mapping[str, str]) -> None:
        """Let those be back or late of whom this is said, after all were sent to work again (`in_flight`)."""
        back = {client for client, state in states.items() if state == BACK}
        while missing := back - {flight.client for flight, _ in self.finished}:
            waiting = len(self.finished)
            self.wait(self.clock())
            if len(self.finished) == waiting:
                raise RuntimeError(f"{sorted(missing)} are not back when they were.")
        self._give_up({message: flight for message, flight in self.working.items() if states[flight.client] == LATE})

    def clients(self) -> set[str]:
        """Return who is at work."""
        return {flight.client for flight in self.working.values()}

    def loads(self) -> dict[int, float]:
        """Return how much each node has to do."""
        loads: dict[int, float] = {}
        for flight in self.working.values():
            loads[flight.node] = loads.get(flight.node, 0.0) + flight.load
        return loads
