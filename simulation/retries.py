"""What becomes of a message whose worker died: its clients run again, each by itself, and answer with one reply.

In the second attempt every client is a call of its own, so that a client that kills its worker (by an abort of its
native code, or by taking all memory) costs itself and nobody else. A message that lists no clients runs again whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from simulation.workers import Answer
from strategies import wire
from strategies.errors import StrategyError
from strategies.packs import merged, rejected, split

DIED = "its worker process died twice, by its own code or for want of memory"


@dataclass(eq=False)
class Letter:
    """A message on its way to its reply. ``clients`` are those it lists: none where only its own node can answer."""

    message: Message
    clients: list[str] = field(init=False)
    _parts: list[RecordDict] = field(default_factory=list)
    _tried: bool = False

    def __post_init__(self) -> None:
        config = wire.config_of(self.message)
        self.clients = wire.text_list(config, wire.CLIENTS) if wire.CLIENTS in config else []

    def take(self, content: RecordDict, answer: Answer | None) -> list[RecordDict] | Message:
        """Take what came of a call; return the contents to call with next ([] = wait for the others), or the reply.

        ``content`` is what was called for, ``answer`` None where the worker died.
        """
        if answer is None and not self._tried:
            self._tried = True
            return split(content) if self.clients else [content]
        if content is self.message.content:
            return _reply(self.message, answer)
        self._parts.append(_part(content, answer))
        if len(self._parts) < len(self.clients):
            return []
        return self._joined()

    def _joined(self) -> Message:
        try:
            return Message(merged(self._parts, self.clients), reply_to=self.message)
        except (
            StrategyError,
            OverflowError,
        ) as error:  # what the ClientApp answered is no pack, or adds up to too much
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=self.message)


def _reply(message: Message, answer: Answer | None) -> Message:
    if answer is None:
        return Message(Error(ErrorCode.CLIENT_APP_CRASHED, DIED), reply_to=message)
    if answer.content is None:
        return Message(Error(*answer.error), reply_to=message)
    return Message(answer.content, reply_to=message)


def _part(content: RecordDict, answer: Answer | None) -> RecordDict:
    if answer is not None and answer.content is not None:
        return answer.content
    return rejected(content, DIED if answer is None else answer.error[1])
