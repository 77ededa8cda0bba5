"""Direct lines between the driver and the workers on its machine: a call takes a tenth of a millisecond.

Ray places workers, starts them and tells when they die. A call through it takes between one and two milliseconds of
both processes, as much as a small model trains for; so the calls to workers that see the driver's shared memory go
through a socket of their own, and Ray knows of one call only, which lasts as long as the line. Sockets have abstract
names, so that nothing is left on disk, and both ends prove that they know a secret that Ray has carried.

What is unpickled here was pickled by the driver or by its own worker; what a client sends over a network never is.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import socket
import threading
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from queue import SimpleQueue
from typing import Any

FAILED_TO_OPEN = (OSError, EOFError, AuthenticationError)


def new_secret() -> bytes:
    """Return what both ends of a line have to know."""
    return secrets.token_bytes(32)


def listen(secret: bytes) -> Listener:
    """Return a socket with a name of its own, on which one line can be opened."""
    return Listener(f"\0fedkeras-{secrets.token_hex(16)}", "AF_UNIX", authkey=secret)


def address_of(listener: Listener) -> bytes:
    """Return the socket's name, for `open_line`."""
    address: bytes = listener.address  # bytes, as the name begins with a zero
    return address


def open_line(address: bytes, secret: bytes) -> Connection:
    """Return the driver's end of a line; raises one of `FAILED_TO_OPEN` where nobody answers or the secret is wrong."""
    return Client(address, "AF_UNIX", authkey=secret)


def say(line: Connection, value: Any) -> None:
    """Send a value; raises OSError where the other end is gone."""
    line.send_bytes(pickle.dumps(value, protocol=5))


def hear(line: Connection) -> Any:
    """Return the next value; raises EOFError or OSError where the other end is gone."""
    return pickle.loads(line.recv_bytes())  # noqa: S301 - from the process that has shown the secret


def serve(listener: Listener, answer: Callable[[Any], Any]) -> None:
    """Answer what is said on the line, in order, until it is closed; an answer of None is not sent.

    Another thread takes in what comes meanwhile, so that two ends that both send much do not wait for each other.
    """
    with listener, listener.accept() as line:
        heard: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_take_in, args=(line, heard), name="line", daemon=True).start()
        try:
            while (said := heard.get()) is not None:
                if (answered := answer(said)) is not None:
                    say(line, answered)
        finally:
            _hang_up(line)


def _hang_up(line: Connection) -> None:
    """Let both ends know. To close the file is not enough while the other thread waits for what is said on it."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(line.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _take_in(line: Connection, heard: SimpleQueue[Any]) -> None:
    try:
        while True:
            heard.put(hear(line))
    except (EOFError, OSError):
        heard.put(None)
