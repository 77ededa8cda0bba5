"""Local differential privacy: each client puts noise on its own update before it leaves. Both halves.

Kasiviswanathan, Lee, Nissim, Raskhodnikova, Smith: "What Can We Learn Privately?", 2011, section 2: local algorithms.
The mechanism is the Gaussian one (Dwork, Roth: "The Algorithmic Foundations of Differential Privacy", 2014, section
3.5.3). A client clips its update to the norm S and sends

    clipped update + N(0, (z S)^2) on each number,

so that neither the server nor who listens has to be trusted with what it sends. Any two data sets that a client
could have move what it sends by 2 S at most. A participation is a Gaussian mechanism of noise multiplier z / 2, which
no sampling makes cheaper, as the server sees who takes part; a client pays for its own participations, and the run's
epsilon is that of the client that was asked most often. Whatever the server does with the updates is free: robust
rules and guards may look at each of them.

The price: on the mean of n updates is noise of standard deviation z S / sqrt(n), where DP-FedAvg with the same z has
z S / n, at a guarantee of half the noise.

What is no part of the guarantee: whether a client answers at all (who cannot train, or whose training diverges, shows
that), how many examples it has, which it tells before, and how many steps it took. It tells no other number: loss and
accuracy stay on the device. Norm and noise are what the server's request says, so that a client trusts whoever starts
the run to ask for noise at all. An app can hold the requests to the run config, as ours does (`app.promises`), but that
comes from the same hands. A client states the deviation of its noise beside its update, and the server counts none that
does not state what was asked: so clients that lack `noise_mod` are noticed. One that lies harms only itself.

The noise is made in float64 and rounded to float32: see `strategies.privacy.noise` for what that leaves open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable, Mod

from strategies import wire
from strategies.aggregators import NOTHING, Fold
from strategies.errors import StrategyError
from strategies.fixed_point import BLOCK
from strategies.guarantees import Guarantees, Property
from strategies.layout import ModelLayout
from strategies.options import Options, number
from strategies.privacy.accounting import Release
from strategies.privacy.clipping import NORM, PREFIX, Clipping
from strategies.privacy.noise import system_noise
from strategies.privacy.spending import OF_UPDATE
from strategies.samplers import Sampler
from strategies.updates import FloatVector, State, Update

DEVIATION = "noise-deviation"  # of the noise on each number: a setting, and a metric of the client that put it on
TAIL = 9.0  # a standard normal vector is this much longer than sqrt(size) with probability exp(-TAIL^2 / 2) = 3e-18
TOLD = (wire.NUM_EXAMPLES, wire.STEPS)

ClientNoise = Callable[[Message, Context], np.random.Generator]
"""Returns the generator of a client's noise, given the request and the node's context."""


@dataclass(frozen=True)
class LocalDP:
    """Clients clip to ``clipping_norm`` (S) and put noise of ``noise_multiplier`` (z) times that on their updates."""

    noise_multiplier: float = 0.5
    clipping_norm: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise_multiplier < math.inf:
            raise StrategyError(
                f"The key 'noise-multiplier' is {self.noise_multiplier}, but must be 0 (no privacy) or more."
            )
        if not 0 < self.clipping_norm < math.inf:
            raise StrategyError(
                f"The key 'clipping-norm' is {self.clipping_norm}, but must be a finite number above 0."
            )

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read the keys 'noise-multiplier' and 'clipping-norm'."""
        return cls(number(options, "noise-multiplier", 0.5), number(options, "clipping-norm", 1.0))

    @property
    def guarantees(self) -> Guarantees:
        """Bounded updates with their noise on them, which may be added up anywhere; nothing else leaves a client."""
        return Guarantees(
            gives=frozenset({Property.BOUNDED_UPDATES, Property.NODE_SUMS, Property.NOTHING_ELSE}),
            needs=frozenset({Property.EQUAL_WEIGHTS, Property.NOTHING_ELSE, Property.ROUNDS}),
        )

    @property
    def caveat(self) -> str:
        """Nothing is to be said against it."""
        return ""

    @property
    def scale(self) -> float:
        """As many clients are accounted as there are."""
        return 1.0

    @property
    def unconditional(self) -> bool:
        """Who answers is seen anyway: a round without good updates is skipped."""
        return False

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise on each number of an update."""
        return self.noise_multiplier * self.clipping_norm

    def release(self, round: int, sampler: Sampler, clients: int) -> Release | None:
        """Return what each client that is asked lets out for itself."""
        return Release("local", 1.0, self.noise_multiplier) if clients else None

    def init(self, size: int) -> State:
        """Return no state."""
        return NOTHING

    def config(self, state: State) -> dict[str, float]:
        """Return the norm, and the noise."""
        return {**Clipping(self.clipping_norm).to_config(), DEVIATION: self.deviation}

    def told(self, state: State) -> dict[str, float]:
        """Return norm and noise of each update; what is left of it on their mean depends on how many come."""
        return {NORM: self.clipping_norm, "noise-multiplier": self.noise_multiplier, OF_UPDATE: self.deviation}

    def clip(self, update: Update, config: Mapping[str, float], layout: ModelLayout) -> Update:
        """Shorten an update that is longer than noise could have made it: more than that no client moves the sum."""
        return Clipping(longest(config, layout.size)).clip(update, layout)

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        """Return the aggregate, in which the noise is already."""
        return fold.result(), state


def longest(config: Mapping[str, float], size: int) -> float:
    """Return the norm that updates of so many numbers keep to, all but one in 3e17 of those with noise on them."""
    return config[NORM] + config.get(DEVIATION, 0.0) * (math.sqrt(size) + TAIL)


def own_noise(message: Message, context: Context) -> np.random.Generator:
    """Return a generator that nobody can foresee or repeat."""
    return system_noise(0)


def noise_mod(noise: ClientNoise = own_noise) -> Mod:
    """Return the clients' half, a mod around `strategies.privacy.clipping.clip_mod`.

    A request that says nothing of noise passes through. One that asks for noise without a norm to clip to is refused:
    there would be no privacy.
    """

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        config = wire.config_of(message)
        if PREFIX + DEVIATION not in config:
            return call_next(message, context)
        deviation = _deviation(config)
        reply = call_next(message, context)
        if reply.has_content() and wire.UPDATE in reply.content:
            update = wire.update_of("", reply.content)
            noised = with_noise(update.delta, deviation, noise(message, context))
            metrics = update.metrics
            reply.content[wire.UPDATE] = wire.array_record({wire.DELTA: noised})
            told = {name: metrics[name] for name in TOLD if name in metrics}
            reply.content[wire.METRICS] = MetricRecord({**told, DEVIATION: deviation})
        return reply

    return mod


def _deviation(config: ConfigRecord) -> float:
    norm, deviation = (wire.number(config, PREFIX + key) for key in (NORM, DEVIATION))
    if not (0 < norm < math.inf and 0 <= deviation < math.inf):
        raise StrategyError(f"Updates cannot be clipped to the norm {norm} and get noise of the deviation {deviation}.")
    return deviation


def with_noise(delta: FloatVector, deviation: float, noise: np.random.Generator) -> FloatVector:
    """Return delta + N(0, deviation^2), float32 [size], through float64 in blocks of bounded memory."""
    noised = np.empty_like(delta)
    for start in range(0, delta.size, BLOCK):
        block = slice(start, start + BLOCK)
        drawn = noise.standard_normal(delta[block].size)
        np.add(delta[block], np.multiply(drawn, deviation, out=drawn), out=noised[block], casting="same_kind")
    return noised
