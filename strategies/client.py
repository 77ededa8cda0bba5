"""The client half of every strategy: Flower mods around an ordinary handler (full arrays in, full arrays out).

``@app.train(mods=client_mods())`` makes any Flower handler speak to our strategies:

- ``packing_mod`` (outermost) runs the handler once for each client that the message lists, judges each result, and
  answers with all their updates, or with one exact sum where the server's rule is linear and asks for it;
- ``downlink_mod`` reads a model that came in fewer bytes (`strategies.compression.downlink_mod`);
- ``compression_mod`` writes an update in fewer bytes (`strategies.compression.mod`);
- ``noise_mod`` puts the noise of local privacy on an update (`strategies.privacy.local_dp`);
- ``clip_mod`` shortens an update that is longer than the server's privacy allows (`strategies.privacy.clipping`);
- ``delta_mod`` (innermost) turns the handler's full arrays into one flat update, local - global.

What else transforms an update on its way is a mod between the last two. The handler finds its
client in the config as ``client``, the seed of everything random as ``seed`` and, as ``share``, what part of its steps
it is to do. One that does several clients at a time sooner than one by one finds the others in `asked_together`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ConfigRecord, ConfigRecordValues, Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable, Mod

from strategies import wire
from strategies.admission import Limits, Reason, judge
from strategies.aggregators import WeightedMean
from strategies.client_state import StatesOf
from strategies.compression.downlink_mod import downlink_mod
from strategies.compression.mod import compression_mod, no_states
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.layout import LayoutError
from strategies.privacy.clipping import clip_mod
from strategies.privacy.local_dp import ClientNoise, noise_mod, own_noise
from strategies.update_norms import told_norm
from strategies.updates import Update

logger = logging.getLogger(__name__)

DETAIL_LENGTH = 500
BEGINNING, OMISSION = 80, " ... "
OF_MESSAGE = frozenset({*wire.OF_EACH, wire.PART})  # settings that are no single client's

_raised: ContextVar[bool] = ContextVar("client errors are raised", default=False)


@dataclass(frozen=True)
class Together:
    """The clients of a message after the one that the handler is called for.

    ``later`` holds their settings in order. What a handler has done for them ahead it may keep in ``ahead`` by client:
    it is called for each of them all the same, and answers. Nothing is kept beyond the message.
    """

    later: deque[ConfigRecord] = field(default_factory=deque)
    ahead: dict[str, Any] = field(default_factory=dict)


_together: ContextVar[Together | None] = ContextVar("the clients of a message", default=None)


def asked_together() -> Together:
    """Return what else the message asks for that the handler is called for: nothing where it is not packed."""
    return _together.get() or Together()


def client_mods(*more: Mod, noise: ClientNoise = own_noise, states: StatesOf = no_states) -> list[Mod]:
    """Return the mods of a client, outermost first, to be passed to ``@app.train`` and ``@app.evaluate``.

    Those that are added see the message of a single client, and in its reply the flat update, before it is clipped.
    ``noise`` is where a client's own noise comes from (`strategies.privacy.local_dp`), ``states`` where it keeps what
    compression has left out (`strategies.compression.feedback`), and its node the model that differences are taken to.
    """
    around = [packing_mod, downlink_mod(states), compression_mod(states), noise_mod(noise), clip_mod]
    return [*around, *more, delta_mod]


@contextmanager
def client_errors_raised() -> Iterator[None]:
    """Let the exception of a client through, with its own stack trace, instead of answering with a rejection.

    For debugging in one process: it holds for what is called inside, in this thread.
    """
    token = _raised.set(True)
    try:
        yield
    finally:
        _raised.reset(token)


def delta_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Replace the full arrays of a training reply by the flat update, local - global, as float32.

    The reply of an evaluation holds no arrays and passes through.
    """
    weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
    reply = call_next(message, context)
    if reply.has_content() and wire.ARRAYS in reply.content:
        local = wire.arrays_like(weights.layout, wire.arrays_of(reply.content, wire.ARRAYS))
        del reply.content[wire.ARRAYS]
        update = wire.array_record({wire.DELTA: weights.layout.delta(local, weights.flat)})
        wire.filled(reply.content, {wire.UPDATE: update})
    return reply


