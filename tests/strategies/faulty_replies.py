"""Replies to draw from for fuzzing: honest ones of every form, and faults with the reason each has to be counted under.

A fault is written down beside its reason, from the list of what may go wrong, and not from what the server makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode

from strategies import wire
from strategies.client import Row, pack_content
from strategies.compression import payload
from strategies.compression.codec import Codec, Dense
from strategies.fixed_point import FixedPointSum
from tests.strategies.toy_federation import BIAS, IDS, KERNEL, SIZE, header, npy

Vector = np.ndarray
STEPS = 3
PLAIN, PACK, CODED, SUM = "plain", "pack", "coded", "sum"  # what a reply may look like


def examples(client: str) -> float:
    return 10.0 * (int(client) + 1)


def delta_of(client: str) -> Vector:
    """With thirds, so that sums round."""
    return np.float32(int(client) + 1) * np.array([1, -2, 0.5, 4, -0.25], np.float32) / np.float32(3)


@dataclass(frozen=True)
class Writer:
    """Writes replies of one form; ``codec`` is that of the clients."""

    form: str
    codec: Codec = Dense()  # noqa: RUF009 - a frozen value

    def array(self, delta: Vector) -> Array:
        """One client's update as it travels."""
        if isinstance(self.codec, Dense):
            return Array(delta)
        return payload.written(self.codec.encode(delta, 3, 0))

    def honest(self, clients: Sequence[str], failed: Sequence[str] = ()) -> RecordDict:
        """What these clients send, of whom some say themselves that they have failed."""
        if self.form == PLAIN:
            return self._plain(clients[0])
        metrics = {one: {"num-examples": examples(one), "loss": 0.5, "steps": float(STEPS)} for one in clients}
        rows = [
            Row(one, "error") if one in failed else Row(one, "", "", metrics[one], {wire.DELTA: self._own(one)})
            for one in clients
        ]
        if self.form != SUM:
            return pack_content(rows, None)
        total = FixedPointSum(SIZE)
        for one in clients:
            total.add(delta_of(one), examples(one))
        return pack_content(rows, total)

    def _own(self, client: str) -> Array:
        return self.array(delta_of(client))

    def _plain(self, client: str) -> RecordDict:
        delta = delta_of(client)
        arrays = {"kernel": KERNEL + delta[:4].reshape(2, 2), "bias": BIAS + delta[4:]}
        metrics = MetricRecord({"num-examples": examples(client), "loss": 0.5, "steps": STEPS})
        return RecordDict({"arrays": wire.array_record(arrays), "metrics": metrics})


# The values of an update, before they are written: what becomes of them, and the reason.

Values = Callable[[Vector], Vector]


def with_one(value: float) -> Values:
    def put(values: Vector) -> Vector:
        changed = np.array(values)
        changed.reshape(-1)[-1] = value
        return changed

    return put


NOT_FINITE: dict[str, Values] = {
    "nan": with_one(np.nan),
    "infinite": with_one(np.inf),
    "minus-infinite": with_one(-np.inf),
    "all-nan": lambda values: np.full_like(values, np.nan),
}
NORM: dict[str, Values] = {
    "far": with_one(1e3),
    "further": with_one(-1e12),
    "all-far": lambda values: np.full_like(values, 1e5),
}
SHAPE: dict[str, Values] = {
    "broadcast": lambda values: values.reshape(-1)[:1],
    "scalar": lambda values: np.array(values.reshape(-1)[0]),
    "one-more-axis": lambda values: values[None],
    "column": lambda values: values.reshape(-1, 1),
    "longer": lambda values: np.append(values, np.float32(1)),
    "shorter": lambda values: values.reshape(-1)[:-1],
    "nothing": lambda values: values.reshape(-1)[:0],
}
DTYPE: dict[str, Values] = {
    dtype: lambda values, dtype=dtype: values.astype(dtype)  # type: ignore[misc]
    for dtype in ("f8", "f2", "i4", "i8", "i2", "?", "c8", "U4", "S4")
}

# The arrays that hold an update, as they are named: all of them are malformed.

Arrays = Callable[[str, Array], Mapping[str, Array]]


def holding(array: Array, data: bytes) -> Array:
    return Array(array.dtype, array.shape, array.stype, data)


