"""The clients' half of compression: a mod that makes of a flat update what the server's codec reads.

It stands around what clips an update and what puts noise on it, so that it only ever compresses what may leave the
client, and inside of the packing: delta -> clip -> noise -> compress -> pack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable, Mod

from strategies import wire
from strategies.admission import norm
from strategies.client_state import ClientStates, StatesOf, Turn
from strategies.compression import payload
from strategies.compression.codec import Codec, Dense
from strategies.compression.compressed import LARGEST
from strategies.compression.feedback import FEEDBACK, MOMENTUM, ErrorFeedback, asked_codec
from strategies.compression.registry import DEFAULTS
from strategies.errors import StrategyError
from strategies.layout import ModelLayout
from strategies.privacy.clipping import NORM, PREFIX, Clipping, asked
from strategies.privacy.local_dp import DEVIATION, longest
from strategies.updates import AnyArray, FloatVector, Update

LONGEST = LARGEST / 2  # norm of an update to which what was left out can be added without being infinite
KEYS = frozenset({*DEFAULTS, FEEDBACK, MOMENTUM})


def no_states(context: Context, run: str) -> ClientStates:
    """Raise StrategyError: nobody has said where the clients' states are to be kept."""
    raise StrategyError(
        f"The server asks for error feedback ('{FEEDBACK}') or sends differences ('downlink'), but this app keeps no "
        "state of its clients: give 'client_mods' a place for them, as 'states', or set the key to 'off' or 'none'."
    )


def compression_mod(states: StatesOf = no_states) -> Mod:
    """Return the mod; ``states`` says where what error feedback remembers is kept.

    A request that names no codec passes through. One that names a codec which is not known here is refused.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        codec = _asked_codec(wire.config_of(message))
        if isinstance(codec, Dense):
            return call_next(message, context)
        writer = Writer.of(message, context, codec, states)
        reply = call_next(message, context)
        if reply.has_content() and wire.UPDATE in reply.content:
            written = writer.write(wire.update_of("", reply.content).delta)
            reply.content[wire.UPDATE] = wire.record_of({wire.DELTA: payload.written(written)})
        return reply

    return mod


def _asked_codec(config: ConfigRecord) -> Codec:
    return asked_codec({k: value for k, value in config.items() if k in KEYS and isinstance(value, str | int | float)})


@dataclass(frozen=True)
class Writer:
    """Writes a client's update as the settings of its request say; ``turn`` is its turn to remember what is left."""

    codec: Codec
    config: ConfigRecord
    layout: ModelLayout
    turn: Turn | None = None

    @classmethod
    def of(cls, message: Message, context: Context, codec: Codec, states: StatesOf) -> Self:
        """Read the request to a single client."""
        turn = Turn.of(message, context, states) if isinstance(codec, ErrorFeedback) else None
        weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
        return cls(codec, wire.config_of(message), weights.layout, turn)

    def write(self, delta: FloatVector) -> AnyArray:
        """Return the payload of an update."""
        if isinstance(self.codec, ErrorFeedback) and self.turn is not None:
            return self._feed_back(self.codec, delta, self.turn)
        return self._encode(delta)

    def _encode(self, delta: FloatVector) -> AnyArray:
        return self.codec.encode(delta, int(wire.number(self.config, wire.SEED)), self._round_seed)

    def _feed_back(self, codec: ErrorFeedback, delta: FloatVector, turn: Turn) -> AnyArray:
        """Write an update with what was left out before, and remember what is left out now.

        One that the server believes of no client, as it is not finite or too long, is sent alone, and nothing of it is
        remembered: it would be in all later updates.
        """
        kept = codec.recall(turn, self.layout.size)
        if not self._believable(delta):
            codec.keep(turn, kept)
            return self._encode(delta)
        total = codec.added(kept, delta)
        written = self._encode(self._believed(total[0]))
        sent = codec.decode(written, self.layout.size, self._round_seed)
        codec.remember(turn, total, self._counted(sent))
        return written

    @property
    def _round_seed(self) -> int:
        return int(wire.number(self.config, wire.CODEC_SEED))

    @property
    def _most(self) -> float:
        """The largest norm that is believed ('max-update-norm'): under privacy the server clips instead."""
        return LONGEST if asked(self.config) else wire.limits_of(self.config).max_norm or LONGEST

    def _believable(self, delta: FloatVector) -> bool:
        return norm(delta) <= self._most  # false for NaN

    def _believed(self, total: FloatVector) -> FloatVector:
        """Return as much of it as is believed: the rest is sent later."""
        return Clipping(self._most).clip(Update("", total, 1.0), self.layout).delta

    def _counted(self, sent: FloatVector) -> FloatVector:
        """Return what counts of an update that was decoded: under privacy the server clips it once more."""
        clipping = asked(self.config)
        if clipping is None:
            return sent
        private = (key for key in (NORM, DEVIATION) if PREFIX + key in self.config)
        bound = longest({key: wire.number(self.config, PREFIX + key) for key in private}, self.layout.size)
        return replace(clipping, norm=bound).clip(Update("", sent, 1.0), self.layout).delta
