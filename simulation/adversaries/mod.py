"""The mod that attackers run: in the place of a client's honest update it sends what the attack makes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from simulation.adversaries.attack import Attack
from simulation.adversaries.briefing import COHORT, TOLD, asked_of_all, lists_of
from strategies import wire
from strategies.client import each_client, named_together
from strategies.seeding import generator
from strategies.updates import Update

logger = logging.getLogger(__name__)

Train = Callable[[RecordDict], RecordDict]
"""Trains one client as a request says, and returns its reply."""


@dataclass
class Company:
    """The attackers of a run, as one process knows them: `mod` stands around the training of a single client.

    ``of_first_round`` makes the request that a client would have got in round 1. Honest updates are kept for the round,
    those of round 1 for good: each process trains them once. Where clients remember something from round to round
    (SCAFFOLD), colluders know what the others would send without it.
    """

    attack: Attack
    attackers: frozenset[str]
    of_first_round: Callable[[str], RecordDict]
    _weights: wire.GlobalWeights | None = None
    _honest: dict[tuple[str, frozenset[str]], tuple[ConfigRecord, Update]] = field(default_factory=dict)
    _first: dict[str, Update] = field(default_factory=dict)

    def mod(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Let honest clients through; of an attacker, send what the attack forges."""
        request = message.content
        own = wire.config_of(message)
        if own.get(wire.CLIENT) not in self.attackers:
            return call_next(message, context)

        def train(content: RecordDict) -> RecordDict:
            message.content = content
            reply = call_next(message, context)
            if reply.has_error():
                raise RuntimeError(f"the handler answered with an error: {reply.error.reason}")
            return reply.content

        try:
            forged = self.attack.forge(_Turn(self, request, own, train))
        finally:
            message.content = request
        return Message(_content(forged), reply_to=message)

    def honest(self, request: RecordDict, asked: Sequence[ConfigRecord], train: Train) -> Mapping[str, Update]:
        """Return the honest updates of clients in the round of the request, by client; see `_trained` for failures."""
        weights = wire.read_weights(wire.arrays_of(request, wire.ARRAYS))
        if self._weights is not weights:
            self._weights, self._honest = weights, {}
        keys = {str(own[wire.CLIENT]): (str(own[wire.CLIENT]), frozenset(request)) for own in asked}
        missing = [own for own in asked if self._honest.get(keys[str(own[wire.CLIENT])], (None,))[0] != own]
        for own, update in _trained(request, missing, train):
            self._honest[keys[update.client]] = own, update
        return {client: self._honest[key][1] for client, key in keys.items() if key in self._honest}

    def first(self, client: str, train: Train) -> Update:
        """Return a client's honest update of round 1."""
        if client not in self._first:
            self._first[client] = wire.update_of(client, train(self.of_first_round(client)))
        return self._first[client]


@dataclass(frozen=True)
class _Turn:
    """What an attacker knows in its turn (`simulation.adversaries.attack.Knowledge`)."""

    company: Company
    request: RecordDict
    settings: ConfigRecord
    train: Train

    @property
    def client(self) -> str:
        return str(self.settings[wire.CLIENT])

    @property
    def cohort(self) -> int:
        return int(wire.number(self.settings, COHORT))

    @property
    def attackers(self) -> int:
        return len(wire.text_list(self.settings, TOLD[wire.CLIENTS]))

    @property
    def chance(self) -> np.random.Generator:
        seed, number = (int(wire.number(self.settings, key)) for key in (wire.SEED, wire.ROUND))
        return generator(seed, number, self.client, "attack")

    def own(self) -> Update:
        return self.company.honest(self.request, [self.settings], self.train)[self.client]

    def colluders(self) -> Sequence[Update]:
        asked = [own for _, own in each_client(asked_of_all(self.settings))]
        known = self.company.honest(_plain(self.request), asked, self.train)
        return list(known.values()) or [self.own()]  # which says why there is none

    def first(self) -> Update:
        return self.company.first(self.client, self.train)


def _plain(request: RecordDict) -> RecordDict:
    """Return weights and settings alone: what is beside them belongs together with what one client remembers."""
    return RecordDict({wire.ARRAYS: request[wire.ARRAYS], wire.CONFIG: request[wire.CONFIG]})


def _trained(request: RecordDict, asked: Sequence[ConfigRecord], train: Train) -> Iterator[tuple[ConfigRecord, Update]]:
    """Train clients, and let the handler know of all of them, as it may do several at a time sooner.

    Raises what the training of a single client raises; of several, whoever fails is left out.
    """
    if not asked:
        return
    with named_together(wire.filled(ConfigRecord(), {**asked[0], **lists_of(asked)})) as together:
        for own in asked:
            together.later.popleft()
            content = request.copy()  # of the mapping, not of what is in it
            content[wire.CONFIG] = own
            try:
                yield own, wire.update_of(str(own[wire.CLIENT]), train(content))
            except Exception:
                if len(asked) == 1:
                    raise
                logger.debug("Colluder %s gives no update", own[wire.CLIENT], exc_info=True)


def _content(update: Update) -> RecordDict:
    delta = wire.array_record({wire.DELTA: update.delta})
    return RecordDict({wire.METRICS: MetricRecord(dict(update.metrics)), wire.UPDATE: delta})
