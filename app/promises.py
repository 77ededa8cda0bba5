"""What a client keeps to whatever a request says: the privacy that the run config promises its user.

A request could ask for less than the run has said: for training without clipping and noise, for loss and accuracy on
the examples that are to stay private. The client has the run config from the SuperLink and holds every request to it.
That does not protect from whoever starts the run, of whom the run config is, nor does it count how often a client is
asked: who wants to be sure reads the config of the run before a node takes part in it.

What an exception says may quote the data. Where they are private the server is told its type alone; the text stands in
the node's own log. The sentences of `describe` on data that do not fit the task are told, and name files and settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from flwr.app import ConfigRecord, Context, Message, MessageType
from flwr.app.user_config import UserConfig
from flwr.clientapp.typing import ClientAppCallable

from app.config import RunConfig
from app.errors import UserError
from app.last_made import LastMade
from strategies import wire
from strategies.privacy.clipping import NORM, PREFIX
from strategies.privacy.local_dp import DEVIATION, LocalDP

KEPT = (NORM, DEVIATION)  # of what local privacy asks of a client


class WithheldError(Exception):
    """An error of which no more may be told than its type."""


@dataclass(frozen=True)
class Promises:
    """Whose privacy is promised: that of whole clients from the server (``local``), or of their single ``examples``."""

    local: LocalDP | None = None
    examples: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> Self:
        """Read them from a run config."""
        local = "local-dp" in (config.strategy, config.privacy)
        return cls(LocalDP.of(config.to_run_config()) if local else None, config.dp_sgd_clip > 0)

    def check_training(self, asked: ConfigRecord) -> None:
        """Raise UserError where a request wants an update with another norm, or other noise, than was promised."""
        if self.local is None:
            return
        promised = self.local.config({})
        for key in KEPT:
            if (given := asked.get(PREFIX + key)) != promised[key]:
                raise UserError(
                    f"The request's '{PREFIX}{key}' is {given!r}, but the run config promises local privacy with "
                    f"{promised[key]:g}: this client sends no update with less, or other, noise."
                )

    def check_evaluation(self, asked: ConfigRecord) -> None:
        """Raise UserError where a request wants exact numbers about data that are private."""
        if self.local is not None:
            raise UserError("The run config promises local privacy: this client tells no loss and no accuracy.")
        if self.examples and asked.get(wire.DATA_PART) == wire.TRAIN_PART:
            raise UserError(
                "The run config promises privacy of the examples that a client trains on ('dp-sgd-clip'): this client "
                "tells no loss and no accuracy on them."
            )

    @contextmanager
    def kept_in_errors(self) -> Iterator[None]:
        """Raise WithheldError instead of an exception from inside, where its text may quote what is private."""
        try:
            yield
        except Exception as error:
            if self.local is None and not self.examples:
                raise
            raise WithheldError(f"{type(error).__name__}, of which only the node's own log may tell more") from error


def keep_promises(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Refuse what the run config does not allow, and keep errors from saying more; a mod around every handler."""
    promises = _promises(context.run_config)
    if message.metadata.message_type == MessageType.TRAIN:
        promises.check_training(wire.config_of(message))
    if message.metadata.message_type == MessageType.EVALUATE:
        promises.check_evaluation(wire.config_of(message))
    with promises.kept_in_errors():
        return call_next(message, context)


@LastMade
def _promises(run_config: UserConfig) -> Promises:
    return Promises.of(RunConfig.from_run_config(run_config))
