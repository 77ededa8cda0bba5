"""Take clients out of a message before it is sent, and put what became of them into its reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, ConfigRecordValues, Message, MetricRecord, RecordDict

from strategies import wire
from strategies.admission import Reason

PER_CLIENT = (wire.CLIENTS, wire.SEEDS, wire.SHARES)


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
    def kept(self) -> list[int]:
        """The positions of the clients that are run."""
        return [position for position, reason in enumerate(self.reasons) if not reason]

    def message(self) -> Message | None:
        """Return the request to those that are run, None where nobody is; the same message where nothing changes."""
        if not self.kept:
            return None
        if len(self.kept) == len(self.reasons) and all(share == 1 for share in self.shares):
            return self.request
        config = wire.config_of(self.request)
        columns: dict[str, ConfigRecordValues] = {wire.SHARES: list(self.shares)}
        columns |= {key: config[key] for key in PER_CLIENT if key in config and key != wire.SHARES}
        kept = {key: [values[position] for position in self.kept] for key, values in columns.items()}  # type: ignore[index]
        content = RecordDict({**self.request.content, wire.CONFIG: ConfigRecord({**config, **kept})})  # type: ignore[dict-item]
        meta = self.request.metadata
        return Message(content, meta.dst_node_id, meta.message_type, ttl=meta.ttl, group_id=meta.group_id)

    def completed(self, reply: Message) -> Message:
        """Return the reply with the rejections of those that were not run."""
        if len(self.kept) == len(self.reasons):
            return reply
        if reply.has_error():
            detail = reply.error.reason or ""
            return self.answer([str(Reason.ERROR)] * len(self.kept), [detail] * len(self.kept))
        pack, metrics = reply.content.get(wire.PACK), reply.content.get(wire.METRICS)
        if not isinstance(pack, ConfigRecord) or not isinstance(metrics, MetricRecord):
            return reply
        added = len(self.reasons) - len(self.kept)
        clients, reasons, details = self._rejected()
        for key, values in ((wire.CLIENTS, clients), (wire.REASONS, reasons), (wire.DETAILS, details)):
            pack[key] = [*wire.text_list(pack, key), *values]
        for name, column in metrics.items():
            metrics[name] = [*column, *[float("nan")] * added] if isinstance(column, list) else column
        return reply

    def answer(self, reasons: Sequence[str] = (), details: Sequence[str] = ()) -> Message:
        """Return a reply without updates, in which those that were run have these reasons."""
        cut_clients, cut_reasons, cut_details = self._rejected()
        asked = wire.text_list(wire.config_of(self.request), wire.CLIENTS)
        pack: dict[str, ConfigRecordValues] = {
            wire.VERSION: wire.WIRE_VERSION,
            wire.SUMMED: False,
            wire.CLIENTS: [*(asked[position] for position in self.kept), *cut_clients],
            wire.REASONS: [*reasons, *cut_reasons],
            wire.DETAILS: [*details, *cut_details],
        }
        records = {wire.PACK: ConfigRecord(pack), wire.METRICS: MetricRecord({}), wire.UPDATE: ArrayRecord({})}
        return Message(RecordDict(records), reply_to=self.request)  # type: ignore[arg-type]

    def _rejected(self) -> tuple[list[str], list[str], list[str]]:
        """Return clients, reasons and details of those that were not run."""
        asked = wire.text_list(wire.config_of(self.request), wire.CLIENTS)
        places = [position for position, reason in enumerate(self.reasons) if reason]
        return (
            [asked[position] for position in places],
            [self.reasons[position] for position in places],
            [self.details[position] for position in places],
        )
