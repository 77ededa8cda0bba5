"""Collecting scores: all that came, who did not, and that nothing a client sends keeps the others from counting."""

import logging

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from strategies import wire
from strategies.evaluation import evaluators, gather
from strategies.requests import Correspondence, RequestWriter
from strategies.wire import read_weights
from tests.strategies.toy_federation import message_with, start_arrays


def letters(packs: list[list[str]]) -> Correspondence:
    message_with(RecordDict())
    writer = RequestWriter("evaluate", 3, 11, start_arrays(), {})
    layout = read_weights(start_arrays()).layout
    sent = Correspondence(start_arrays(), [(writer.write(1, pack), pack) for pack in packs], layout)
    for position, message in enumerate(sent.messages):
        message.metadata.__dict__["_message_id"] = f"id-{position}"
    return sent


def answer(sent: Correspondence, position: int, accuracy: float, examples: int = 4) -> Message:
    metrics = MetricRecord({"num-examples": examples, "loss": 1.0 - accuracy, "accuracy": accuracy})
    return Message(RecordDict({"metrics": metrics}), reply_to=sent.messages[position])


def test_evaluators_are_drawn_anew_in_each_round_from_round_and_seed_alone() -> None:
    clients = [str(number) for number in range(100, 150)]
    assert evaluators(clients, 0, 7, 1) == clients
    drawn = [evaluators(clients, 10, seed, round) for seed in (7, 8) for round in (1, 2)]
    assert all(len(set(ids)) == 10 and ids == sorted(ids) and set(ids) <= set(clients) for ids in drawn)
    assert len({tuple(ids) for ids in drawn}) == 4
    assert evaluators(clients, 10, 7, 2) == drawn[1]


def test_scores_are_those_of_all_replies_sorted_by_client() -> None:
    sent = letters([["b"], ["a"]])
    scores = gather(sent, [answer(sent, 0, 0.25), answer(sent, 1, 0.75)], 3, 100.0)
    assert scores is not None
    assert (scores.clients, scores.accuracies, scores.losses) == (("a", "b"), (0.75, 0.25), (0.25, 0.75))
    assert sent.bytes_up > 0


def test_late_ones_are_logged_and_bad_ones_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sent = letters([["a"], ["b"], ["c"], ["d", "e"]])
    error = Message(Error(0, "asleep"), reply_to=sent.messages[1])
    with caplog.at_level(logging.WARNING):
        scores = gather(sent, [answer(sent, 0, 0.5), error, answer(sent, 2, 0.5, examples=101)], 3, 100.0)
    assert scores is not None and scores.clients == ("a",)
    assert "Round 3: 2 clients did not evaluate in time" in caplog.messages
    assert any("asleep" in message for message in caplog.messages)


def test_what_holds_too_much_is_left_out_unread(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = letters([["a"], ["b"]])
    swollen = answer(sent, 0, 0.5)
    swollen.content["more"] = MetricRecord({"x": [0.5] * 10**5})
    read: list[RecordDict] = []
    original = wire.metrics_of
    monkeypatch.setattr("strategies.wire.metrics_of", lambda content: read.append(content) or original(content))
    honest = answer(sent, 1, 0.5)
    with caplog.at_level(logging.WARNING):
        scores = gather(sent, [swollen, honest], 3, 100.0)
    assert scores is not None and scores.clients == ("b",)
    assert read == [honest.content]
    assert "Evaluation of 1 clients left out, client a: " in caplog.text and "Its reply holds 8000" in caplog.text


def test_what_comes_again_is_left_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    sent = letters([["a"], ["b"]])
    replies = [answer(sent, 0, 0.25), answer(sent, 0, 0.75), answer(sent, 1, 0.5), answer(sent, 1, 0.5)]
    with caplog.at_level(logging.WARNING):
        scores = gather(sent, replies, 3, 100.0)
    assert scores is not None and scores.accuracies == (0.25, 0.5)
    assert caplog.messages == ["Round 3: the evaluations of 2 clients came again; the first alone is taken"]


def test_nobody_has_scores() -> None:
    assert gather(letters([["a"]]), [], 1, 100.0) is None
    assert gather(letters([]), [], 1, 100.0) is None
