"""Send messages to nodes and take their replies as they arrive, one at a time, until a deadline.

Flower's ``Grid.send_and_receive`` holds all replies of a round in memory and leaves out late ones without a word. Here
the caller folds each reply into its aggregate before the next is fetched, so that the server's memory does not grow
with the number of clients, and learns which messages were never answered.

A grid that knows when replies arrive, because its clients run in its own process or in one that tells it, is an
`ArrivalGrid`: it is waited for. Any other is polled.

One at a time also for the sake of the others: Flower's grids delete replies as they are pulled and decode them right
away, so a reply that cannot be decoded makes the pull raise, and all that were pulled with it would be lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol, runtime_checkable

from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from google.protobuf.message import DecodeError

from strategies.clock import clock_of

logger = logging.getLogger(__name__)

SHORTEST_WAIT, LONGEST_WAIT = 0.005, 0.5
SLOWDOWN = 1.3

# The codes of error replies that are made on the server; Flower's own codes are below. One stands for a reply that no
# Flower wrote, one for a message that the grid did not take, such as one too large for the SuperLink, and one for a
# reply that holds more than its allowance (`strategies.requests.weighed`).
UNREADABLE, NOT_SENT, TOO_LARGE = 1000, 1001, 1002

# What Flower raises while it decodes a reply that no Flower wrote; errors of the connection are others, and pass.
UNDECODABLE = (
    UnexpectedObjectContentError,
    DecodeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    MemoryError,
)


@runtime_checkable
class ArrivalGrid(Protocol):
    """What a grid offers besides Flower's interface where nobody has to poll it."""

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        """Wait for the next replies to these messages: those that arrive at one instant, [] after ``timeout`` seconds.

        The seconds are those of the grid's own clock. Each reply is handed out once.
        """


class Exchange:
    """Requests and their replies. More can be sent while others are open, so that clients begin when others end."""

    def __init__(self, grid: Grid, messages: Sequence[Message], timeout: float) -> None:
        """Send the messages; ``timeout`` in seconds of the grid's clock, for `replies`, counts from now."""
        self._grid = grid
        self._clock = clock_of(grid)
        self._deadline = self._clock() + timeout
        self._unanswered: dict[str, Message] = {}
        self._waiting: set[str] = set()
        self._not_sent: list[str] = []
        self._wait, self._sweep_began = SHORTEST_WAIT, time.monotonic()
        self._sweep = self._pulled()
        self.send(messages)

    def send(self, messages: Sequence[Message]) -> None:
        """Push more messages."""
        sent = set(self._grid.push_messages(messages))
        ids = [message.metadata.message_id for message in messages]
        self._unanswered.update(zip(ids, messages, strict=True))
        self._waiting.update(message_id for message_id in ids if message_id in sent)
        lost = [message_id for message_id in ids if message_id not in sent]
        self._not_sent.extend(lost)
        if lost:
            logger.warning("%d of %d messages could not be sent", len(lost), len(messages))

    def arrived(self) -> Iterator[Message]:
        """Yield the replies that are there now, without waiting; a message has one reply, as a rule.

        The reply to a message that could not be sent is an error with the code `NOT_SENT`.
        """
        while self._not_sent:
            yield self._never_left()
        for replies in self._pulled():
            yield from replies

    def replies(self) -> Iterator[Message]:
        """Yield replies in the order of their arrival until all have come or the deadline has passed."""
        while arrivals := self.next_arrivals(self._deadline - self._clock()):
            while arrivals:
                yield arrivals.pop(0)

    def next_arrivals(self, timeout: float) -> list[Message]:
        """Wait for the next replies: all those of one instant where the grid knows of instants, else a single one.

        Returns [] when ``timeout`` seconds of the grid's clock are over, and where there is nothing to wait for.
        """
        if self._not_sent:
            return [self._never_left()]
        if not self._waiting:
            return []
        if not isinstance(self._grid, ArrivalGrid):
            return self._polled(timeout)
        replies = self._grid.next_arrivals(list(self._waiting), max(0.0, timeout))
        for reply in replies:
            self._close(reply.metadata.reply_to_message_id)
        return replies

    def forget(self, message_id: str) -> None:
        """Wait no longer for the reply to this message."""
        self._close(message_id)

    def unanswered(self) -> list[Message]:
        """Return the messages without a reply so far, in the order they were sent."""
        return list(self._unanswered.values())

    def _polled(self, timeout: float) -> list[Message]:
        """Ask for one reply after the other, in sweeps over all that are open, until one is there."""
        deadline = time.monotonic() + timeout
        while self._waiting:
            replies = next(self._sweep, None)
            if replies is not None:
                self._wait = SHORTEST_WAIT
                return replies
            now = time.monotonic()
            if now >= deadline:
                self._sweep = self._pulled()
                return []
            # Asking for thousands of replies takes seconds: leave the SuperLink as long to serve the nodes.
            time.sleep(min(max(self._wait, now - self._sweep_began), deadline - now))
            self._wait = min(self._wait * SLOWDOWN, LONGEST_WAIT)
            self._sweep, self._sweep_began = self._pulled(), time.monotonic()
        return []

    def _pulled(self) -> Iterator[list[Message]]:
        for message_id in [message_id for message_id in self._unanswered if message_id in self._waiting]:
            replies = self._pull(message_id) if message_id in self._waiting else []
            if replies:
                self._close(message_id)
                yield replies

    def _never_left(self) -> Message:
        return Message(Error(NOT_SENT, ""), reply_to=self._unanswered.pop(self._not_sent.pop(0)))

    def _close(self, message_id: str) -> None:
        self._waiting.discard(message_id)
        self._unanswered.pop(message_id, None)

    def _pull(self, message_id: str) -> list[Message]:
        """Return the reply to a message if there is one, and what came again; what cannot be one becomes an error."""
        try:
            replies = list(self._grid.pull_messages([message_id]))
        except UNDECODABLE as raised:
            return [self._unreadable(message_id, f"Flower cannot decode it: {type(raised).__name__}: {raised}")]
        own = [reply for reply in replies if reply.metadata.reply_to_message_id == message_id]
        return own if own or not replies else [self._unreadable(message_id, "it claims to answer another message")]

    def _unreadable(self, message_id: str, why: str) -> Message:
        return Message(Error(UNREADABLE, f"The reply is not valid: {why}"), reply_to=self._unanswered[message_id])
