"""The order in which clients are drawn where each begins on its own: the cohorts of rounds 1, 2, ... one after another.

So a run in which everybody is as fast as everybody else trains the very clients that synchronous rounds would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from strategies.bans import NOBODY
from strategies.clock import await_online, online, online_among
from strategies.population import Population
from strategies.samplers import Sampler

MOST_SKIPS = 10_000  # clients in a row that cannot begin: more means that the sampler has nobody else to offer


@dataclass
class Draws:
    """Hands out clients one cohort after the other, without those that are at work, offline, banned or gone.

    ``cohort`` is the number of the present one. Everybody is asked who is online once per cohort, as in a round.
    """

    sampler: Sampler
    seed: int
    cohort: int = 0
    _queue: deque[str] = field(default_factory=deque)

    @property
    def waiting(self) -> list[str]:
        """Who is drawn and has not begun yet."""
        return list(self._queue)

    def go_on(self, cohort: int, waiting: Sequence[str]) -> None:
        """Take the present cohort and who waits, as another process left them."""
        self.cohort, self._queue = cohort, deque(waiting)

    def next(
        self,
        wanted: int,
        grid: object,
        population: Population,
        at_work: Collection[str],
        banned: Collection[str] = NOBODY,
    ) -> dict[str, int]:
        """Return at most so many clients that can begin now, each with the number of the cohort it was drawn in.

        Waits, in a simulated world, until somebody is online where nobody is at work.
        """
        drawn: dict[str, int] = {}
        skipped = 0  # in a row
        while len(drawn) < wanted and skipped < MOST_SKIPS:
            if not self._queue and not self._draw(grid, population, {*at_work, *drawn}, banned):
                break
            client = self._queue.popleft() if self._queue else ""
            free = client in population and not any(client in others for others in (at_work, drawn, banned))
            if free and online_among(grid, [client]):
                drawn[client] = self.cohort
                skipped = 0
            else:
                skipped += 1
        return drawn

    def _draw(self, grid: object, population: Population, busy: Collection[str], banned: Collection[str]) -> bool:
        """Draw the next cohort; False where all who are online are busy or banned."""
        present = online(grid, population, banned) if busy else await_online(grid, population, banned)
        if len(present) <= len(busy):  # else somebody is free
            known = [client for client in sorted(busy) if client in population]
            if len(present) == len(online_among(grid, known)):
                return False
        self.cohort += 1
        self._queue.extend(self.sampler.sample(self.cohort, present, self.seed))
        return True
