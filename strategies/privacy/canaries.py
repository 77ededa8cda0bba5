"""Canaries: clients that betray themselves on purpose, to see how much of one client a run gives away.

Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar: "One-shot Empirical Privacy Estimation for Federated Learning", 2024,
algorithms 2 (the final model is seen) and 3 (the models of all rounds are). Canaries are sampled, clipped, counted and
accounted as the other clients of an ordinary run are; in the place of an update each sends the same random direction
whenever it is asked. Both halves are here: the mod that canaries run, and who watches the models for their directions.

What differs from the paper: a canary sends ten times the clipping norm and is clipped like others, so that an audit
shows too where longer updates get through. A norm that adapts counts it as too long. Where layers are clipped one by
one, a canary loses some of its length. Without privacy its update has the length that `Canaries` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp.typing import ClientAppCallable

from strategies import wire
from strategies.errors import StrategyError
from strategies.privacy.audit import CONFIDENCE, Cosines, Finding, Gaussian, gaussian_epsilon, lower_bound
from strategies.privacy.clipping import NORM, PREFIX
from strategies.seeding import generator
from strategies.updates import FloatVector, State

PURPOSE = "canary"
TOO_LONG = 10.0  # clipping norms
START, LOOKS, BEST = "start", "looks", "best"
"""Arrays that a `Watch` remembers: float32 [size], int64 [], and float64 [canaries, present ones first]."""


@dataclass(frozen=True)
class Canaries:
    """``count`` canaries of a run with this seed.

    ``length`` is that of their updates where nothing is clipped, ``examples`` how many they claim to have trained on.
    """

    seed: int
    count: int
    length: float = 1.0
    examples: int = 1

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The clients that take part, sorted."""
        return tuple(f"canary-{number:06d}" for number in range(self.count))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.ids)

    def __contains__(self, client: str) -> bool:
        return client in self._known

    @property
    def absent(self) -> tuple[str, ...]:
        """As many that do not, for comparison."""
        return tuple(f"absent-{name}" for name in self.ids)

    def direction(self, client: str, size: int) -> FloatVector:
        """Draw a canary's direction, uniform on the sphere: float32 [size], of length 1; the same each time."""
        drawn = generator(self.seed, 0, client, PURPOSE).standard_normal(size, dtype=np.float32)
        return drawn / np.float32(np.linalg.norm(drawn))

    def mod(self, message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        """Let other clients through, and answer for canaries; stands between ``packing_mod`` and ``delta_mod``."""
        settings = wire.config_of(message)
        client = str(settings.get(wire.CLIENT, ""))
        if client not in self:
            return call_next(message, context)
        size = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS)).layout.size
        clipped = PREFIX + NORM in settings
        length = TOO_LONG * wire.number(settings, PREFIX + NORM) if clipped else self.length
        delta = np.float32(length) * self.direction(client, size)
        metrics = MetricRecord({wire.NUM_EXAMPLES: self.examples, wire.STEPS: 1})
        update = wire.array_record({wire.DELTA: delta})
        return Message(RecordDict({wire.METRICS: metrics, wire.UPDATE: update}), reply_to=message)


class Watch:
    """Whoever sees the models of a run: measures, round by round, how well canaries fit what has moved.

    Takes the time of drawing two directions for each canary in a round, and no memory beyond two models.
    """

    def __init__(self, canaries: Canaries, start: FloatVector) -> None:
        self.canaries = canaries
        self.looks = 0  # rounds in which the model has moved
        self._start = self._last = np.array(start)
        self._best = dict.fromkeys((*canaries.ids, *canaries.absent), -1.0)

    @classmethod
    def of(cls, canaries: Canaries, state: State, last: FloatVector) -> Watch:
        """Return who has seen as much as the one whose `state` this is, and the model ``last``."""
        watch = cls(canaries, state[START].astype(np.float32, copy=False))
        watch.looks, watch._last = int(state[LOOKS]), np.array(last)
        watch._best = dict(zip(watch._best, state[BEST].tolist(), strict=True))
        return watch

    def state(self) -> State:
        """Return all that it remembers but for the last model, which whoever keeps this has anyway."""
        return {START: self._start, LOOKS: np.array(self.looks), BEST: np.array(list(self._best.values()))}

    @property
    def size(self) -> int:
        """The number of weights."""
        return int(self._start.size)

    def see(self, flat: FloatVector) -> None:
        """Look at the model after a round, float32 [size]."""
        movement = flat - self._last
        if not movement.any():
            return
        self.looks += 1
        self._last = np.array(flat)
        for name, cosine in zip(self._best, self._cosines(movement, tuple(self._best)), strict=True):
            self._best[name] = max(self._best[name], float(cosine))

    def final_model(self, delta: float, confidence: float = CONFIDENCE) -> Finding:
        """Return what the last model gives away: the canaries' cosines with the whole movement, from the first one.

        Raises StrategyError, as `all_models` does, where the last one is the first one.
        """
        self._check()
        scores = self._cosines(self._last - self._start, self.canaries.ids)
        estimate = gaussian_epsilon(Gaussian.of_no_canary(self.size), Gaussian.fitted(scores), delta)
        return Finding(estimate, lower_bound(scores, self.size, delta, confidence=confidence))

    def all_models(self, delta: float, confidence: float = CONFIDENCE) -> Finding:
        """Return what the models of all rounds give away: the canaries' largest cosines with a round's movement."""
        self._check()
        present, absent = (
            np.array([self._best[name] for name in names]) for names in (self.canaries.ids, self.canaries.absent)
        )
        estimate = gaussian_epsilon(Gaussian.fitted(absent), Gaussian.fitted(present), delta)
        return Finding(estimate, lower_bound(present, self.size, delta, self.looks, confidence))

    def _cosines(self, movement: FloatVector, names: Sequence[str]) -> Cosines:
        unit = movement / np.float32(np.linalg.norm(movement.astype(np.float64)))
        return np.array([float(self.canaries.direction(name, self.size) @ unit) for name in names])

    def _check(self) -> None:
        if np.array_equal(self._last, self._start):
            raise StrategyError("The model is the one that the run began with, so that there is nothing to audit.")
