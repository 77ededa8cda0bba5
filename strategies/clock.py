"""The clock of a run: that of the wall in a deployment, a simulated one where the grid is a world of virtual clients.

A simulated world says who is online and how late it is; nothing sleeps in it. Everything else about it (who is slow,
who drops out, when clients are awake) is the grid's own affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

from strategies.bans import NOBODY
from strategies.population import ClientInfo, Population


@runtime_checkable
class World(Protocol):
    """What a grid offers besides Flower's interface where its clients live in simulated time."""

    def now(self) -> float:
        """Return the simulated seconds since the start of the run."""

    def set_clock(self, seconds: float) -> None:
        """Let this be the present time: where a run goes on that was left then."""

    def online(self, clients: Sequence[str]) -> list[str]:
        """Return those of these clients that can be selected now."""

    def wait_for_clients(self, banned: Collection[str] = NOBODY) -> bool:
        """Move the clock to when some client that is not banned is online; False where none ever will be."""


def clock_of(grid: object) -> Callable[[], float]:
    """Return what tells the time in seconds: the grid's own clock in a world, else one that never goes back."""
    return grid.now if isinstance(grid, World) else time.monotonic


def simulated_seconds(grid: object) -> float | None:
    """Return the simulated seconds since the start of the run; None where time is real."""
    return grid.now() if isinstance(grid, World) else None


def online(grid: object, population: Population, banned: Collection[str] = NOBODY) -> Sequence[ClientInfo]:
    """Return the clients that can be selected now, sorted by id; where time is real, all that are not banned.

    To ask a world about everybody takes time that grows with the population, and so does leaving some out; nothing else
    in a round does.
    """
    present = grid.online(population.ids) if isinstance(grid, World) else population.ids
    if len(present) == len(population) and not banned:
        return population.clients
    return [population[client] for client in sorted(present) if client not in banned]


def await_online(grid: object, population: Population, banned: Collection[str] = NOBODY) -> Sequence[ClientInfo]:
    """Return the clients that can be selected, as soon as there are some; none where there never will be any."""
    present = online(grid, population, banned)
    if isinstance(grid, World) and any(client not in banned for client in population.ids):
        while not present and grid.wait_for_clients(banned):
            present = online(grid, population, banned)
    return present


def online_among(grid: object, clients: Sequence[str]) -> list[str]:
    """Return those of these clients that can be selected now."""
    return grid.online(clients) if isinstance(grid, World) else list(clients)
