"""Take clients out of a message before it is sent, and put what became of them into its reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from strategies import wire
from strategies.admission import Reason
from strategies.client import Row, pack_content
from strategies.packs import split


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
