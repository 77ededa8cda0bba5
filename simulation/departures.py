"""What of the requests of one moment is sent in a simulated world, when each is answered, and what the answer says.

Clients who are lost, late or not needed are taken out of a request before it is sent, and what became of them is put
into its reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from simulation.conditions import Conditions
from simulation.draws import Floats
from simulation.fates import Terms, Work, fates
from strategies import wire
from strategies.admission import Reason
from strategies.client import Row, pack_content
from strategies.packs import split

DECIMALS = 6  # of a second: what is due at one instant is so however its time was added up


@dataclass(frozen=True)
class Cut:
    """A request of which some clients are not run: ``reasons`` and ``details`` say why, "" for those that are.

    ``shares`` are how much of its work each client does. All three are parallel to the request's clients.
    """

    request: Message
    reasons: Sequence[str]
    shares: Sequence[float]
    details: Sequence[str]

    @property
    def clients(self) -> list[str]:
        """Whom the request asks."""
        return wire.text_list(wire.config_of(self.request), wire.CLIENTS)

    @property
    def kept(self) -> list[str]:
        """Those of them that are run."""
        return [client for client, reason in zip(self.clients, self.reasons, strict=True) if not reason]

    @property
    def rejected(self) -> list[Row]:
        """What becomes of the others."""
        rows = map(Row, self.clients, self.reasons, self.details)
        return [row for row in rows if row.reason]

    def message(self) -> Message | None:
        """Return the request to those that are run, None where nobody is; the same message where nothing changes."""
        if not self.kept:
            return None
        content = self.request.content
        if any(share < 1 for share in self.shares):
            config = ConfigRecord({**wire.config_of(self.request), wire.SHARES: list(self.shares)})
            content = RecordDict({**content, wire.CONFIG: config})
        if self.rejected:
            (content,) = split(content, [self.kept])
        if content is self.request.content:
            return self.request
        meta = self.request.metadata
        return Message(content, meta.dst_node_id, meta.message_type, ttl=meta.ttl, group_id=meta.group_id)

    def completed(self, reply: Message) -> Message:
        """Return the reply with the rejections of those that were not run."""
        rejected = self.rejected
        if not rejected:
            return reply
        if reply.has_error():
            failed = [Row(client, str(Reason.ERROR), reply.error.reason or "") for client in self.kept]
            return self._reply([*failed, *rejected])
        pack, metrics = reply.content.get(wire.PACK), reply.content.get(wire.METRICS)
        if isinstance(pack, ConfigRecord) and isinstance(metrics, MetricRecord):  # else it is not of our mods
            for key, attribute in ((wire.CLIENTS, "client"), (wire.REASONS, "reason"), (wire.DETAILS, "detail")):
                pack[key] = [*wire.text_list(pack, key), *(getattr(row, attribute) for row in rejected)]
            for name, column in metrics.items():
                metrics[name] = [*column, *[float("nan")] * len(rejected)] if isinstance(column, list) else column
        return reply

    def not_run(self) -> Message:
        """Return the reply to a request of which nobody is run."""
        return self._reply(self.rejected)

    def _reply(self, rows: Sequence[Row]) -> Message:
        return Message(pack_content(rows, None), reply_to=self.request)


def cuts(
    requests: Sequence[Message], conditions: Conditions, examples: Mapping[str, int], now: float
) -> Iterator[tuple[Cut, float]]:
    """Yield each request with who is not run, and the simulated time at which its reply arrives.

    ``examples`` are those that clients said to have, 1 where they did not. The requests of one round compete for its
    goal.
    """
    for _, together in groupby(requests, key=lambda request: wire.config_of(request).get(wire.ROUND)):
        yield from _cuts_of_round(list(together), conditions, examples, now)


def _cuts_of_round(
    requests: Sequence[Message], conditions: Conditions, examples: Mapping[str, int], now: float
) -> Iterator[tuple[Cut, float]]:
    terms = _terms(requests[0], conditions)
    packs = [wire.text_list(wire.config_of(request), wire.CLIENTS) for request in requests]
    clients = [client for pack in packs for client in pack]
    seeds = [seed for request in requests for seed in wire.int_list(wire.config_of(request), wire.SEEDS)]
    counts = np.array([max(1, examples.get(client, 1)) for client in clients], np.float64)
    work = conditions.work(clients, np.array(seeds, np.uint64), counts, _moved_bytes(requests), now)
    fate = fates(work, terms)
    details = _details(fate.reasons, work, terms)
    start = 0
    for request, pack in zip(requests, packs, strict=True):
        part = slice(start, start + len(pack))
        cut = Cut(request, fate.reasons[part], fate.shares[part].tolist(), details[part])
        yield cut, round(now + float(fate.answered[part].max()), DECIMALS)
        start += len(pack)


def _terms(request: Message, conditions: Conditions) -> Terms:
    config = wire.config_of(request)
    deadline = wire.number(config, wire.DEADLINE) if wire.DEADLINE in config else 0.0
    goal = int(wire.number(config, wire.GOAL)) if wire.GOAL in config else 0
    return Terms(deadline, goal, conditions.patience, conditions.partial)


def _moved_bytes(requests: Sequence[Message]) -> Floats | float:
    """Return how many bytes the model takes down and an update up; nothing is serialized for it.

    It is a number for each client where each gets what it lacks: however they travel, simulated time is the same.
    """
    config = wire.config_of(requests[0])
    down: Floats | float
    if wire.BYTES_DOWN in config:
        own = [wire.int_list(wire.config_of(request), wire.BYTES_DOWN) for request in requests]
        down = np.array([number for numbers in own for number in numbers], np.float64)
    else:
        arrays = wire.arrays_of(requests[0].content, wire.ARRAYS)
        down = float(sum(np.dtype(array.dtype).itemsize * np.prod(array.shape) for array in arrays.values()))
    return down + (wire.number(config, wire.UPDATE_BYTES) if wire.UPDATE_BYTES in config else down)


def _details(reasons: Sequence[str], work: Work, terms: Terms) -> list[str]:
    key = "round-deadline" if terms.limit == terms.deadline else "round-timeout"
    has = f"simulated seconds, but it has {terms.limit:g} ('{key}')"
    part = "of its training is done when it should send ('straggler-share')"

    def detail(took: float, done: float) -> str:
        return f"its work takes {took:.3g} {has}" if took > terms.limit else f"{done:.0%} {part}"

    return [
        detail(took, done) if why == Reason.LATE else ""
        for why, took, done in zip(reasons, work.total.tolist(), work.done.tolist(), strict=True)
    ]
