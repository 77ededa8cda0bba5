"""Send messages to nodes and take their replies as they arrive, one at a time, until a deadline.

Flower's ``Grid.send_and_receive`` holds all replies of a round in memory and leaves out late ones without a word. Here
the caller folds each reply into its aggregate before the next is fetched, so that the server's memory does not grow
with the number of clients, and learns which messages were never answered.

One at a time also for the sake of the others: Flower's grids delete replies as they are pulled and decode them right
away, so a reply that cannot be decoded makes the pull raise, and all that were pulled with it would be lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

from flwr.app import Error, Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from google.protobuf.message import DecodeError

logger = logging.getLogger(__name__)

SHORTEST_WAIT, LONGEST_WAIT = 0.005, 0.5
SLOWDOWN = 1.3

# The codes of error replies that are made here; Flower's own codes are below. One stands for a reply that no Flower
# wrote, the other for a message that the grid did not take, such as one too large for the SuperLink.
UNREADABLE, NOT_SENT = 1000, 1001

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


class Exchange:
    """One batch of requests and its replies. Iterating ends when all have answered or the deadline has passed."""

    def __init__(self, grid: Grid, messages: Sequence[Message], timeout: float) -> None:
        """Push the messages; ``timeout`` in seconds counts from now."""
        self._grid = grid
        self._deadline = time.monotonic() + timeout
        sent = set(grid.push_messages(messages))
        self._unanswered = {message.metadata.message_id: message for message in messages}
        self._waiting = {message_id for message_id in self._unanswered if message_id in sent}
        self._not_sent = [message_id for message_id in self._unanswered if message_id not in sent]
        if self._not_sent:
            logger.warning("%d of %d messages could not be sent", len(self._not_sent), len(messages))

    def arrived(self) -> Iterator[Message]:
        """Yield the replies that are there now, without waiting; each message gets one reply at most.

        The reply to a message that could not be sent is an error with the code `NOT_SENT`.
        """
        while self._not_sent:
            request = self._unanswered.pop(self._not_sent.pop(0))
            yield Message(Error(NOT_SENT, ""), reply_to=request)
        for message_id in [message_id for message_id in self._unanswered if message_id in self._waiting]:
            reply = self._pull(message_id)
            if reply is not None:
                self._waiting.remove(message_id)
                del self._unanswered[message_id]
                yield reply

    def replies(self) -> Iterator[Message]:
        """Yield replies in the order of their arrival until all have come or the deadline has passed."""
        wait = SHORTEST_WAIT
        while self._waiting or self._not_sent:
            before, start = len(self._waiting), time.monotonic()
            yield from self.arrived()
            now = time.monotonic()
            if not self._waiting or now >= self._deadline:
                return
            wait = SHORTEST_WAIT if len(self._waiting) < before else min(wait * SLOWDOWN, LONGEST_WAIT)
            # Asking for thousands of replies takes seconds: leave the SuperLink as long to serve the nodes.
            time.sleep(min(max(wait, now - start), self._deadline - now))

    def unanswered(self) -> list[Message]:
        """Return the messages without a reply so far, in the order they were sent."""
        return list(self._unanswered.values())

    def _pull(self, message_id: str) -> Message | None:
        """Return the reply to a message if there is one; what cannot be one becomes an error reply."""
        try:
            reply = next(iter(self._grid.pull_messages([message_id])), None)
            if reply is None or reply.metadata.reply_to_message_id == message_id:
                return reply
            error = "it claims to answer another message"
        except UNDECODABLE as raised:
            error = f"Flower cannot decode it: {type(raised).__name__}: {raised}"
        return Message(Error(UNREADABLE, f"The reply is not valid: {error}"), reply_to=self._unanswered[message_id])
