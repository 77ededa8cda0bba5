"""What a run tells while it lasts, and how it keeps what it could go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from flwr.app import ArrayRecord

from app.checkpoints import Checkpoints
from app.journals import EveryFew, Overlapped, RunJournal
from app.run_directory import RunDirectory
from app.sinks import Sink, run_sinks
from strategies.updates import State


class MakeSinks(Protocol):
    """What opens the sinks of a run, as `app.sinks.run_sinks` does."""

    def __call__(self, directory: RunDirectory, logger: logging.Logger, num_rounds: int) -> Sequence[Sink]:
        """Return the sinks."""


class Watcher(Protocol):
    """Who watches a run, and must have seen all of it: what it remembers is kept with the run."""

    def state(self) -> State:
        """Return it as it is after the last round that was observed."""

    def go_on(self, state: State, weights: ArrayRecord) -> None:
        """Remember what `state` has returned after the round that has left these weights."""


@dataclass(frozen=True)
class Keeping:
    """What a run keeps to go on from, and when: a checkpoint after every so many rounds (0 = never).

    Written meanwhile, checkpoints take at most that ``share`` of the time. ``saved`` is the round of the last one, and
    what the ``watcher`` remembers is kept with the run.
    """

    checkpoints: Checkpoints
    every: int
    share: float
    saved: int | None
    watcher: Watcher | None


@dataclass(frozen=True)
class Output:
    """The sinks of a run, and whether it ends with a page of its own (a sweep has one for all).

    Checkpoints are written before the next round begins, or while it is under way.
    """

    make_sinks: MakeSinks = run_sinks
    page: bool = True
    checkpoints: Literal["before the next round", "meanwhile"] = "before the next round"

    def journal(self, keeping: Keeping, settle: Callable[[], None]) -> RunJournal:
        """Return what keeps each round once all that was told of it has settled."""
        watched = keeping.watcher.state if keeping.watcher else dict
        journal = EveryFew(keeping.checkpoints, keeping.every, settle, keeping.saved, watched)
        return Overlapped(journal, keeping.share) if self.checkpoints == "meanwhile" else journal


DEPLOYED = Output()
"""Each round is on the disk before the next begins."""
