"""What a run tells while it lasts, and how it keeps what it could go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from app.checkpoints import Checkpoints
from app.journals import EveryFew, Overlapped, RunJournal
from app.run_directory import RunDirectory
from app.sinks import Sink, run_sinks
from strategies.updates import State


class MakeSinks(Protocol):
    """What opens the sinks of a run, as `app.sinks.run_sinks` does."""

    def __call__(self, directory: RunDirectory, logger: logging.Logger, num_rounds: int) -> Sequence[Sink]:
        """Return the sinks."""


@dataclass(frozen=True)
class Output:
    """The sinks of a run, and whether it ends with a page of its own (a sweep has one for all).

    Checkpoints are written before the next round begins, or while it is under way.
    """

    make_sinks: MakeSinks = run_sinks
    page: bool = True
    checkpoints: Literal["before the next round", "meanwhile"] = "before the next round"

    def journal(
        self,
        checkpoints: Checkpoints,
        every: int,
        share: float,
        sinks: Sequence[Sink],
        saved: int | None,
        watched: Callable[[], State] = dict,
    ) -> RunJournal:
        """Return what keeps every so many rounds, each once the sinks have it; ``saved`` is that of the last one.

        Written meanwhile, checkpoints take at most that ``share`` of the time. ``watched`` returns what somebody
        remembers who watches the run, to be kept with it.
        """

        def settle() -> None:
            for sink in sinks:
                sink.flush()

        journal = EveryFew(checkpoints, every, settle, saved, watched)
        return Overlapped(journal, share) if self.checkpoints == "meanwhile" else journal


DEPLOYED = Output()
"""Each round is on the disk before the next begins."""