def packing_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Run the handler for each client listed in the request and answer for all of them with one message.

    An exception in one client is that client's rejection: the others' results travel all the same. A request that
    lists no clients (of a strategy that is not ours) goes to the handler as it is.
    """
    config = wire.config_of(message)
    if wire.CLIENTS not in config:
        return call_next(message, context)
    request = message.content
    pack = Pack.for_request(config)
    with named_together(config) as together:
        for client, own in each_client(config):
            together.later.popleft()
            message.content = wire.filled(request.copy(), {wire.CONFIG: own})  # of the mapping, not of what is in it
            try:
                pack.add(client, _content(call_next(message, context)))
            except Exception as error:
                if _raised.get():
                    raise
                logger.exception("Client %s failed", client)
                pack.reject(client, error)
    message.content = request
    return Message(pack.content(), reply_to=message)


@contextmanager
def named_together(config: ConfigRecord) -> Iterator[Together]:
    """Let `asked_together` say what the message holds, for what is called inside, in this thread.

    The settings are copies: what a mod or handler changes in its client's own does not change what was asked.
    """
    together = Together(deque(own for _, own in each_client(config)))
    token = _together.set(together)
    try:
        yield together
    finally:
        _together.reset(token)


def _content(reply: Message) -> RecordDict:
    if reply.has_error():
        raise RuntimeError(f"the handler answered with an error: {reply.error.reason}")
    return reply.content


def each_client(config: ConfigRecord) -> Iterator[tuple[str, ConfigRecord]]:
    """Split the settings of a packed request into those of each client: lists named ``*s`` become one value each.

    The share of its steps that a client is to do is 1 where the request says nothing.
    """
    clients = wire.text_list(config, wire.CLIENTS)
    seeds = wire.int_list(config, wire.SEEDS)
    shares = wire.float_list(config, wire.SHARES) if wire.SHARES in config else [1.0] * len(clients)
    lists: dict[str, Sequence[ConfigRecordValues]] = {wire.SEEDS: seeds, wire.SHARES: shares}
    for key in (wire.COMMITTED, wire.BYTES_DOWN):
        if key in config:
            lists[key] = wire.int_list(config, key)
    for key, values in lists.items():
        if len(values) != len(clients):
            raise StrategyError(f"The message lists {len(clients)} clients but {len(values)} {key}.")
    if not all(0 < share <= 1 for share in shares):
        raise StrategyError(f"The shares of a message must be above 0 and at most 1, but are {shares}.")
    common = {key: value for key, value in config.items() if key not in OF_MESSAGE}
    for place, client in enumerate(clients):
        own = {wire.OF_EACH[key]: values[place] for key, values in lists.items()}
        yield client, wire.filled(ConfigRecord(), {**common, wire.CLIENT: client, **own})


@dataclass(frozen=True)
class Row:
    """What became of one client: why it gives no update ("" where it gives one), its numbers, and its own update."""

    client: str
    reason: str = ""
    detail: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    update: Mapping[str, Array] = field(default_factory=dict)


@dataclass
class Pack:
    """The results of a message's clients so far: single updates, or their sum where ``summed`` names a weighting."""

    limits: Limits
    summed: str
    norms: bool = False  # whether a sum tells how long each update was
    rows: list[Row] = field(default_factory=list)
    total: FixedPointSum | None = None

    @classmethod
    def for_request(cls, config: ConfigRecord) -> Pack:
        """Read from a request how its answer has to look.

        A single client answers with its own update, unless the request is a part of a larger one that is to be summed.
        """
        several = len(wire.text_list(config, wire.CLIENTS)) > 1 or bool(config.get(wire.PART, False))
        summed = str(config.get(wire.SUMMED, "")) if several else ""
        return cls(wire.limits_of(config), summed, bool(config.get(wire.NORMS, False)))

    def add(self, client: str, content: RecordDict) -> None:
        """Take the handler's result for one client, unless its update has to be rejected."""
        if self.summed:
            self.rows.append(self._sum(wire.update_of(client, content)))
            return
        update = dict(wire.arrays_of(content, wire.UPDATE)) if wire.UPDATE in content else {}
        self.rows.append(Row(client, "", "", wire.scalars(wire.metrics_of(content)), update))

    def reject(self, client: str, error: Exception) -> None:
        """Note that a client gave no update, and why."""
        known = Reason.MALFORMED if isinstance(error, StrategyError) else Reason.ERROR
        reason = error.reason if isinstance(error, LayoutError) else known
        self.rows.append(Row(client, str(reason), _shortened(f"{type(error).__name__}: {error}")))

    def _sum(self, update: Update) -> Row:
        if (reason := judge(update, update.delta.size, self.limits)) is not None:
            return Row(update.client, str(reason), "", update.metrics)
        self.total = self.total or FixedPointSum(update.delta.size)
        self.total.add(update.delta, WeightedMean(self.summed).weight_of(update), update.largest)
        told = {wire.UPDATE_NORM: told_norm(update.delta)} if self.norms else {}
        return Row(update.client, "", "", {**update.metrics, **told})

    def content(self) -> RecordDict:
        """Return the records of the reply."""
        return pack_content(self.rows, self.total)


def pack_content(rows: Sequence[Row], total: FixedPointSum | None) -> RecordDict:
    """Return the records of a reply for these clients: with their own updates, or with the sum of all where given."""
    single = {f"{place}/{name}": array for place, row in enumerate(rows) for name, array in row.update.items()}
    pack: dict[str, ConfigRecordValues] = {
        wire.VERSION: wire.WIRE_VERSION,
        wire.SUMMED: total is not None,
        wire.CLIENTS: [row.client for row in rows],
        wire.REASONS: [row.reason for row in rows],
        wire.DETAILS: [row.detail for row in rows],
    }
    return RecordDict(
        {
            wire.PACK: ConfigRecord(pack),
            wire.METRICS: wire.columns([row.metrics for row in rows]),
            wire.UPDATE: wire.record_of(single) if total is None else wire.array_record(total.to_arrays()),
        }
    )


def _shortened(detail: str) -> str:
    """Return beginning and end of a long error: frameworks put the cause last, below whole call stacks."""
    if len(detail) <= DETAIL_LENGTH:
        return detail
    end = DETAIL_LENGTH - BEGINNING - len(OMISSION)
    return f"{detail[:BEGINNING]}{OMISSION}{detail[-end:]}"
