"""The model on its way to the clients in fewer bytes. Both halves.

Caldas, Konečný, McMahan, Talwalkar: "Expanding the Reach of Federated Learning by Reducing Client Resource
Requirements", 2018, section 3.1: the server quantizes the weights that it sends, and clients train from what arrives.
Here stochastically with a scale for every block of values, as `strategies.compression.uniform` does, or as float16.

Updates are differences to what arrived, which the server adds to its own weights: these stay exact, every round is
rounded anew, and errors do not add up. What is sent depends on nothing that was sent before: a client that was away, a
node that was restarted or a server that goes on from a checkpoint needs no copy first, and all clients of a round begin
from the same bits. So this saves less than differences to what each client last had would, which only pay where most
clients take part in most rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from strategies import wire
from strategies.compression import payload
from strategies.compression.codec import Codec, Dense
from strategies.compression.registry import DEFAULTS, codec_of
from strategies.errors import StrategyError
from strategies.layout import ModelLayout
from strategies.options import Options, integer, text

DOWNLINK, BITS = "downlink", "downlink-bits"
CODECS = ("none", "float16", "qsgd", "zstd")
PREFIX = "downlink-"  # of the settings in a request
NAMES, SHAPES, DTYPES, SHARED_SEED = (PREFIX + name for name in ("names", "shapes", "dtypes", "seed"))
MODEL = "model"  # the one array in a record of weights that is compressed


def downlink_codec(options: Options) -> Codec:
    """Return how weights are sent, by the keys 'downlink' and 'downlink-bits'."""
    name = text(options, DOWNLINK, "none")
    if name not in CODECS:
        raise StrategyError(f"The key '{DOWNLINK}' is '{name}', but must be one of {list(CODECS)}.")
    bits = integer(options, BITS, 8)
    if not 1 <= bits <= 8:
        raise StrategyError(f"The key '{BITS}' is {bits}, but must be from 1 to 8.")
    return codec_of({"codec": name, "codec-bits": bits})


@dataclass(frozen=True)
class Broadcast:
    """What is sent of the server's weights, what the clients begin from, and the settings by which they know it."""

    record: ArrayRecord
    start: wire.GlobalWeights
    settings: Mapping[str, ConfigRecordValues] = field(default_factory=dict)

    @classmethod
    def of(cls, codec: Codec, record: ArrayRecord, weights: wire.GlobalWeights, seed: int) -> Broadcast:
        """Write the weights, which are those in the record. Raises StrategyError where they are not all floats."""
        if isinstance(codec, Dense):
            return cls(record, weights)
        layout = weights.layout
        if other := {dtype for dtype in layout.dtypes if not dtype.startswith("float")}:
            raise StrategyError(
                f"The model has arrays of {', '.join(sorted(other))}, which must not be rounded: set '{DOWNLINK}' to "
                "'none'."
            )
        written = codec.encode(weights.flat, seed, seed)
        arrays = layout.unflatten(codec.decode(written, layout.size, seed))
        start = wire.GlobalWeights(layout, arrays, layout.flatten(arrays))
        return cls(wire.record_of({MODEL: payload.written(written)}), start, _settings(codec, layout, seed))


def _settings(codec: Codec, layout: ModelLayout, seed: int) -> dict[str, ConfigRecordValues]:
    return {
        **{PREFIX + key: value for key, value in codec.settings.items()},
        NAMES: list(layout.names),
        SHAPES: [",".join(map(str, shape)) for shape in layout.shapes],
        DTYPES: list(layout.dtypes),
        SHARED_SEED: seed,
    }


_last: tuple[ArrayRecord, ArrayRecord] | None = None  # what was read and what it held, as a round's messages share it


def downlink_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Give the handler the arrays of a model that came compressed; any other request passes through."""
    global _last
    config = wire.config_of(message)
    if NAMES in config:
        sent = wire.arrays_of(message.content, wire.ARRAYS)
        if _last is None or _last[0] is not sent:
            _last = sent, _restored(sent, config)
        message.content[wire.ARRAYS] = _last[1]
    return call_next(message, context)


def _restored(sent: ArrayRecord, config: ConfigRecord) -> ArrayRecord:
    shapes = [tuple(int(side) for side in shape.split(",") if side) for shape in wire.text_list(config, SHAPES)]
    names, dtypes = (tuple(wire.text_list(config, key)) for key in (NAMES, DTYPES))
    layout = ModelLayout(names, tuple(shapes), dtypes)
    given = {key: config.get(PREFIX + key) for key in DEFAULTS}
    codec = codec_of({key: value for key, value in given.items() if isinstance(value, str | int | float)})
    if MODEL not in sent:
        raise StrategyError(f"The weights are to be one array '{MODEL}', but {len(sent)} others were sent.")
    flat = codec.decode(payload.read(sent[MODEL]), layout.size, int(wire.number(config, SHARED_SEED)))
    return wire.array_record(dict(zip(names, layout.unflatten(flat), strict=True)))
