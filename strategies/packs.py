"""Split a packed request among several workers, and merge their answers as if one had trained all its clients.

For engines: what `merged` makes of the answers to the parts is to the bit what `packing_mod` would have answered to the
whole request, however it was split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flwr.app import ConfigRecord, RecordDict

from strategies import wire
from strategies.admission import Reason
from strategies.client import Row, pack_content
from strategies.errors import StrategyError
from strategies.fixed_point import FixedPointSum
from strategies.replies import Pack, payloads


def split(content: RecordDict, groups: Sequence[Sequence[str]] | None = None) -> list[RecordDict]:
    """Split the content of a request into one for each group of its clients; without groups, for each client.

    Seeds and shares go with the clients, all else is shared. Where the answer is to be a sum, those to the parts are
    sums too, even of a single client. Raises StrategyError for clients that the request does not list.
    """
    config = wire.settings_of(content)
    asked = wire.text_list(config, wire.CLIENTS)
    place = {client: position for position, client in enumerate(asked)}
    groups = [[client] for client in asked] if groups is None else groups
    if unknown := {client for group in groups for client in group} - set(asked):
        raise StrategyError(f"A part of a request cannot ask '{min(unknown)}', whom the request does not list.")
    is_part = len(asked) > 1 or bool(config.get(wire.PART, False))
    return [_part(content, config, [place[client] for client in group], is_part) for group in groups]


def _part(content: RecordDict, config: ConfigRecord, places: Sequence[int], is_part: bool) -> RecordDict:
    lists = {key: values for key in wire.OF_EACH if isinstance(values := config.get(key), list)}
    cut = {key: [values[place] for place in places] for key, values in lists.items()}
    part = content.copy()
    part[wire.CONFIG] = wire.filled(ConfigRecord(), {**config, **cut, wire.PART: is_part})
    return part


def rejected(content: RecordDict, detail: str, reason: Reason = Reason.ERROR) -> RecordDict:
    """Return an answer to a request by which none of its clients gave an update, for one and the same reason."""
    clients = wire.text_list(wire.settings_of(content), wire.CLIENTS)
    return pack_content([Row(client, str(reason), detail) for client in clients], None)


def merged(parts: Sequence[RecordDict], clients: Sequence[str] = ()) -> RecordDict:
    """Return one answer to a request, of the answers to its parts in any order.

    It speaks for the clients in the order given, or in that of the parts where none is given. Raises StrategyError
    where the parts are not answers of our mods to these clients, OverflowError where their sum could leave its range;
    that what they hold may be believed is for the server to judge.
    """
    total: FixedPointSum | None = None
    rows: dict[str, Row] = {}
    weights: dict[str, float] = {}
    for content in parts:
        found = {row.client: row for row in _rows(content)}
        rows.update(found)
        if wire.settings_of(content, wire.PACK).get(wire.SUMMED, False):
            partial = _sum(content)
            weights.update(zip((row.client for row in found.values() if not row.reason), partial.weights, strict=True))
            total = total or FixedPointSum(partial.size)
            total.merge(partial)
    if clients and sorted(clients) != sorted(rows):
        raise StrategyError(f"The parts of a request speak for {len(rows)} clients, not for the {len(clients)} asked.")
    order = clients or list(rows)
    if total is not None:
        total.weights = [weights[client] for client in order if client in weights]
    return pack_content([rows[client] for client in order], total)


def _rows(content: RecordDict) -> Iterator[Row]:
    if wire.PACK not in content:
        raise StrategyError("The answer to a part of a request is not one of our mods (`client_mods`).")
    clients = wire.text_list(wire.settings_of(content, wire.PACK), wire.CLIENTS)
    pack, updates = Pack.of(content, clients), payloads(wire.arrays_of(content, wire.UPDATE))
    for position, client in enumerate(pack.clients):
        update = {} if pack.summed else updates.get(str(position), {})
        yield Row(client, pack.reasons[position], pack.details[position], pack.metrics[position], update)


def _sum(content: RecordDict) -> FixedPointSum:
    arrays = {name: wire.decode(array) for name, array in wire.arrays_of(content, wire.UPDATE).items()}
    return FixedPointSum.from_arrays(arrays, arrays["total"].size)
