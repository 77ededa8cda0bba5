"""A federated evaluation: which clients are asked, and the scores of all that answered in time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from flwr.app import Message

from strategies.records import ClientScores
from strategies.requests import Correspondence
from strategies.samplers import draw
from strategies.scores import Row, client_scores, read_scores
from strategies.seeding import generator

logger = logging.getLogger(__name__)


def evaluators(clients: Sequence[str], count: int, seed: int, round: int) -> list[str]:
    """Return the clients asked in a round, in their order: so many, drawn anew each time; 0 = all."""
    return [clients[place] for place in draw(len(clients), count, generator(seed, round, "", "evaluation"))]


def gather(letters: Correspondence, replies: Iterable[Message], round: int, max_examples: float) -> ClientScores | None:
    """Return the scores of the clients that have some; None where nobody has.

    A warning tells of those that are late, and one of those that came again: what each sent first is taken.
    """
    rows: dict[str, Row] = {}
    for reply, asked in letters.answered(replies):
        rows.update(read_scores(reply, asked, max_examples))
    if late := letters.unanswered():
        logger.warning("Round %d: %d clients did not evaluate in time", round, len(late))
    if again := letters.repeated:
        logger.warning(
            "Round %d: the evaluations of %d clients came again; the first alone is taken", round, len(again)
        )
    return client_scores(rows)
