"""The hooks in a round at which a server kills itself as SIGKILL does: in simulations, and in deployments."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app import atomic
from app.checkpoints import Checkpoints
from strategies.requests import Correspondence
from strategies.server_model import ServerModel


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_before_sending(number: int) -> None:
    original = Correspondence.exchange

    def exchange(self: Correspondence, *given: Any) -> Iterator[Any]:
        if round_of(self) == number:
            kill()
        yield from original(self, *given)

    Correspondence.exchange = exchange  # type: ignore[method-assign]


def kill_while_waiting(number: int) -> None:
    """After the first reply: the others are under way."""
    original = Correspondence.exchange

    def exchange(self: Correspondence, *given: Any) -> Iterator[Any]:
        for reply in original(self, *given):
            yield reply
            if round_of(self) == number:
                kill()

    Correspondence.exchange = exchange  # type: ignore[method-assign]


def kill_in_aggregation(number: int) -> None:
    original = ServerModel.step

    def step(self: ServerModel, *given: Any) -> Any:
        arrays = original(self, *given)
        if given[2] == number:
            kill()
        return arrays

    ServerModel.step = step  # type: ignore[method-assign]


def kill_while_writing(number: int) -> None:
    """Half of the checkpoint is on the disk, under its temporary name."""
    original = atomic.whole_file

    @contextmanager
    def whole_file(path: Path) -> Iterator[Path]:
        with original(path) as temporary:
            yield temporary
            if path.name == f"{number:07d}.checkpoint":
                os.truncate(temporary, temporary.stat().st_size // 2)
                kill()

    atomic.whole_file = whole_file  # type: ignore[attr-defined]


def kill_after_writing(number: int) -> None:
    original = Checkpoints.write

    def write(self: Checkpoints, state: Any) -> None:
        original(self, state)
        if state.round == number:
            kill()

    Checkpoints.write = write  # type: ignore[method-assign]


def round_of(letters: Correspondence) -> int:
    """The round of a training; 0 of anything else."""
    metadata = letters.messages[0].metadata if letters.messages else None
    return int(metadata.group_id) if metadata is not None and metadata.message_type == "train" else 0


HOOKS: dict[str, Callable[[int], None]] = {
    "none": lambda number: None,
    "before-sending": kill_before_sending,
    "while-waiting": kill_while_waiting,
    "in-aggregation": kill_in_aggregation,
    "while-writing": kill_while_writing,
    "after-writing": kill_after_writing,
}
