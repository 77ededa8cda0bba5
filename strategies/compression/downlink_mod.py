"""The client's half of every downlink: the handler gets the arrays of the model, however they have come."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from strategies import wire
from strategies.client_state import StatesOf
from strategies.compression import downlink
from strategies.compression.differences import VERSION
from strategies.compression.references import Reference


def downlink_mod(states: StatesOf) -> Mod:
    """Return the mod; ``states`` says where a node keeps the models that differences are taken to.

    It restores a model that came compressed; a request with plain arrays passes through. Raises LayoutError
    ("no-reference") where the node does not have the model that was to be changed.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        config = wire.config_of(message)
        if VERSION in config:
            sent = wire.arrays_of(message.content, wire.ARRAYS)
            message.content[wire.ARRAYS] = Reference.of(config, context, states).restored(sent)
        elif downlink.NAMES in config:
            sent = wire.arrays_of(message.content, wire.ARRAYS)
            message.content[wire.ARRAYS] = downlink.restored(sent, config)
        return call_next(message, context)

    return mod
