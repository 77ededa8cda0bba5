"""Collect the replies of a federated evaluation: the scores of all clients that answered in time."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flwr.app import Message

from strategies.records import ClientScores
from strategies.requests import Correspondence
from strategies.scores import Row, client_scores, read_scores

logger = logging.getLogger(__name__)


def gather(letters: Correspondence, replies: Iterable[Message], round: int, max_examples: float) -> ClientScores | None:
    """Return the scores of the clients that have some; None where nobody has. Late ones are logged."""
    rows: dict[str, Row] = {}
    for reply, asked in letters.answered(replies):
        rows.update(read_scores(reply, asked, max_examples))
    if late := letters.unanswered():
        logger.warning("Round %d: %d clients did not evaluate in time", round, len(late))
    return client_scores(rows)
