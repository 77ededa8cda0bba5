"""Understand the replies of a federated evaluation: loss and accuracy of the global model, client by client."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from flwr.app import Message

from strategies import wire
from strategies.admission import Reason
from strategies.errors import StrategyError
from strategies.fixed_point import MAX_WEIGHT
from strategies.records import ClientScores
from strategies.replies import Pack, Rejection
from strategies.updates import MAX_METRIC

logger = logging.getLogger(__name__)

LOSS_NAMES = ("loss", "eval_loss")
ACCURACY_NAMES = ("accuracy", "eval_acc", "eval_accuracy")

Row = tuple[int, float, float]


def read_scores(reply: Message, asked: Sequence[str], max_examples: float = MAX_WEIGHT) -> dict[str, Row]:
    """Return (examples, loss, accuracy) of each client that has some; what cannot be read is logged and left out.

    So are scores that cannot be true: more than ``max_examples``, an accuracy beyond [0, 1], a loss beyond float32.
    """
    try:
        if reply.has_error():
            raise StrategyError(reply.error.reason or "no reason given")
        rows = _metrics_by_client(reply, asked)
        return {client: row for client, metrics in rows.items() if (row := _row(metrics, max_examples)) is not None}
    except Exception as error:  # of which kinds a hostile reply can raise, nobody can list
        rejection = Rejection(asked[0], Reason.MALFORMED, f"{type(error).__name__}: {error}")
        logger.warning("Evaluation of %d clients left out, %s", len(asked), rejection)
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
            logger.warning("Evaluation failed on %s", rejection)
        return {pack.clients[position]: pack.metrics[position] for position in pack.accepted()}
    if len(asked) != 1:
        raise StrategyError(f"A plain reply speaks for one client, but {len(asked)} were asked.")
    return {asked[0]: wire.scalars(wire.metrics_of(reply.content))}


def _row(metrics: Mapping[str, float], max_examples: float) -> Row | None:
    examples = metrics[wire.NUM_EXAMPLES]
    loss, accuracy = _first(metrics, LOSS_NAMES), _first(metrics, ACCURACY_NAMES)
    if not (1 <= examples <= max_examples and abs(loss) <= MAX_METRIC and 0 <= accuracy <= 1):  # false for NaN
        return None
    return int(examples), loss, accuracy


def _first(metrics: Mapping[str, float], names: Sequence[str]) -> float:
    return next((metrics[name] for name in names if name in metrics), math.nan)
