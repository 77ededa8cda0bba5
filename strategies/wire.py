"""What lies where in a Flower message: names of records and keys, global weights read once, and sizes as serialized.

Requests and plain replies look as in Flower's own Message API apps: full arrays under ``arrays``, settings under
``config``, numbers under ``metrics``. Replies of our own mods carry flat updates under ``update`` and say in ``pack``
which clients they speak for (see ``packing``). Nothing on the wire is ever unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import InflatableObject, no_object_id_recompute

from strategies.admission import Limits
from strategies.errors import StrategyError
from strategies.fixed_point import MAX_WEIGHT
from strategies.layout import LayoutError, ModelLayout

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
UPDATE = "update"
PACK = "pack"
WIRE_VERSION = 1
NUMPY_STYPE = "numpy.ndarray"
MAX_METRICS = 1000
ERROR_LENGTH = 300

CLIENTS, CLIENT = "clients", "client"
SEEDS, SEED = "seeds", "seed"
ROUND = "round"
SUMMED = "summed"
SHARES, SHARE = "shares", "share"  # of its steps that each client is to do, in (0, 1]; 1 where nothing is said
DEADLINE, GOAL = "deadline", "goal"  # simulated seconds a round may take, and good updates it needs; 0 = no limit, all
VERSION, REASONS, DETAILS = "version", "reasons", "details"

NUM_EXAMPLES = "num-examples"
DELTA = "delta"

Item = TypeVar("Item", str, int)


@dataclass(frozen=True)
class GlobalWeights:
    """The global model of one message: its layout, its arrays (read-only) and the same as one flat float32 vector."""

    layout: ModelLayout
    arrays: list[npt.NDArray[np.generic]]
    flat: npt.NDArray[np.float32]


_last_read: tuple[ArrayRecord, GlobalWeights] | None = None


def read_weights(record: ArrayRecord) -> GlobalWeights:
    """Decode the arrays of a request; decoding the same record again costs nothing.

    A packed message trains many clients from one record, and each mod around each of them asks for the weights:
    so the last record read is remembered (one model per process).
    """
    global _last_read
    if _last_read is not None and _last_read[0] is record:
        return _last_read[1]
    arrays = [decode(array) for array in record.values()]
    layout = ModelLayout.from_arrays(arrays, names=list(record.keys()))
    weights = GlobalWeights(layout, arrays, layout.flatten(arrays))
    weights.flat.flags.writeable = False
    _last_read = (record, weights)
    return weights


def decode(array: Array) -> npt.NDArray[np.generic]:
    """Read an array sent by another process without copying it; the result is read-only.

    ``Array.numpy`` trusts the header and allocates what it declares before it looks at the data. Here the header must
    agree with the length of the payload, so that nothing is allocated beyond what was received.
    Raises LayoutError ("malformed") for any other payload.
    """
    if array.stype != NUMPY_STYPE:
        raise LayoutError("malformed", f"An array has the serialization type '{array.stype}', not '{NUMPY_STYPE}'.")
    try:
        return _decode(array.data)
    except Exception as error:  # NumPy parses the header as Python: a hostile one raises whatever a tokenizer can
        raise LayoutError("malformed", f"An array does not hold NumPy's format: {error}"[:ERROR_LENGTH]) from error


def _decode(data: bytes) -> npt.NDArray[np.generic]:
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"its header declares {dtype} of shape {shape}, which the payload does not hold.")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran_order else "C")


def arrays_like(layout: ModelLayout, record: ArrayRecord) -> list[npt.NDArray[np.generic]]:
    """Decode a client's full arrays in the order of the layout.

    They are taken by name where they have the model's names, and by position where they have those that Flower gives to
    a list of arrays ("0", "1", ...). Any others are malformed: to guess which is which would mix up arrays that happen
    to have the same shape. What they hold is for the layout to check.
    """
    if len(record) != len(layout.names):
        raise LayoutError("malformed", f"The model has {len(layout.names)} arrays, but {len(record)} were given.")
    numbers = tuple(str(position) for position in range(len(layout.names)))
    names = next((names for names in (layout.names, numbers) if record.keys() == set(names)), None)
    if names is None:
        unknown = min(set(record) - set(layout.names))[:ERROR_LENGTH]
        raise LayoutError("malformed", f"The model has no array '{unknown}': its arrays must keep their names.")
    return [decode(record[name]) for name in names]


def limits_record(limits: Limits) -> dict[str, ConfigRecordValues]:
    """Return the settings that tell a client by which limits to judge what it sums up."""
    return {f"limit-{field.name}": float(getattr(limits, field.name)) for field in fields(Limits)}


def limits_of(config: ConfigRecord) -> Limits:
    """Read what `limits_record` wrote; where the server set no limits, there are none but those of the sum itself."""
    given = {field.name: config.get(f"limit-{field.name}") for field in fields(Limits)}
    values = {name: float(value) for name, value in given.items() if isinstance(value, int | float)}
    return Limits(**{"max_weight": MAX_WEIGHT, **values})


def array_record(arrays: Mapping[str, npt.NDArray[np.generic]]) -> ArrayRecord:
    """Put named arrays into a record, C-contiguous: NumPy's format would otherwise store them in Fortran order."""
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in arrays.items()})


