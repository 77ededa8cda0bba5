"""A thousand hostile replies to evaluations: whatever they hold, the scores are those of all other clients alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import wire
from strategies.client import Row, pack_content
from strategies.evaluation import gather
from strategies.records import ClientScores
from tests.strategies import faulty_replies as faulty
from tests.strategies.test_evaluation import letters
from tests.strategies.toy_federation import IDS, over_the_wire

PACKS = [["1", "4"], ["2"], ["0", "3"], ["5"]]  # where one is asked alone, it answers as a plain app
MOST = 1000.0
OF_UPDATES = {"no-update", "update-is-metrics", "no-arrays", "arrays-are-metrics"}  # which no evaluation holds
OF_PACKS = {name: spoil for name, (spoil, _) in faulty.OF_PACKS.items() if name not in OF_UPDATES}
OF_PLAIN = {name: spoil for name, (spoil, _) in faulty.OF_PLAIN.items() if name not in OF_UPDATES}
NUMBERS = [
    *(("num-examples", value) for value in (*faulty.WEIGHTS, 1001.0)),
    *(("accuracy", value) for value in (-0.1, 1.0001, np.nan, np.inf)),
    *(("loss", value) for value in (np.nan, np.inf, -np.inf, 1e300)),
]
HONEST, AGAIN, NEVER, WHOLE, NUMBER, BAD_THEN_GOOD = range(6)
FAULTY = (WHOLE, NUMBER, BAD_THEN_GOOD)


def score(client: str) -> dict[str, float]:
    accuracy = (int(client) + 1) / 10
    return {"num-examples": faulty.examples(client), "accuracy": accuracy, "loss": 1 - accuracy}


def honest(clients: Sequence[str]) -> RecordDict:
    if len(clients) == 1:
        return RecordDict({"metrics": MetricRecord(score(clients[0]))})  # type: ignore[arg-type]
    return pack_content([Row(client, metrics=score(client)) for client in clients], None)


def with_number(content: RecordDict, position: int, name: str, value: float) -> RecordDict:
    """Let one client tell another number."""
    metrics = wire.metrics_of(content)
    told = metrics[name]
    if not isinstance(told, list):
        metrics[name] = value
    else:
        metrics[name] = [value if place == position else float(one) for place, one in enumerate(told)]
    return content


@st.composite
def answers(draw: st.DrawFn, clients: Sequence[str]) -> tuple[list[RecordDict | Error], set[str], bool]:
    """What comes from these clients in its order, whose scores do not count for it, and whether it is faulty."""
    kind, good = draw(st.sampled_from((*FAULTY, *FAULTY, AGAIN, HONEST, NEVER))), honest(clients)
    if kind == WHOLE:
        spoil = draw(st.sampled_from(list((OF_PLAIN if len(clients) == 1 else OF_PACKS).values())))
        return [spoil(good, clients)], set(clients), True
    if kind == NUMBER:
        one = draw(st.sampled_from(clients))
        return [with_number(good, clients.index(one), *draw(st.sampled_from(NUMBERS)))], {one}, True
    if kind == BAD_THEN_GOOD:
        return [Error(2, "no memory"), good], set(clients), True
    return (
        {HONEST: [good], AGAIN: [good, RecordDict()], NEVER: []}[kind],
        set(clients) if kind == NEVER else set(),
        False,
    )


@pytest.fixture(autouse=True, scope="module")
def silence() -> Iterator[None]:
    """Of thousands of warnings that are meant, pytest would keep every one."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def of(clients: Sequence[str]) -> ClientScores | None:
    if not clients:
        return None
    columns = ([score(client)[name] for client in clients] for name in ("num-examples", "loss", "accuracy"))
    examples, losses, accuracies = (tuple(column) for column in columns)
    return ClientScores(tuple(clients), tuple(map(int, examples)), losses, accuracies)


def test_who_sends_what_it_should_not_has_no_scores_and_all_others_have_theirs() -> None:
    faulty_replies = 0

    @settings(max_examples=500)
    @given(st.tuples(*(answers(clients) for clients in PACKS)), st.permutations(range(len(PACKS))))
    def play(drawn: Sequence[tuple[list[RecordDict | Error], set[str], bool]], order: Sequence[int]) -> None:
        nonlocal faulty_replies
        sent = letters(PACKS)
        replies = [Message(content, reply_to=sent.messages[place]) for place in order for content in drawn[place][0]]
        replies = [over_the_wire(reply) for reply in replies] if order[0] == 0 else replies
        gone = set[str]().union(*(clients for _, clients, _ in drawn))
        assert gather(sent, replies, 3, MOST) == of(sorted(set(IDS) - gone))
        faulty_replies += sum(is_faulty for _, _, is_faulty in drawn)

    play()
    assert faulty_replies >= 1000