ARRAYS: dict[str, Arrays] = {
    "missing": lambda name, array: {},
    "renamed": lambda name, array: {f"{name}s": array},
    "extra": lambda name, array: {name: array, f"{name}/2": array},
    "pickle": lambda name, array: {name: Array(array.dtype, array.shape, "pickle", array.data)},
    "empty": lambda name, array: {name: holding(array, b"")},
    "cut": lambda name, array: {name: holding(array, array.data[:-1])},
    "longer": lambda name, array: {name: holding(array, array.data + b"\0")},
    "noise": lambda name, array: {name: holding(array, bytes(range(100)))},
    "objects": lambda name, array: {name: npy(header("(1,)", "'|O'"), b"\0" * 8)},
    "giant": lambda name, array: {name: npy(header("(4000000000,)"), b"\0" * 64)},
    "negative": lambda name, array: {name: npy(header("(-1, -5)"), b"\0" * 20)},
    "nested": lambda name, array: {name: npy("(" * 900)},
}

WEIGHTS = (-5.0, -0.0, 0.0, 1e-300, 1e12, 1e300, np.nan, np.inf, -np.inf)
STEPS_FAULTS = (0.0, -1.0, 2.5, np.nan, np.inf)  # where an algorithm counts on them

# Sums: what becomes of total, int64, and weights, float64, and the reason.

Sum = Callable[[Vector, Vector], Mapping[str, Vector | Array]]


def of(total: Vector | Array, weights: Vector | Array) -> Mapping[str, Vector | Array]:
    return {"total": total, "weights": weights}


SUMS: dict[str, tuple[Sum, str]] = {
    "broadcast": (lambda total, weights: of(total[:1], weights), "shape"),
    "matrix": (lambda total, weights: of(total[None], weights), "shape"),
    "weights-matrix": (lambda total, weights: of(total, weights[None]), "shape"),
    "floats": (lambda total, weights: of(total.astype("f8"), weights), "dtype"),
    "other-byte-order": (lambda total, weights: of(total.astype(">i8"), weights), "dtype"),
    "whole-weights": (lambda total, weights: of(total, weights.astype("i8")), "dtype"),
    "nan-total": (lambda total, weights: of(np.full(SIZE, np.nan), weights), "dtype"),
    "fewer-weights": (lambda total, weights: of(total, weights[:1]), "malformed"),
    "more-weights": (lambda total, weights: of(total, np.append(weights, 1.0)), "malformed"),
    "no-weights": (lambda total, weights: {"total": total}, "malformed"),
    "renamed": (lambda total, weights: {"sum": total, "weights": weights}, "malformed"),
    "extra": (lambda total, weights: {**of(total, weights), "more": total}, "malformed"),
    "nothing": (lambda total, weights: {}, "malformed"),
    "least": (lambda total, weights: of(np.full(SIZE, -(2**63)), weights), "malformed"),
    "greatest": (lambda total, weights: of(np.full(SIZE, 2**63 - 1), weights), "norm"),
    "far": (lambda total, weights: of(total * 10**5, weights), "norm"),
    "giant": (lambda total, weights: of(npy(header("(4000000000,)"), b"\0" * 64), weights), "malformed"),
    **{
        f"weight-{bad}": (lambda total, weights, bad=bad: of(total, np.append(weights[:-1], bad)), "weight")  # type: ignore[misc]
        for bad in WEIGHTS
    },
    # Together they weigh what they said they have, but not each.
    "weights-shifted": (lambda total, weights: of(total, weights + np.array([4.0, -4.0])), "weight"),
}

# What is wrong with a reply as a whole.

Whole = Callable[[RecordDict, Sequence[str]], RecordDict | Error]


def told(**changes: object) -> Whole:
    """Change the header of a pack."""

    def change(content: RecordDict, clients: Sequence[str]) -> RecordDict:
        pack = {**dict(content["pack"]), **changes}
        return RecordDict({**content, "pack": ConfigRecord(pack)})  # type: ignore[arg-type]

    return change


def said(**changes: object) -> Whole:
    """Change the metrics."""

    def change(content: RecordDict, clients: Sequence[str]) -> RecordDict:
        return RecordDict({**content, "metrics": MetricRecord({**dict(content["metrics"]), **changes})})  # type: ignore[arg-type]

    return change


def without(name: str) -> Whole:
    return lambda content, clients: RecordDict({key: record for key, record in content.items() if key != name})


def beside(**records: ArrayRecord | ConfigRecord | MetricRecord) -> Whole:
    return lambda content, clients: RecordDict({**content, **records})


def error(code: int) -> Whole:
    return lambda content, clients: Error(code, "gone\nwrong")