def config_of(message: Message) -> ConfigRecord:
    """Return the settings of a request, an empty record where it has none."""
    record = message.content.get(CONFIG)
    return record if isinstance(record, ConfigRecord) else ConfigRecord()


def one_line(text: str, length: int) -> str:
    """Return at most ``length`` characters of a text of another process, as one line that can be written anywhere."""
    written = text[:length].encode(errors="replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in written).split())


def text_list(record: ConfigRecord, key: str) -> list[str]:
    """Read a list of strings, as sent by another process: anything else is malformed."""
    return _list_of(str, record, key, "strings")


def int_list(record: ConfigRecord, key: str) -> list[int]:
    """Read a list of whole numbers, as sent by another process: anything else is malformed."""
    return _list_of(int, record, key, "integers")


def _list_of(kind: type[Item], record: ConfigRecord, key: str, named: str) -> list[Item]:
    values = record.get(key)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise StrategyError(
            f"The key '{key}' of a message must hold a list of {named}, but holds {type(values).__name__}."
        )
    return [kind(value) for value in values]


def number(record: ConfigRecord, key: str) -> float:
    """Read a number, as sent by another process: anything else is malformed."""
    value = record.get(key)
    if not isinstance(value, int | float):
        raise StrategyError(f"The key '{key}' of a message must hold a number, but holds a {type(value).__name__}.")
    return value


def arrays_of(content: RecordDict, key: str) -> ArrayRecord:
    """Return an array record of a message, sent by another process: a missing one is malformed."""
    record = content.get(key)
    if not isinstance(record, ArrayRecord):
        raise StrategyError(f"The message has no arrays under '{key}'.")
    return record


def metrics_of(content: RecordDict) -> MetricRecord:
    """Return the metrics of a message, sent by another process: a missing record, or an absurd one, is malformed.

    Their names end in the run's files and charts, so that a client cannot be let to invent any number of them.
    """
    record = content.get(METRICS)
    if not isinstance(record, MetricRecord):
        raise StrategyError(f"The message has no metrics under '{METRICS}'.")
    if len(record) > MAX_METRICS or any(len(name) > ERROR_LENGTH for name in record):
        raise StrategyError(
            f"The message has {len(record)} metrics, but at most {MAX_METRICS} with names of at most {ERROR_LENGTH} "
            "characters are taken."
        )
    return record


def columns(rows: Sequence[Mapping[str, float]]) -> MetricRecord:
    """Turn one mapping of metrics per client into one list per metric; NaN where a client lacks one."""
    names = sorted({name for row in rows for name in row})
    return MetricRecord({name: [float(row.get(name, float("nan"))) for row in rows] for name in names})


def rows(record: MetricRecord, count: int) -> list[dict[str, float]]:
    """Turn one list per metric into one mapping per client: the inverse of `columns`, for what another process sent."""
    for name, values in record.items():
        if not isinstance(values, list) or len(values) != count:
            raise StrategyError(
                f"The metric '{name}' of a reply for {count} clients must be a list of as many numbers."
            )
    lists = {name: values for name, values in record.items() if isinstance(values, list)}
    return [{name: float(values[position]) for name, values in lists.items()} for position in range(count)]


def scalars(record: MetricRecord) -> dict[str, float]:
    """Return the metrics that are single numbers; a client may send lists too, which no rule here uses."""
    return {name: float(value) for name, value in record.items() if isinstance(value, int | float)}


class ByteCounter:
    """Counts bytes of messages as Flower serializes and sends them.

    Flower sends a message as a tree of objects named by their SHA-256, equal ones once; every node fetches all objects
    of its message. ``shared`` is the record that many messages of the round carry: it is hashed once.
    """

    def __init__(self, shared: ArrayRecord | None = None) -> None:
        self._shared = shared
        self._shared_sizes: dict[str, int] | None = None
        self.total = 0

    def add(self, message: Message) -> None:
        """Add the size of one message to ``total``."""
        with no_object_id_recompute():
            self.total += sum(self._sizes(message).values())

    def _sizes(self, obj: InflatableObject) -> dict[str, int]:
        if obj is self._shared and self._shared_sizes is not None:
            return self._shared_sizes
        sizes: dict[str, int] = {}
        for child in (obj.children or {}).values():
            sizes.update(self._sizes(child))
        sizes[obj.object_id] = len(obj.deflate())
        if obj is self._shared:
            self._shared_sizes = sizes
        return sizes
