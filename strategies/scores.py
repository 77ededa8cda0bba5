"""Understand the replies of a federated evaluation: loss and accuracy of the global model, client by client."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from flwr.app import Message

from strategies import wire
from strategies.errors import StrategyError
from strategies.records import ClientScores
from strategies.replies import Pack

logger = logging.getLogger(__name__)

LOSS_NAMES = ("loss", "eval_loss")
ACCURACY_NAMES = ("accuracy", "eval_acc", "eval_accuracy")

Row = tuple[int, float, float]


def read_scores(reply: Message, asked: Sequence[str]) -> dict[str, Row]:
    """Return (examples, loss, accuracy) of each client that has some; what cannot be read is logged and left out."""
    if reply.has_error():
        logger.warning("Evaluation failed on %d clients: %s", len(asked), reply.error.reason)
        return {}
    try:
        rows = _metrics_by_client(reply, asked)
        return {client: row for client, metrics in rows.items() if (row := _row(metrics)) is not None}
    except Exception as error:  # of which kinds a hostile reply can raise, nobody can list
        logger.warning("Evaluation of %d clients left out: %s: %s", len(asked), type(error).__name__, error)
        return {}


def client_scores(rows: Mapping[str, Row]) -> ClientScores | None:
    """Put the rows of all replies together, sorted by client; None where there are none."""
    if not rows:
        return None
    clients = tuple(sorted(rows))
    examples, losses, accuracies = zip(*(rows[client] for client in clients), strict=True)
    return ClientScores(clients, examples, losses, accuracies)


def _metrics_by_client(reply: Message, asked: Sequence[str]) -> dict[str, dict[str, float]]:
    if wire.PACK in reply.content:
        pack = Pack.of(reply.content, asked)
        for rejection in pack.rejections():
            logger.warning("Evaluation failed on client %s: %s", rejection.client, rejection.detail)
        return {pack.clients[position]: pack.metrics[position] for position in pack.accepted()}
    if len(asked) != 1:
        raise StrategyError(f"A plain reply speaks for one client, but {len(asked)} were asked.")
    return {asked[0]: wire.scalars(wire.metrics_of(reply.content))}


def _row(metrics: Mapping[str, float]) -> Row | None:
    examples = metrics[wire.NUM_EXAMPLES]
    loss, accuracy = _first(metrics, LOSS_NAMES), _first(metrics, ACCURACY_NAMES)
    if not (0 < examples < 2**53 and math.isfinite(loss) and 0 <= accuracy <= 1):
        return None
    return int(examples), loss, accuracy


def _first(metrics: Mapping[str, float], names: Sequence[str]) -> float:
    return next((metrics[name] for name in names if name in metrics), math.nan)
