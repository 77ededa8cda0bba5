"""A world of virtual clients around any grid: who is online, how late a reply is, who is lost, on a simulated clock.

Nothing sleeps. When a round is pushed, each client's fate follows from the seed (`fates`): only those whose update will
count are run, so that a lost client costs nothing, and replies are handed out at their simulated times, whatever the
order in which the grid around which this stands computes them. So the model does not depend on the engine.

Where many clients travel in one message, its reply arrives with the last of them; the end of the round is the same.
Describing and evaluating take no simulated time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from app.compose import composition
from app.config import RunConfig
from app.errors import UserError
from app.world_keys import world_keys_set
from simulation.conditions import Conditions
from simulation.departures import Cut, cuts
from simulation.draws import Crowd
from simulation.trace import Trace
from simulation.wrapped import WrappedGrid, is_training
from strategies import wire
from strategies.describe import DESCRIBE
from strategies.pace import Synchronous

FOREVER = 1e9  # seconds for which a reply that is due in simulated time is waited for
ROUNDING = 1e-6  # seconds; the server subtracts times and we add them again


def world_grid(grid: Grid, config: RunConfig) -> Grid:
    """Return the grid in the world that the config describes; the grid itself where none of it matters.

    It matters too where the first replies count more than the others: without a world, which those are would depend on
    the engine. Raises UserError for an availability trace that cannot be used.
    """
    order_counts = config.over_selection > 1 or not isinstance(composition(config).pace, Synchronous)
    return WorldGrid(grid, Conditions.of(config)) if world_keys_set(config) or order_counts else grid


@dataclass(frozen=True)
class Expected:
    """A reply that will arrive at ``due`` (simulated seconds); ``computed`` tells whether some grid has to make it."""

    due: float
    cut: Cut
    computed: bool


class WorldGrid(WrappedGrid):
    """A grid whose clients live in simulated time; implements `strategies.clock.World` and `ArrivalGrid`.

    ``grid`` runs the clients and must be an `ArrivalGrid` too; if it packs, so does this.
    """

    def __init__(self, grid: Grid, conditions: Conditions) -> None:
        super().__init__(grid)
        self.conditions = conditions
        self._now = 0.0
        self._examples: dict[str, int] = {}
        self._described: tuple[Sequence[str], dict[str, list[str]]] = ((), {})
        self._crowd = conditions.draws.crowd(())
        self._expected: dict[str, Expected] = {}  # in the order they were pushed
        self._computed: dict[str, Message] = {}
        self._unsent = 0

    # What `strategies.clock.World` asks for.

    def now(self) -> float:
        """Return the simulated seconds since the start of the run."""
        return self._now

    def set_clock(self, seconds: float) -> None:
        """Let this be the present time."""
        self._now = seconds

    def online(self, clients: Sequence[str]) -> list[str]:
        """Return those of these clients that are online now, in their order."""
        crowd = self._crowd_of(clients)
        flags = self.conditions.availability.online(crowd, self._now)
        return [clients[place] for place in np.flatnonzero(flags).tolist()]

    def wait_for_clients(self, banned: Collection[str] = ()) -> bool:
        """Move the clock to when a client that described itself and is not banned is online; False if never.

        Raises UserError where an availability trace knows none of them.
        """
        crowd = self.conditions.draws.crowd(tuple(self._examples))
        availability = self.conditions.availability
        if isinstance(availability, Trace) and not availability.knows(crowd):
            raise UserError(
                "The file of 'availability-trace' names none of the run's clients, which are called "
                f"{', '.join(repr(client) for client in crowd.ids[:3])}, ...: correct its first column."
            )
        if banned:
            crowd = self.conditions.draws.crowd(tuple(client for client in crowd.ids if client not in banned))
        time = availability.next_online(crowd, self._now)
        self._now = self._now if time is None else time
        return time is not None

    def _crowd_of(self, clients: Sequence[str]) -> Crowd:
        """Return the clients with their keys, which are kept for the population: it is asked about in every round."""
        known = self._crowd.ids
        if clients is known or (len(clients) == len(known) and list(clients) == list(known)):
            return self._crowd
        crowd = self.conditions.draws.crowd(tuple(clients))
        if len(crowd) >= len(self._examples):
            self._crowd = crowd
        return crowd

    # What Flower's Grid asks for.

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Decide what becomes of each client, send the messages to those that are run, return the ids of all."""
        given = list(messages)
        trainings = [message for message in given if is_training(message)]
        answers = cuts(trainings, self.conditions, self._examples, self._now)
        planned = {id(cut.request): (cut, due) for cut, due in answers}
        rewritten = [planned[id(message)][0].message() if id(message) in planned else message for message in given]
        for message in rewritten:
            if message is not None and is_training(message):
                message.metadata.ttl = FOREVER  # it is late by the clock of the world, and by no other
        sent = set(self.grid.push_messages([message for message in rewritten if message is not None]))
        ids = []
        for message, travelling in zip(given, rewritten, strict=True):
            message_id = self._id_of(travelling)
            message.metadata.__dict__["_message_id"] = message_id  # by which the reply is known, as Flower's grids do
            if travelling is None or message_id in sent:
                ids.append(message_id)
                if id(message) in planned:
                    cut, due = planned[id(message)]
                    self._expected[message_id] = Expected(due, cut, travelling is not None)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yield the replies that are there; for a training, moves the clock to when they are."""
        ids = list(message_ids)
        for reply in self.grid.pull_messages([message_id for message_id in ids if message_id not in self._expected]):
            yield self._introduced(reply)
        while arrivals := self._next_expected([message_id for message_id in ids if message_id in self._expected]):
            yield from arrivals

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send the messages and return their replies in the order of their arrival, whatever time that takes."""
        ids = set(self.push_messages(messages))
        replies: list[Message] = []
        while arrivals := self.next_arrivals(ids, FOREVER):
            ids -= {reply.metadata.reply_to_message_id for reply in arrivals}
            replies.extend(arrivals)
        return replies

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        """Move the clock to the next replies and return all that arrive then; [] after ``timeout`` simulated seconds.

        A reply that is due and still being computed is waited for, however long that takes.
        """
        expected = [message_id for message_id in message_ids if message_id in self._expected]
        if len(expected) < len(message_ids):  # descriptions and evaluations arrive as they come
            others = [message_id for message_id in message_ids if message_id not in self._expected]
            arrivals = self._arrivals.next_arrivals(others, timeout)
            if arrivals or not expected:
                return [self._introduced(reply) for reply in arrivals]
        if expected and min(self._expected[message_id].due for message_id in expected) > self._now + timeout + ROUNDING:
            self._now += timeout
            return []
        return self._next_expected(expected)

    def _next_expected(self, message_ids: Sequence[str]) -> list[Message]:
        if not message_ids:
            return []
        due = min(self._expected[message_id].due for message_id in message_ids)
        wanted = set(message_ids)
        batch = [key for key, reply in self._expected.items() if key in wanted and reply.due == due]
        self._compute(batch)
        replies = [self._complete(message_id) for message_id in batch]
        self._now = max(self._now, due)
        return replies

    def _compute(self, batch: Sequence[str]) -> None:
        """Wait until all replies of the batch that have to be computed are there."""
        missing = {key for key in batch if self._expected[key].computed and key not in self._computed}
        while missing:
            arrivals = self._arrivals.next_arrivals(missing, FOREVER)
            if not arrivals:
                raise RuntimeError(f"{len(missing)} messages were lost by {type(self.grid).__name__}.")
            self._computed.update((reply.metadata.reply_to_message_id, reply) for reply in arrivals)
            missing -= self._computed.keys()

    def _complete(self, message_id: str) -> Message:
        expected = self._expected.pop(message_id)
        return expected.cut.completed(self._computed.pop(message_id)) if expected.computed else expected.cut.not_run()

    def _id_of(self, message: Message | None) -> str:
        if message is not None:
            return str(message.metadata.message_id)
        self._unsent += 1
        return f"not-run-{self._unsent}"

    def _introduced(self, reply: Message) -> Message:
        """Learn from a description how many examples clients have, and add what the world knows of their devices."""
        pack = None if reply.has_error() else reply.content.get(wire.PACK)
        if reply.metadata.message_type == DESCRIBE and isinstance(pack, ConfigRecord) and wire.NUM_EXAMPLES in pack:
            clients = wire.text_list(pack, wire.CLIENTS)
            self._examples.update(zip(clients, wire.int_list(pack, wire.NUM_EXAMPLES), strict=True))
            if clients != self._described[0]:  # every node of a simulation describes the same clients
                self._described = (clients, dict(self.conditions.kinds(clients)))
            pack.update(self._described[1])
        return reply
