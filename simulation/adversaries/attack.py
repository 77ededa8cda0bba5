"""What an attack is: it turns what an attacker knows into the update that it sends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from strategies.updates import Update


class Knowledge(Protocol):
    """What an attacker knows in a round. Each update is trained when it is first asked for."""

    @property
    def cohort(self) -> int:
        """How many clients are at work in the round, attackers included."""

    @property
    def attackers(self) -> int:
        """How many of them attack."""

    @property
    def chance(self) -> np.random.Generator:
        """What is random in this client's attack in this round."""

    def own(self) -> Update:
        """Return the honest update of this client."""

    def colluders(self) -> Sequence[Update]:
        """Return the honest updates of the attackers at work, this one's included, in the order of their ids."""

    def first(self) -> Update:
        """Return the honest update that this client has for the weights of the first round."""


class Attack(Protocol):
    """An attack on the updates, a frozen value."""

    def forge(self, known: Knowledge) -> Update:
        """Return what the attacker sends as its own; its honest update where only its data are poisoned."""
