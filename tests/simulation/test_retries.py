"""What becomes of a message whose worker died, without any worker: the second attempt, its parts and their reply."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode

from simulation.retries import DIED, Letter
from simulation.virtual import take_identity
from simulation.workers import Answer
from strategies import wire
from tests.simulation import toy_app

take_identity()


def request(*clients: str, summed: str = "examples") -> Message:
    config = ConfigRecord(
        {"clients": list(clients), "seeds": list(range(len(clients))), "round": 1, "summed": summed, "deadline": 0.0}
    )
    return Message(RecordDict({"arrays": toy_app.start_arrays(10), "config": config}), 1, "train", group_id="1")


def answered(content: RecordDict, config: dict[str, str] | None = None) -> Answer:
    """What a worker that lives answers."""
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), dict(config or {}))
    return Answer(toy_app.app(Message(content, 1, "train"), context).content)


def bits(content: RecordDict) -> dict[str, tuple[str, bytes]]:
    update = content["update"]
    return {name: (array.dtype, np.asarray(array.numpy()).tobytes()) for name, array in update.items()}


def second_attempt(letter: Letter) -> list[RecordDict]:
    again = letter.take(letter.message.content, None)
    assert isinstance(again, list)
    return again


def test_an_answer_is_the_reply() -> None:
    letter = Letter(request("c01", "c02"))
    answer = answered(letter.message.content)
    reply = letter.take(letter.message.content, answer)
    assert isinstance(reply, Message)
    assert reply.content is answer.content


@pytest.mark.parametrize("summed", ["examples", ""])
def test_after_a_death_each_client_is_called_for_by_itself_and_the_reply_is_the_same_to_the_bit(summed: str) -> None:
    clients = ("c03", "c01", "c07")
    undisturbed = answered(request(*clients, summed=summed).content).content
    letter = Letter(request(*clients, summed=summed))
    parts = second_attempt(letter)
    assert [wire.text_list(part["config"], "clients") for part in parts] == [[client] for client in clients]
    assert [part["config"]["seeds"] for part in parts] == [[0], [1], [2]]
    assert all(part["arrays"] is letter.message.content["arrays"] for part in parts)
    first, second, third = ((part, answered(part)) for part in parts)
    assert letter.take(*third) == []
    assert letter.take(*first) == []
    reply = letter.take(*second)
    assert isinstance(reply, Message) and undisturbed is not None
    assert bits(reply.content) == bits(undisturbed)
    assert dict(reply.content["pack"]) == dict(undisturbed["pack"])
    assert reply.metadata.reply_to_message_id == letter.message.metadata.message_id


def test_a_client_whose_worker_dies_again_is_rejected_and_nobody_else() -> None:
    letter = Letter(request("c01", "c02", "c03"))
    parts = second_attempt(letter)
    assert letter.take(parts[0], answered(parts[0])) == []
    assert letter.take(parts[1], None) == []
    reply = letter.take(parts[2], Answer(None, (2, "no such file")))
    assert isinstance(reply, Message)
    pack = reply.content["pack"]
    assert list(pack["clients"]) == ["c01", "c02", "c03"]
    assert list(pack["reasons"]) == ["", "error", "error"]
    assert list(pack["details"]) == ["", DIED, "no such file"]


def test_a_message_that_lists_no_clients_runs_again_whole_and_once() -> None:
    message = Message(RecordDict({"config": ConfigRecord({})}), 1, "query.describe")
    letter = Letter(message)
    assert second_attempt(letter) == [message.content]
    reply = letter.take(message.content, None)
    assert isinstance(reply, Message) and reply.has_error()
    assert (reply.error.code, reply.error.reason) == (ErrorCode.CLIENT_APP_CRASHED, DIED)


def test_an_error_of_the_app_is_an_error_reply_and_no_reason_to_try_again() -> None:
    letter = Letter(request("c01"))
    reply = letter.take(letter.message.content, Answer(None, (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, "no module")))
    assert isinstance(reply, Message)
    assert (reply.error.code, reply.error.reason) == (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, "no module")


def test_answers_that_are_no_packs_make_an_error_reply_of_the_whole() -> None:
    letter = Letter(request("c01", "c02"))
    first, second = second_attempt(letter)
    letter.take(first, Answer(RecordDict({})))
    reply = letter.take(second, answered(second))
    assert isinstance(reply, Message) and reply.has_error()
