"""Bans: a client whose updates are rejected again and again is not asked to train for a while.

Only what a client does itself counts: an error in its training, a reply that cannot be understood, an update that
admission rejects. To be late, to drop out, or not to be needed any more, is no fault; nor is a reply that holds too
much: an honest app may send what it was not asked for, and to leave it unread costs next to nothing. Faults count while
they follow one another: a good update clears them. After a ban a client has one chance: the next fault bans it again at
once, a good update makes it a client like any other.

Where a message fails as a whole (a process that dies, a sum that is out of bounds), that is a fault of each client it
was for: nobody can say whose doing it was. So a node with a bad client may lose its others for a while too.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from strategies.admission import Reason
from strategies.errors import StrategyError
from strategies.updates import State

logger = logging.getLogger(__name__)

NO_FAULTS = frozenset(
    {
        Reason.LATE,
        Reason.NOT_SENT,
        Reason.DROPOUT,
        Reason.SURPLUS,
        Reason.STALE,
        Reason.NO_REFERENCE,
        Reason.TOO_LARGE,
    }
)
"""The ways of networks, batteries, disks, other apps and the server; every other reason is the client's own doing."""

NOBODY: Collection[str] = frozenset()


@dataclass(frozen=True)
class BanRules:
    """After how many faults in a row a client is banned (0 = never), and for how many rounds."""

    after: int = 0
    rounds: int = 10

    def __post_init__(self) -> None:
        if self.after < 0:
            raise StrategyError(f"The key 'ban-after' is {self.after}, but must be 0 (never) or more.")
        if self.rounds < 1:
            raise StrategyError(f"The key 'ban-rounds' is {self.rounds}, but must be 1 or more.")


@dataclass
class Bans:
    """The faults of each client in a row, and the last round of its ban; of those clients alone that have some."""

    rules: BanRules = field(default_factory=BanRules)
    _faults: dict[str, int] = field(default_factory=dict)
    _last_round: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rules: BanRules, state: State) -> Self:
        """Go on from what `state` returned; an empty state is that before the first round."""
        if not state:
            return cls(rules)
        clients = [str(client) for client in state["clients"]]
        faults, last = (dict(zip(clients, state[name].tolist(), strict=True)) for name in ("faults", "last-round"))
        return cls(rules, faults, {client: round for client, round in last.items() if round})

    def banned(self, round: int) -> Collection[str]:
        """Return the clients that must not be asked in this round."""
        if not self._last_round:
            return NOBODY
        return frozenset(client for client, last in self._last_round.items() if round <= last)

    def clear(self, client: str) -> None:
        """Forget what was held against a client: its update counted."""
        self._faults.pop(client, None)
        self._last_round.pop(client, None)

    def hold_against(self, client: str, reason: Reason, round: int) -> None:
        """Count a rejection, if it was the client's own doing, and ban the client if it was one too many."""
        if not self.rules.after or reason in NO_FAULTS:
            return
        faults = self._faults[client] = min(self._faults.get(client, 0) + 1, self.rules.after)
        if faults == self.rules.after:
            self._last_round[client] = round + self.rules.rounds
            logger.warning(
                "Client %s is banned until round %d, as its updates were rejected again and again, the last as '%s'",
                client,
                round + self.rules.rounds,
                reason,
            )

    def state(self) -> State:
        """Return all of it as arrays, so that a checkpoint can hold it."""
        clients = sorted(self._faults)
        return {
            "clients": np.array(clients, dtype=np.str_),
            "faults": np.array([self._faults[client] for client in clients], dtype=np.int64),
            "last-round": np.array([self._last_round.get(client, 0) for client in clients], dtype=np.int64),
        }
