"""Lines between two ends: what is said is heard, in order, by nobody else, and whoever waits learns of the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

from simulation import lines

MUCH = "x" * 10_000_000  # more than a socket holds


@contextmanager
def served(answer: Callable[[Any], Any]) -> Iterator[tuple[Connection, threading.Thread]]:
    secret = lines.new_secret()
    listener = lines.listen(secret)
    thread = threading.Thread(target=lines.serve, args=(listener, answer), daemon=True)
    thread.start()
    line = lines.open_line(lines.address_of(listener), secret)
    try:
        yield line, thread
    finally:
        line.close()
        thread.join(10)
        assert not thread.is_alive()  # it ends with the line


def test_answers_come_in_the_order_of_what_was_said_and_nothing_is_no_answer() -> None:
    with served(lambda said: said * 2 if said % 3 else None) as (line, _):
        for number in range(10):
            lines.say(line, number)
        assert [lines.hear(line) for _ in range(6)] == [2, 4, 8, 10, 14, 16]


def test_two_ends_that_both_say_much_do_not_wait_for_each_other() -> None:
    with served(lambda said: said) as (line, _):
        for _ in range(3):
            lines.say(line, MUCH)  # none of the answers is taken meanwhile
        assert [len(lines.hear(line)) for _ in range(3)] == [len(MUCH)] * 3


def test_whoever_does_not_know_the_secret_is_refused() -> None:
    listener = lines.listen(lines.new_secret())
    refused: list[Exception] = []

    def accept() -> None:
        try:
            lines.serve(listener, lambda said: said)
        except Exception as error:
            refused.append(error)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    with pytest.raises(Exception) as found:
        lines.open_line(lines.address_of(listener), lines.new_secret())
    thread.join(10)
    assert isinstance(found.value, lines.FAILED_TO_OPEN) and len(refused) == 1


def test_where_nobody_listens_no_line_can_be_opened() -> None:
    listener = lines.listen(lines.new_secret())
    address = lines.address_of(listener)
    listener.close()
    with pytest.raises(lines.FAILED_TO_OPEN):
        lines.open_line(address, lines.new_secret())


def test_an_end_that_is_gone_is_heard_of() -> None:
    def fail(said: object) -> None:
        raise ZeroDivisionError

    secret = lines.new_secret()
    listener = lines.listen(secret)
    ended = threading.Event()

    def work() -> None:
        with pytest.raises(ZeroDivisionError):
            lines.serve(listener, fail)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    line = lines.open_line(lines.address_of(listener), secret)
    lines.say(line, 1)
    with pytest.raises((EOFError, OSError)):
        lines.hear(line)
    assert ended.wait(10)