TINY = Array(np.zeros(1, np.float32))
ALL_FORMS: dict[str, tuple[Whole, str]] = {
    **{f"error-{code}": (error(code), "error") for code in (0, 2, 77, ErrorCode.CLIENT_APP_CRASHED)},
    "node-gone": (error(ErrorCode.NODE_UNAVAILABLE), "dropout"),
    "expired": (error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE), "late"),
    "nothing": (lambda content, clients: RecordDict(), "malformed"),
    "no-metrics": (without("metrics"), "malformed"),
    "metrics-are-settings": (beside(metrics=ConfigRecord({"num-examples": 10.0})), "malformed"),
    "long-metric": (said(**{"x" * 301: [1.0, 1.0]}), "malformed"),
    "many-metrics": (beside(metrics=MetricRecord({f"m{k}": [1.0, 1.0] for k in range(1001)})), "malformed"),
    "array-bomb": (beside(more=wire.record_of({str(k): TINY for k in range(500)})), "too-large"),
    "giant-array": (beside(more=wire.array_record({"x": np.zeros(200_000, np.float32)})), "too-large"),
    "giant-text": (beside(more=ConfigRecord({"x": "y" * 10**6})), "too-large"),
    "giant-metric": (beside(metrics=MetricRecord({"num-examples": [0.5] * 10**5})), "too-large"),
}
OF_PACKS: dict[str, tuple[Whole, str]] = {
    **ALL_FORMS,
    "no-update": (without("update"), "malformed"),
    "update-is-metrics": (beside(update=MetricRecord({"0/delta": 1.0})), "malformed"),
    "pack-is-metrics": (beside(pack=MetricRecord({"version": 1})), "malformed"),
    "other-version": (told(version=2), "malformed"),
    "for-others": (told(clients=["7", "8"]), "malformed"),
    "of-another-message": (
        lambda content, clients: told(clients=[one for one in IDS if one not in clients][:2])(content, clients),
        "malformed",
    ),
    "for-one-twice": (lambda content, clients: told(clients=[clients[0]] * 2)(content, clients), "malformed"),
    "for-more": (lambda content, clients: told(clients=[*clients, "9"])(content, clients), "malformed"),
    "for-fewer": (lambda content, clients: told(clients=clients[:1])(content, clients), "malformed"),
    "for-numbers": (told(clients=[1, 2]), "malformed"),
    "short-reasons": (told(reasons=[""]), "malformed"),
    "short-details": (told(details=[]), "malformed"),
    "one-number-for-two": (said(loss=0.5), "malformed"),
    "three-numbers-for-two": (said(loss=[0.5, 0.5, 0.5]), "malformed"),
    "reason-unknown": (told(reasons=["I was busy"] * 2), "malformed"),
}
OF_SINGLES: dict[str, tuple[Whole, str]] = {
    **OF_PACKS,
    "arrays-of-nobody": (
        lambda content, clients: RecordDict(
            {**content, "update": ArrayRecord({**dict(content["update"]), "2/delta": TINY})}
        ),  # type: ignore[call-overload]
        "malformed",
    ),
}
OF_PLAIN: dict[str, tuple[Whole, str]] = {
    **ALL_FORMS,
    "no-arrays": (without("arrays"), "malformed"),
    "arrays-are-metrics": (beside(arrays=MetricRecord({"kernel": 1.0})), "malformed"),
    "no-weight": (
        lambda content, clients: RecordDict({**content, "metrics": MetricRecord({"loss": 0.5})}),
        "weight",
    ),
    "list-of-weights": (said(**{"num-examples": [10.0]}), "weight"),
}

WHOLES = {PLAIN: OF_PLAIN, PACK: OF_SINGLES, CODED: OF_SINGLES, SUM: OF_PACKS}


def claiming_other(content: RecordDict, clients: Sequence[str]) -> RecordDict:
    """Of an array only what its bytes say counts."""
    key = wire.UPDATE if wire.UPDATE in content else wire.ARRAYS
    arrays = wire.arrays_of(content, key)
    other = {name: Array("float64", (10**9,), array.stype, array.data) for name, array in arrays.items()}
    return RecordDict({**content, key: wire.record_of(other)})


HARMLESS: dict[str, Whole] = {
    "claims-of-arrays": claiming_other,
    "odd-metrics": said(more=[np.nan, np.inf], most=[1e308, -1e308]),
    "more-records": beside(state=wire.array_record({"x": np.zeros(3, np.int8)}), note=ConfigRecord({"x": b"\0"})),
}
HARMLESS_PLAIN: dict[str, Whole] = {**HARMLESS, "odd-metric": said(accuracy=np.nan, loss=np.inf, more=-1e308)}
