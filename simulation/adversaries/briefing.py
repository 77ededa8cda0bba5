"""A grid that tells attackers, in each request, who of them is at work in the round, and how many clients are.

It stands inside the simulated world, so that only those count as colluders who are run. The requests that are sent at
one time for one round belong together; with FedBuff, that is whoever begins at the same moment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import Any

from flwr.app import ConfigRecord, ConfigRecordValues, Message
from flwr.serverapp import Grid

from simulation.wrapped import WrappedGrid, is_training
from strategies import wire
from strategies.client import each_client

COHORT = "attack-cohort"  # clients at work in the round
TOLD = {key: f"attack-{key}" for key in wire.OF_EACH}  # what the requests say of each attacker, in lists of one order


class BriefedGrid(WrappedGrid):
    """A grid whose ``attackers`` learn of each other; requests of a round in which none is are sent as they are."""

    def __init__(self, grid: Grid, attackers: Collection[str]) -> None:
        super().__init__(grid)
        self._attackers = frozenset(attackers)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send the messages, briefed."""
        given = list(messages)
        trainings = [message for message in given if is_training(message)]
        for _, together in groupby(trainings, key=lambda request: wire.config_of(request).get(wire.ROUND)):
            self._brief(list(together))
        return self.grid.push_messages(given)

    def _brief(self, requests: Sequence[Message]) -> None:
        told = briefing([wire.config_of(request) for request in requests], self._attackers)
        for request in requests if told else ():
            content = request.content.copy()  # of the mapping, not of what is in it
            content[wire.CONFIG] = wire.filled(ConfigRecord(), {**wire.config_of(request), **told})
            request.content = content


def briefing(requests: Sequence[ConfigRecord], attackers: Collection[str]) -> dict[str, ConfigRecordValues]:
    """Return what the attackers are told of the requests of one round, sorted by client; nothing without attackers."""
    work = [own for config in requests for _, own in each_client(config)]
    told = sorted((own for own in work if own[wire.CLIENT] in attackers), key=lambda own: str(own[wire.CLIENT]))
    if not told:
        return {}
    return {COHORT: len(work), **{TOLD[key]: values for key, values in lists_of(told).items()}}


def lists_of(settings: Sequence[ConfigRecord]) -> dict[str, Any]:
    """Return the lists by which one request asks several clients, of the settings that each would have alone."""
    return {key: [own[single] for own in settings] for key, single in wire.OF_EACH.items() if single in settings[0]}


def asked_of_all(own: ConfigRecord) -> ConfigRecord:
    """Return the settings of a request to all attackers of the round, made of those of one of them."""
    lists = {key: own[told] for key, told in TOLD.items() if told in own}
    return wire.filled(ConfigRecord(), {**own, **lists})
