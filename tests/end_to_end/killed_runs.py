"""Simulated runs in a process that kills itself as SIGKILL does, at a hook in a round; or does them to their end.

    python -m tests.end_to_end.killed_runs ENGINE HOOK ROUND '[{"num-rounds": 2, ...}, ...]'

HOOK "none" kills nothing. Prints a line of JSON: the run directories.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from app import atomic
from app.checkpoints import Checkpoints
from app.config import RunConfig
from simulation.simulate import ONE_OF_MANY, Simulation
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
    original = atomic.write_bytes

    def write_bytes(path: Any, data: bytes, mode: int = atomic.PUBLIC) -> None:
        if path.name == f"{number:07d}.checkpoint":
            with path.with_name(f".{path.stem}.0123.tmp{path.suffix}").open("wb") as half:
                half.write(data[: len(data) // 2])
            kill()
        original(path, data, mode)

    atomic.write_bytes = write_bytes


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


def main(engine: str, hook: str, number: str, configs: str) -> None:
    HOOKS[hook](int(number))
    with Simulation(2 if engine == "ray" else None, engine=engine) as simulation:  # type: ignore[arg-type]
        runs = [simulation.run(RunConfig.from_run_config(one), (), ONE_OF_MANY) for one in json.loads(configs)]
    print(json.dumps([str(run.directory.path) for run in runs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
