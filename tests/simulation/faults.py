"""The toy federation with a fifth of its clients at fault, in every way there is: what is done, and what came of it.

Four clients are asked in each round. Of all of them one in twenty raises, one sends NaN, one straggles beyond the
round's deadline (in simulated time), and as many as wanted kill their worker. A killed worker's clients run again, so
that a kill costs nobody; the others are rejected, each for its reason.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid

from simulation.conditions import Conditions
from simulation.draws import Draws, Floats, Keys
from simulation.fates import Work
from simulation.grid import RayGrid
from simulation.world import WorldGrid
from strategies.records import RoundRecord
from strategies.seeding import child_seed
from tests.simulation.toy_runs import SEED, answering, inline, train, until_all_answer

COHORT = 4
DEADLINE = 10.0
REASONS = {"raise": "error", "nan": "not-finite", "straggle": "late"}
SIZE = 100_000  # parameters: had each round left one reply behind, that were 80 MB and more in 200 rounds

Faults = Mapping[tuple[int, str], str]


def faults(rounds: int, kills: int) -> dict[tuple[int, str], str]:
    """Return the kind of fault by round and client: each kind but kills for a client in twenty, one kill a round."""
    _, records = train(inline(), rounds=rounds, cohort=COHORT)
    asked = [(record.round, client) for record in records for client in record.selected]
    chance = random.Random(5)
    chance.shuffle(asked)
    each = rounds * COHORT // 20
    found = {place: kind for number, kind in enumerate(REASONS) for place in asked[number * each : (number + 1) * each]}
    one_a_round = dict(asked[len(found) :])
    return {**found, **dict.fromkeys(list(one_a_round.items())[:kills], "kill")}


def rejected(planned: Faults) -> Counter[str]:
    """Return how many updates must be rejected for which reason."""
    return Counter(REASONS[kind] for kind in planned.values() if kind in REASONS)


@dataclass(frozen=True)
class Straggling(Conditions):
    """Every client needs a second, those with these seeds twice the deadline."""

    slow: Sequence[int] = ()

    def work(self, clients: Sequence[str], seeds: Keys, examples: Floats, model_bytes: float, now: float) -> Work:
        """Return the work of a request."""
        usual = super().work(clients, seeds, examples, model_bytes, now)
        return replace(usual, compute=np.where(np.isin(seeds, np.array(self.slow, np.uint64)), 2 * DEADLINE, 1.0))


def world(grid: Grid, planned: Faults) -> WorldGrid:
    """Return the grid in the world with these stragglers."""
    slow = [child_seed(SEED, *place, "train") for place, kind in planned.items() if kind == "straggle"]
    return WorldGrid(grid, Straggling(Draws(SEED), slow=slow))


def to_files(planned: Faults, folder: Path, *kinds: str) -> dict[str, str]:
    """Write down the faults of these kinds as the toy app reads them; return its run config."""
    folder.mkdir()
    for (number, client), kind in planned.items():
        if kind in kinds:
            (folder / f"{kind}-{number}-{client}").touch()
    return {"faults": str(folder)}


@dataclass
class Watch:
    """An observer that counts the live workers after each round; where one is missing, it waits for its replacement.

    A round of the toy app takes milliseconds and a worker's start more than a second: by the wait, the next round is
    as the next round of a real run, which lasts.
    """

    grid: RayGrid
    workers: int
    live: list[int] = field(default_factory=list)
    at_full_strength: list[int] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def __call__(self, record: RoundRecord) -> None:
        """Look at the workers and at this process's memory after a round."""
        self.resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
        self.live.append(len(answering(self.grid)))
        if self.live[-1] < self.workers:
            start = time.perf_counter()
            until_all_answer(self.grid, self.workers)
            self.restarts.append(time.perf_counter() - start)
        self.at_full_strength.append(len(answering(self.grid)))
