"""Send messages to nodes and take their replies as they arrive, a few at a time, until a deadline.

Flower's ``Grid.send_and_receive`` holds all replies of a round in memory and leaves out late ones without a word. Here
the caller folds each reply into its aggregate before the next is fetched, so that the server's memory does not grow
with the number of clients, and learns which messages were never answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from flwr.app import Message
from flwr.serverapp import Grid

PULL_AT_ONCE = 4
SHORTEST_WAIT, LONGEST_WAIT = 0.005, 0.5
SLOWDOWN = 1.3


class Exchange:
    """One batch of requests and its replies. Iterating ends when all have answered or the deadline has passed."""

    def __init__(self, grid: Grid, messages: Sequence[Message], timeout: float) -> None:
        """Push the messages; ``timeout`` in seconds counts from now."""
        self._grid = grid
        self._deadline = time.monotonic() + timeout
        grid.push_messages(messages)
        self._unanswered = {message.metadata.message_id: message for message in messages}

    def arrived(self) -> Iterator[Message]:
        """Yield the replies that are there now, without waiting; each reply once."""
        waiting = list(self._unanswered)
        for start in range(0, len(waiting), PULL_AT_ONCE):
            for reply in self._grid.pull_messages(waiting[start : start + PULL_AT_ONCE]):
                if self._unanswered.pop(reply.metadata.reply_to_message_id, None) is not None:
                    yield reply

    def replies(self) -> Iterator[Message]:
        """Yield replies in the order of their arrival until all have come or the deadline has passed."""
        wait = SHORTEST_WAIT
        while self._unanswered:
            before = len(self._unanswered)
            yield from self.arrived()
            remaining = self._deadline - time.monotonic()
            if not self._unanswered or remaining <= 0:
                return
            wait = SHORTEST_WAIT if len(self._unanswered) < before else min(wait * SLOWDOWN, LONGEST_WAIT)
            time.sleep(min(wait, remaining))

    def unanswered(self) -> list[Message]:
        """Return the messages without a reply so far, in the order they were sent."""
        return list(self._unanswered.values())
