"""When a run's state is kept: the journals that a run tells of each round, and which write `app.checkpoints`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from app.checkpoints import Checkpoints
from strategies.errors import StrategyError
from strategies.snapshot import Journal, Snapshot
from strategies.terms import due
from strategies.updates import State

logger = logging.getLogger(__name__)


class RunJournal(Journal, Protocol):
    """A journal of a run whose end it is told, and which knows how far the run could go back."""

    def kept(self) -> list[int]:
        """Return the rounds that the run could go back to from the one that is about to begin, maybe some too many."""

    def close(self) -> None:
        """Keep what is not kept yet."""


class EveryFew:
    """A journal that writes a checkpoint after every so many rounds (0 = never), and of the last one when it is closed.

    ``settle`` waits until all that was told of the round elsewhere is on the disk; ``saved`` is the round that the run
    went on from; ``watched`` returns what somebody remembers who watches the run, to be kept with it. A round that is
    over is on the disk when `finished` returns: should the process then be killed, only what was in progress is done
    again.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        settle: Callable[[], None] = lambda: None,
        saved: int | None = None,
        watched: Callable[[], State] = dict,
    ) -> None:
        self._checkpoints = checkpoints
        self._watched = watched
        self._every = every
        self._settle = settle
        self._last: Snapshot | None = None
        self._saved = saved
        self._failed = 0

    def begun(self, round: int, ledger: State) -> None:
        """Write the ledger, also where no checkpoints are: a run that has released something must not begin anew.

        Raises StrategyError where it cannot be written: then nobody must be asked.
        """
        try:
            self._checkpoints.begin(round, ledger)
        except OSError as error:
            raise StrategyError(
                f"Round {round} does not begin, as what it costs in privacy cannot be written down ({error}): make "
                f"room in {self._checkpoints.folder}, and go on with the run by 'resume'."
            ) from error

    def saved(self) -> int | None:
        """Return the last round of which there is a checkpoint, as far as this journal knows."""
        return self._saved

    def failed(self) -> int:
        """Return how many checkpoints in a row could not be written."""
        return self._failed

    def kept(self) -> list[int]:
        """Return the rounds of which there is a checkpoint."""
        return self._checkpoints.rounds()

    def finished(self, state: Snapshot) -> None:
        """Write a checkpoint where one is due."""
        whole = self._remember(state)
        if due(state.round, self._every, -1):
            self._keep(whole)

    def passed_over(self, state: Snapshot) -> None:
        """Remember the state, to be written when the run ends with it."""
        self._remember(state)

    def close(self) -> None:
        """Write the last state, where that is not done yet."""
        if self._every and self._last is not None and self._last.round != self._saved:
            self._keep(self._last)

    def _remember(self, state: Snapshot) -> Snapshot:
        self._last = whole = replace(state, watched=self._watched())
        return whole

    def _keep(self, state: Snapshot) -> None:
        self._settle()
        try:
            self._checkpoints.write(state)
        except OSError as error:
            if not self._failed:
                logger.warning(
                    "No checkpoint could be written after round %d (%s): the run goes on, but could %s",
                    *(state.round, error),
                    "not be resumed." if self._saved is None else f"be resumed after round {self._saved} only.",
                )
            self._failed += 1
            return
        if self._failed:
            logger.info("Checkpoints can be written again, from round %d on", state.round)
        self._saved, self._failed = state.round, 0


class Overlapped:
    """A journal that writes while the next round is under way, before the end of which it is done.

    So one round that is over may be done again. That is for simulations, whose rounds may be shorter than a disk takes:
    writing takes at most a ``share`` of their time. After a checkpoint so many rounds are passed over that it has been
    worth its seconds (for the best interval see Young, "A first order approximation to the optimum checkpoint
    interval", 1974: here what is lost is a matter of seconds, whatever the rounds are). With a share of 1 none is.
    """

    def __init__(self, journal: EveryFew, share: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._share = share
        self._clock = clock
        self._rests_until = -math.inf
        self._pool = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None
        self._kept = journal.kept()

    def begun(self, round: int, ledger: State) -> None:
        """Write the ledger at once."""
        self._journal.begun(round, ledger)

    def saved(self) -> int | None:
        """Wait for the disk, and return the last round of which there is a checkpoint."""
        self._wait()
        return self._journal.saved()

    def failed(self) -> int:
        """Wait for the disk, and return how many checkpoints in a row could not be written."""
        self._wait()
        return self._journal.failed()

    def kept(self) -> list[int]:
        """Return the rounds of which there was a checkpoint when the last writing began, whether or not it is done."""
        return self._kept

    def finished(self, state: Snapshot) -> None:
        """Begin to write a checkpoint where one is due, and those before it have been worth their time."""
        self._wait()
        if self._clock() < self._rests_until:
            self._journal.passed_over(state)
            return
        self._kept = self._journal.kept()
        self._writing = self._pool.submit(self._write, state)

    def close(self) -> None:
        """Write the last state, where that is not done yet."""
        try:
            self._wait()
            self._journal.close()
        finally:
            self._pool.shutdown()

    def _write(self, state: Snapshot) -> None:
        start = self._clock()
        self._journal.finished(state)
        end = self._clock()
        self._rests_until = end + (end - start) * (1 / self._share - 1)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()
