"""What lies where in a Flower message: names of records and keys, global weights read once, arrays without copies.

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

from strategies.admission import Limits
from strategies.errors import StrategyError
from strategies.fixed_point import MAX_WEIGHT
from strategies.layout import LayoutError, ModelLayout
from strategies.lazy_array import NUMPY_STYPE, LazyArray
from strategies.message_size import ByteCounter as ByteCounter  # part of this module's interface
from strategies.updates import Update

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
UPDATE = "update"
PACK = "pack"
WIRE_VERSION = 1
MAX_METRICS = 1000
ERROR_LENGTH = 300

CLIENTS, CLIENT = "clients", "client"
SEEDS, SEED = "seeds", "seed"
ROUND = "round"
SUMMED = "summed"
NORMS = "norms"  # whether a sum is to tell how long each update in it was
PART = "part"  # whether a request is a part of a larger one, to which all its parts answer together
SHARES, SHARE = "shares", "share"  # of its steps that each client is to do, in (0, 1]; 1 where nothing is said
PROXIMAL_MU = "proximal-mu"  # mu of FedProx's term mu/2 ||w - w_t||^2, a setting; 0 where nothing is said
CORRECTION = "correction"  # arrays like the weights, which the client adds to every gradient, as in SCAFFOLD
DEADLINE, GOAL = "deadline", "goal"  # simulated seconds a round may take, and good updates it needs; 0 = no limit, all
RUN = "run"  # under which name clients keep their states
CHECKPOINTS = "checkpoints"  # the rounds that the server could go back to; 0 = to the beginning
UPDATE_BYTES = "update-bytes"  # that a client's update is expected to take
CODEC_SEED = "codec-seed"  # what the codecs of all clients of a round draw from where they have to agree
COMMITTED, COMMITTED_ROUND = "committed", "committed-round"  # when a client's update counted last; 0 = never
BYTES_DOWN, OWN_BYTES_DOWN = "bytes-down", "own-bytes-down"  # of the model, to each client if it travelled alone
OF_EACH = {
    CLIENTS: CLIENT,
    SEEDS: SEED,
    SHARES: SHARE,
    COMMITTED: COMMITTED_ROUND,
    BYTES_DOWN: OWN_BYTES_DOWN,
}
"""Settings that list a value for each client of a message, and what each client's own is called."""
VERSION, REASONS, DETAILS = "version", "reasons", "details"

DATA_PART, TRAIN_PART = "data-part", "train"  # which of its examples a client evaluates on; its test part by default

LEARNING_RATE = "learning-rate"
NUM_EXAMPLES = "num-examples"
UPDATE_NORM = "update-norm"  # a metric of who is in a sum (`strategies.update_norms`)
STEPS = "steps"
VECTOR = "vector"
DELTA = "delta"

Item = TypeVar("Item", str, int, float)
Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord, RecordDict)


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
    """Read an array, as a rule sent by another process, without copying it; the result is read-only.

    ``Array.numpy`` trusts the header and allocates what it declares before it looks at the data. Here the header must
    agree with the length of the payload, so that nothing is allocated beyond what was received.
    Raises LayoutError ("malformed") for any other payload.
    """
    if isinstance(array, LazyArray) and array.held is not None:
        return array.held
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


def limits_of(config: Mapping[str, ConfigRecordValues]) -> Limits:
    """Read what `limits_record` wrote; where the server set no limits, there are none but those of the sum itself."""
    given = {field.name: config.get(f"limit-{field.name}") for field in fields(Limits)}
    values = {name: float(value) for name, value in given.items() if isinstance(value, int | float)}
    return Limits(**{"max_weight": MAX_WEIGHT, **values})


def array_record(arrays: Mapping[str, npt.NDArray[np.generic]]) -> ArrayRecord:
    """Put named arrays into a record, C-contiguous; they are neither copied nor written as bytes until somebody asks.

    Whoever gives an array away must not write into it any more: see `LazyArray`.
    """
    return record_of({name: LazyArray(array) for name, array in arrays.items()})


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Put these very Arrays into a record, which Flower's constructor would copy, and write all their bytes for it."""
    return filled(ArrayRecord(), arrays)


def update_of(client: str, content: RecordDict) -> Update:
    """Return the flat update in a client's reply, as the mods pass it on; it weighs NaN where no examples are claimed.

    Raises LayoutError where there is none that can be read.
    """
    metrics = scalars(metrics_of(content))
    delta = decode(arrays_of(content, UPDATE)[DELTA]).astype(np.float32, copy=False)
    return Update(client, delta, metrics.get(NUM_EXAMPLES, math.nan), metrics)


def filled(record: Record, values: Mapping[str, object]) -> Record:
    """Put values of the right types into a new record, all at once; returns the record.

    Flower checks each value and each element of each list, through typing objects that it makes anew for every one:
    3 us per value, for every client, of what this side has written itself.
    """
    record.__dict__["_data"].update(values)
    return record


def config_of(message: Message) -> ConfigRecord:
    """Return the settings of a request, an empty record where it has none."""
    return settings_of(message.content)


def settings_of(content: RecordDict, key: str = CONFIG) -> ConfigRecord:
    """Return a record of settings of a content, an empty one where there is none."""
    record = content.get(key)
    return record if isinstance(record, ConfigRecord) else ConfigRecord()


def one_line(text: str, length: int) -> str:
    """Return at most ``length`` characters of a text of another process, as one line that can be written anywhere."""
    written = text[:length].encode(errors="replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in written).split())


def text(record: ConfigRecord, key: str) -> str:
    """Read a string, as sent by another process: anything else is malformed."""
    value = record.get(key)
    if not isinstance(value, str):
        raise StrategyError(f"The key '{key}' of a message must hold a string, but holds a {type(value).__name__}.")
    return value


def text_list(record: ConfigRecord, key: str) -> list[str]:
    """Read a list of strings, as sent by another process: anything else is malformed."""
    return _list_of(str, record, key, "strings")


def int_list(record: ConfigRecord, key: str) -> list[int]:
    """Read a list of whole numbers, as sent by another process: anything else is malformed."""
    return _list_of(int, record, key, "integers")


def checkpoints_of(record: ConfigRecord) -> list[int]:
    """Return the rounds that the server says it could go back to; none where it says nothing."""
    return int_list(record, CHECKPOINTS) if CHECKPOINTS in record else []


def float_list(record: ConfigRecord, key: str) -> list[float]:
    """Read a list of numbers with a fraction, as sent by another process: anything else is malformed."""
    return _list_of(float, record, key, "floats")


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
