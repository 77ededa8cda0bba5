"""Understand training replies: from our own mods or from any Flower Message API app, well-meant or not.

A reply becomes an outcome for each client that was asked: an update, a share in an exact sum, or a rejection with its
reason. Whatever another process sends, reading it raises nothing and allocates no more than was received.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode

from strategies import wire
from strategies.admission import Limits, Reason, judge, judge_partial
from strategies.compression.codec import Codec
from strategies.compression.payload import read
from strategies.errors import LayoutError, StrategyError
from strategies.exchange import NOT_SENT, TOO_LARGE, UNREADABLE
from strategies.fixed_point import FixedPointSum
from strategies.updates import AnyArray, PartialSum, Update

DETAIL_LENGTH = 500

REASONS_OF_CODES = {
    UNREADABLE: Reason.MALFORMED,
    NOT_SENT: Reason.NOT_SENT,
    TOO_LARGE: Reason.TOO_LARGE,
    ErrorCode.NODE_UNAVAILABLE: Reason.DROPOUT,
    ErrorCode.MESSAGE_UNAVAILABLE: Reason.LATE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: Reason.LATE,
}
"""Of the other errors, that of a process that died among them, the client is the likely cause."""

SENTENCES = {
    Reason.ERROR: "its training failed",
    Reason.LATE: "its reply had not come when the time was over ('round-timeout')",
    Reason.NOT_SENT: "its message could not be sent: Flower did not take it, as where it is too large",
    Reason.MALFORMED: "its reply could not be understood",
    Reason.TOO_LARGE: "its reply holds more than any answer of so many clients, and was not read",
    Reason.SHAPE: "its arrays have other shapes than the model's",
    Reason.DTYPE: "its arrays have other dtypes than the model's",
    Reason.NOT_FINITE: "its update holds NaN or infinite values, as after a diverging training ('learning-rate')",
    Reason.WEIGHT: (
        "its number of examples is missing, not positive, above 'max-client-examples' or above what it described itself"
    ),
    Reason.NORM: "its update is larger than 'max-update-norm' or the range of the sum allows",
    Reason.DROPOUT: "it left in the middle of the round",
    Reason.SURPLUS: "it was not needed any more, as enough others had answered ('over-selection')",
    Reason.STALE: "its update started from a model that is too old by now ('max-staleness')",
    Reason.ZEROED: "its update holds a value far beyond those that updates usually hold ('zeroing')",
    Reason.NO_REFERENCE: "its node has lost the model that was to be changed ('downlink'), and gets all next time",
    Reason.NOISE: "it does not state the noise that local privacy asks for: the client put none on, or other noise",
}


@dataclass(frozen=True)
class Rejection:
    """An update that does not count: whose, why, and what is known of it.

    ``detail`` may be anything that a client sent: it is cut, and kept to one line of characters that can be written.
    """

    client: str
    reason: Reason
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", wire.one_line(self.detail, DETAIL_LENGTH))

    def __str__(self) -> str:
        """Say it in words."""
        return f"client {self.client}: {self.detail or SENTENCES[self.reason]}"


Outcome = Update | PartialSum | Rejection


@dataclass(frozen=True)
class Pack:
    """The header of a reply of our mods: the clients it speaks for and what became of each."""

    summed: bool
    clients: list[str]
    reasons: list[str]
    details: list[str]
    metrics: list[dict[str, float]]

    @classmethod
    def of(cls, content: RecordDict, asked: Sequence[str]) -> Pack:
        """Read the header; raises StrategyError where it is not the answer to what was asked."""
        record = content[wire.PACK]
        if not isinstance(record, ConfigRecord) or record.get(wire.VERSION) != wire.WIRE_VERSION:
            raise StrategyError(f"The reply is not of the wire version {wire.WIRE_VERSION} that this server speaks.")
        clients = wire.text_list(record, wire.CLIENTS)
        if sorted(clients) != sorted(asked):
            raise StrategyError(f"The reply speaks for {len(clients)} clients, but not for exactly those asked.")
        reasons, details = wire.text_list(record, wire.REASONS), wire.text_list(record, wire.DETAILS)
        metrics = wire.rows(wire.metrics_of(content), len(clients))
        if not len(clients) == len(reasons) == len(details):
            raise StrategyError("The lists of a reply must be as long as its list of clients.")
        return cls(bool(record.get(wire.SUMMED, False)), clients, reasons, details, metrics)

    def rejections(self) -> Iterator[Rejection]:
        """Yield the clients that gave no update."""
        for client, reason, detail in zip(self.clients, self.reasons, self.details, strict=True):
            if reason:
                yield Rejection(client, Reason(reason) if reason in set(Reason) else Reason.MALFORMED, detail)

    def accepted(self) -> list[int]:
        """Return the positions of the clients that gave an update."""
        return [position for position, reason in enumerate(self.reasons) if not reason]


@dataclass(frozen=True)
class ReplyReader:
    """Reads the replies to one round's training requests.

    ``weights`` are those the clients started from; ``clip`` is the privacy's bound on an update, applied again after
    decoding; ``summed`` tells whether the round's rule takes partial sums. ``described`` holds how many examples
    clients said to have before the training, the most that each can claim; a client that is not in it said nothing.
    ``round_seed`` is what the clients' codecs have in common. ``stated`` holds the metrics that each client must
    answer, as that it has put on the noise that local privacy promises; of a sum, all of its clients.
    """

    weights: wire.GlobalWeights
    codec: Codec
    clip: Callable[[Update], Update]
    limits: Limits
    summed: bool
    described: Mapping[str, int] = field(default_factory=dict)
    round_seed: int = 0
    stated: Mapping[str, float] = field(default_factory=dict)

    def read(self, reply: Message, asked: Sequence[str]) -> list[Outcome]:
        """Return what became of each client in ``asked``; never raises for what a client sent."""
        if reply.has_error():
            reason = REASONS_OF_CODES.get(reply.error.code, Reason.ERROR)
            return [Rejection(client, reason, reply.error.reason or "") for client in asked]
        try:
            return list(self._outcomes(reply.content, asked))
        except LayoutError as error:
            return [Rejection(client, Reason(error.reason), str(error)) for client in asked]
        except Exception as error:  # of which kinds a hostile reply can raise, nobody can list
            return [Rejection(client, Reason.MALFORMED, f"{type(error).__name__}: {error}") for client in asked]

    def _outcomes(self, content: RecordDict, asked: Sequence[str]) -> Iterator[Outcome]:
        if wire.PACK not in content:
            yield self._plain(content, asked)
            return
        pack = Pack.of(content, asked)
        yield from pack.rejections()
        arrays = wire.arrays_of(content, wire.UPDATE)
        if pack.summed:
            yield from self._sum(pack, arrays)
            return
        by_position = payloads(arrays)
        if strangers := by_position.keys() - set(map(str, pack.accepted())):
            raise StrategyError(f"The reply holds updates of {len(strangers)} clients that it does not speak for.")
        for position in pack.accepted():
            yield self._single(pack, by_position.get(str(position), {}), position)

    def _plain(self, content: RecordDict, asked: Sequence[str]) -> Outcome:
        """Read the reply of a stock Flower app: full arrays and the number of examples, of one client."""
        if len(asked) != 1:
            raise StrategyError(f"A plain reply speaks for one client, but {len(asked)} were asked.")
        metrics = wire.scalars(wire.metrics_of(content))
        local = wire.arrays_like(self.weights.layout, wire.arrays_of(content, wire.ARRAYS))
        delta = self.weights.layout.delta(local, self.weights.flat)
        return self._judged(Update(asked[0], delta, metrics.get(wire.NUM_EXAMPLES, np.nan), metrics))

    def _single(self, pack: Pack, payload: Mapping[str, Array], position: int) -> Outcome:
        client, metrics = pack.clients[position], pack.metrics[position]
        try:
            delta = self.codec.decode(_only_array(payload), self.weights.layout.size, self.round_seed)
        except LayoutError as error:
            return Rejection(client, Reason(error.reason), str(error))
        return self._judged(Update(client, delta, metrics.get(wire.NUM_EXAMPLES, np.nan), metrics))

    def _sum(self, pack: Pack, arrays: ArrayRecord) -> Iterator[Outcome]:
        if not self.summed:
            raise StrategyError("The reply is a sum, but this strategy needs each client's own update.")
        positions = pack.accepted()
        arrays_by_name = {name: wire.decode(array) for name, array in arrays.items()}
        total = FixedPointSum.from_arrays(arrays_by_name, self.weights.layout.size)
        clients = [pack.clients[position] for position in positions]
        metrics = {client: pack.metrics[position] for client, position in zip(clients, positions, strict=True)}
        partial = PartialSum(total, dict(zip(clients, total.weights, strict=True)), metrics)
        reason = judge_partial(partial, self.weights.layout.size, self.limits, self.described)
        reason = reason or self._unstated(metrics.values())
        yield from [partial] if reason is None else [Rejection(client, reason) for client in clients]

    def _judged(self, update: Update) -> Outcome:
        update = self.clip(update)
        reason = judge(update, self.weights.layout.size, self.limits, self.described)
        reason = reason or self._unstated([update.metrics])
        return update if reason is None else Rejection(update.client, reason)

    def _unstated(self, rows: Iterable[Mapping[str, float]]) -> Reason | None:
        stated = all(row.get(name) == value for row in rows for name, value in self.stated.items())
        return None if stated else Reason.NOISE


def _only_array(payload: Mapping[str, Array]) -> AnyArray:
    if set(payload) != {wire.DELTA}:
        raise LayoutError("malformed", f"An update is one array '{wire.DELTA}', but {len(payload)} were sent.")
    return read(payload[wire.DELTA])


def payloads(arrays: ArrayRecord) -> dict[str, dict[str, Array]]:
    """Group "<position>/<name>" by position, in one pass however many arrays there are."""
    grouped: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        position, _, name = key.partition("/")
        grouped.setdefault(position, {})[name] = array
    return grouped
