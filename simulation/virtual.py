"""What the grids of this package share: nodes that exist in name only, and one run whose messages have plain ids."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulation.heap import keep_freed_memory

RUN_ID = 1

logger = logging.getLogger(__name__)


class WaitedGrid(Grid):
    """A grid that is waited for: what Flower's interface asks for follows from the next replies."""

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        """Wait for the next replies to these messages; [] when ``timeout`` seconds are over."""
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send the messages as `push_messages` does, and return all replies that come within ``timeout`` seconds."""
        waiting = set(self.push_messages(messages))
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (arrived := self.next_arrivals(waiting, max(0.0, deadline - time.monotonic()))):
            replies.extend(arrived)
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        return replies


class VirtualGrid(WaitedGrid):
    """Nodes without a network. Subclasses say which nodes there are and how messages get their replies."""

    def __init__(self) -> None:
        keep_freed_memory()
        take_identity()
        self._ids = count(1)

    def set_run(self, run: Run) -> None:
        """There is one run, and it is known."""

    @property
    def run(self) -> Run:
        """The run, of which only the id means something here."""
        return Run.create_empty(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message, as Flower's deprecated method does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def _number(self, message: Message) -> str:
        """Give a message its id, as Flower's own grids do."""
        message.metadata.__dict__["_message_id"] = f"message-{next(self._ids)}"
        return message.metadata.message_id


def take_identity() -> None:
    """Set what Flower's Message asks for, and what Flower's own processes set at their start."""
    TaskIdentity.run_id = RUN_ID
    TaskIdentity.node_id = 1
    TaskIdentity.task_id = 1


def answer(client_app: ClientApp, message: Message, context: Context) -> Message:
    """Let a ClientApp answer a message; what it raises becomes an error reply, as in Flower."""
    try:
        return client_app(message=message, context=context)
    except Exception as error:
        logger.exception("The ClientApp failed")
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
