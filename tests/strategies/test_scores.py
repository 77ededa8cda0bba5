"""Replies to a federated evaluation: scores by client, and none from what cannot be true."""

import math

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict

from strategies.scores import client_scores, read_scores
from tests.strategies.test_replies import pack, reply_with
from tests.strategies.toy_federation import over_the_wire


def evaluation(clients: list[str], **columns: list[float]) -> Message:
    content = pack(clients, {})
    content["metrics"] = MetricRecord({name.replace("_", "-"): values for name, values in columns.items()})
    return over_the_wire(reply_with(content))


def plain(**metrics: object) -> Message:
    record = MetricRecord({name.replace("_", "-"): value for name, value in metrics.items()})  # type: ignore[misc]
    return over_the_wire(reply_with(RecordDict({"metrics": record})))


def test_a_pack_gives_a_row_for_each_client_that_has_examples() -> None:
    reply = evaluation(["b", "a", "c"], num_examples=[4, 0, 2], loss=[0.5, 0.1, 0.25], accuracy=[1.0, 0.0, 0.5])
    assert read_scores(reply, ["a", "b", "c"]) == {"b": (4, 0.5, 1.0), "c": (2, 0.25, 0.5)}


@pytest.mark.parametrize(("loss", "accuracy"), [("loss", "accuracy"), ("eval_loss", "eval_acc")])
def test_a_stock_reply_is_read_under_the_names_that_tutorials_use(loss: str, accuracy: str) -> None:
    record = MetricRecord({"num-examples": 8, loss: 0.5, accuracy: 0.75})
    assert read_scores(reply_with(RecordDict({"metrics": record})), ["7"]) == {"7": (8, 0.5, 0.75)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_examples": [-1.0]},
        {"num_examples": [0.5]},
        {"num_examples": [math.nan]},
        {"num_examples": [math.inf]},
        {"num_examples": [101.0]},
        {"loss": [math.nan]},
        {"loss": [-math.inf]},
        {"loss": [1e300]},
        {"accuracy": [1.5]},
        {"accuracy": [-0.1]},
        {"accuracy": [math.nan]},
    ],
    ids=str,
)
def test_scores_that_cannot_be_true_are_left_out_and_the_others_are_not(wrong: dict[str, list[float]]) -> None:
    right = {"num_examples": [10.0], "loss": [0.5], "accuracy": [0.5]}
    columns = {name: wrong.get(name, values) + values for name, values in right.items()}
    assert read_scores(evaluation(["bad", "good"], **columns), ["bad", "good"], 100.0) == {"good": (10, 0.5, 0.5)}
    alone = {name: wrong.get(name, values)[0] for name, values in right.items()}
    assert read_scores(plain(**alone), ["bad"], 100.0) == {}


@pytest.mark.parametrize(
    "reply",
    [
        reply_with(Error(0, "no power")),
        reply_with(Error(0)),
        reply_with(RecordDict()),
        reply_with(pack(["a", "b"], version=7)),
        reply_with(pack(["a", "c"])),
        evaluation(["a", "b"], loss=[0.5]),
        plain(num_examples=10, loss=0.5, accuracy=0.5),
        evaluation(["a", "b"], loss=[0.5, 0.5], accuracy=[0.5, 0.5]),
    ],
    ids=["error", "silent-error", "nothing", "version", "others", "short", "plain-for-two", "no-examples"],
)
def test_what_cannot_be_read_is_nobodys_score(reply: Message) -> None:
    assert read_scores(reply, ["a", "b"]) == {}


def test_a_client_that_failed_has_no_score() -> None:
    content = pack(["a", "b"], {}, reasons=["error", ""], details=["ValueError: no disk", ""])
    content["metrics"] = MetricRecord({name: [math.nan, 1.0] for name in ("num-examples", "loss", "accuracy")})
    assert read_scores(reply_with(content), ["a", "b"]) == {"b": (1, 1.0, 1.0)}


def test_rows_are_sorted_by_client_and_nothing_is_none() -> None:
    scores = client_scores({"b": (1, 0.5, 1.0), "a": (3, 0.25, 0.5)})
    assert scores is not None
    assert (scores.clients, scores.examples, scores.losses) == (("a", "b"), (3, 1), (0.25, 0.5))
    assert client_scores({}) is None


def test_absurd_but_admitted_scores_leave_a_finite_summary() -> None:
    rows = read_scores(plain(num_examples=1, loss=3.4e38, accuracy=1.0), ["a"])
    rows |= read_scores(plain(num_examples=2**53, loss=-3.4e38, accuracy=0.0), ["b"])
    scores = client_scores(rows)
    assert scores is not None and all(math.isfinite(scores.summary()[key]) for key in ("loss", "accuracy"))
