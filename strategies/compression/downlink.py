"""The model on its way to the clients in fewer bytes: how it is written each round anew, and read.

Caldas, Konečný, McMahan, Talwalkar: "Expanding the Reach of Federated Learning by Reducing Client Resource
Requirements", 2018, section 3.1: the server quantizes the weights that it sends, and clients train from what arrives.
Here stochastically with a scale for every block of values, as `strategies.compression.uniform` does, or as float16.

Updates are differences to what arrived, which the server adds to its own weights: these stay exact, every round is
rounded anew, and errors do not add up. What is sent depends on nothing that was sent before: a client that was away, a
node that was restarted or a server that goes on from a checkpoint needs no copy first, and all clients of a round begin
from the same bits. So this saves less than what `strategies.compression.differences` sends, which pays where clients
take part in most rounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues

from strategies import wire
from strategies.compression import payload
from strategies.compression.codec import Codec, Dense
from strategies.compression.registry import DEFAULTS, codec_of
from strategies.errors import StrategyError
from strategies.layout import ModelLayout
from strategies.options import Options, integer, text
from strategies.updates import AnyArray, FloatVector

DOWNLINK, BITS = "downlink", "downlink-bits"
CODECS = ("none", "float16", "qsgd", "zstd")
DIFFERENCE = "difference"
PREFIX = "downlink-"  # of the settings in a request
NAMES, SHAPES, DTYPES, SHARED_SEED = (PREFIX + name for name in ("names", "shapes", "dtypes", "seed"))
MODEL = "model"  # the one array in a record of weights that is compressed


@dataclass(frozen=True)
class Differences:
    """What has changed since a client last had the model, written by this codec."""

    codec: Codec


Downlink = Codec | Differences


def downlink_of(options: Options) -> Downlink:
    """Return how weights are sent, by the keys 'downlink' and 'downlink-bits'."""
    name = text(options, DOWNLINK, "none")
    if name not in (*CODECS, DIFFERENCE):
        raise StrategyError(f"The key '{DOWNLINK}' is '{name}', but must be one of {[*CODECS, DIFFERENCE]}.")
    bits = integer(options, BITS, 8)
    if not 1 <= bits <= 8:
        raise StrategyError(f"The key '{BITS}' is {bits}, but must be from 1 to 8.")
    if name == DIFFERENCE:
        return Differences(codec_of({"codec": "qsgd", "codec-bits": bits}))
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
        refuse_whole_numbers(layout)
        written = codec.encode(weights.flat, seed, seed)
        arrays = layout.unflatten(codec.decode(written, layout.size, seed))
        start = wire.GlobalWeights(layout, arrays, layout.flatten(arrays))
        settings = {**described(codec, layout), SHARED_SEED: seed}
        return cls(wire.record_of({MODEL: payload.written(written)}), start, settings)

    def to(self, clients: Sequence[str]) -> Broadcast:
        """Return what is sent to these clients in one message: the same to all."""
        return self


class Outgoing(Protocol):
    """A model that is to be sent."""

    @property
    def start(self) -> wire.GlobalWeights:
        """What the clients begin from."""

    def to(self, clients: Sequence[str]) -> Broadcast:
        """Return what is sent to these clients in one message."""


def refuse_whole_numbers(layout: ModelLayout) -> None:
    """Raise StrategyError where the arrays are not all floats."""
    if other := {dtype for dtype in layout.dtypes if not dtype.startswith("float")}:
        raise StrategyError(
            f"The model has arrays of {', '.join(sorted(other))}, which must not be rounded: set '{DOWNLINK}' to "
            "'none'."
        )


def described(codec: Codec, layout: ModelLayout) -> dict[str, ConfigRecordValues]:
    """Return the settings of which `layout_of` and `codec_of_request` read the model's layout and the codec."""
    return {
        **{PREFIX + key: value for key, value in codec.settings.items()},
        NAMES: list(layout.names),
        SHAPES: [",".join(map(str, shape)) for shape in layout.shapes],
        DTYPES: list(layout.dtypes),
    }


def layout_of(config: ConfigRecord) -> ModelLayout:
    """Read the layout of the model that a request carries."""
    shapes = [tuple(int(side) for side in shape.split(",") if side) for shape in wire.text_list(config, SHAPES)]
    names, dtypes = (tuple(wire.text_list(config, key)) for key in (NAMES, DTYPES))
    return ModelLayout(names, tuple(shapes), dtypes)


def codec_of_request(config: ConfigRecord) -> Codec:
    """Read by which codec the model that a request carries is written."""
    given = {key: config.get(PREFIX + key) for key in DEFAULTS}
    return codec_of({key: value for key, value in given.items() if isinstance(value, str | int | float)})


def payload_of(sent: ArrayRecord, name: str) -> AnyArray:
    """Return what a codec is to decode; raises StrategyError where it is not there."""
    if name not in sent:
        raise StrategyError(f"The weights are to hold an array '{name}', but {len(sent)} others were sent.")
    return payload.read(sent[name])


_last: tuple[ArrayRecord, ArrayRecord] | None = None  # what was read and what it held, as a round's messages share it


def restored(sent: ArrayRecord, config: ConfigRecord) -> ArrayRecord:
    """Return the arrays of a model that was written by `Broadcast.of`."""
    global _last
    if _last is None or _last[0] is not sent:
        layout = layout_of(config)
        written, seed = payload_of(sent, MODEL), int(wire.number(config, SHARED_SEED))
        _last = sent, named(layout, codec_of_request(config).decode(written, layout.size, seed))
    return _last[1]


def named(layout: ModelLayout, flat: FloatVector) -> ArrayRecord:
    """Return the arrays of a flat model, float32 [size], as a request without compression carries them."""
    return wire.array_record(dict(zip(layout.names, layout.unflatten(flat), strict=True)))
