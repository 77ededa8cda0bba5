"""A guard around any aggregator: updates that are far too large are rejected, those that are too large are clipped.

The constants are those of TensorFlow Federated's ``tff.learning.robust_aggregator``. *Zeroing*, against corrupt data:
an update of which a single value is beyond 2 C + 1 does not count, where C is an estimate of the 0.98 quantile of the
updates' largest values that begins at 10 and follows quickly. *Clipping*, against outliers: an update is shortened to
a Euclidean norm that is fixed, or an estimate of the 0.8 quantile of the norms (`strategies.robust.quantile`).

What differs from TFF: a zeroed update is rejected, with a reason that is told and counted. TFF adds a vector of zeros
and leaves the client's weight in the denominator, so that the mean is drawn towards zero, and the zero goes on into the
quantile of the norms. And as a round without good updates does not count, its norms move no estimate.

Neither estimate withstands patience, as they follow what clients send: while more than one in fifty send a value beyond
C, or one in five a norm beyond the limit, it rises round by round until they are let through. Against attackers there
are the other rules here, and a fixed norm.

Both look at single updates, so that nodes cannot add theirs up; and the estimates have no noise, so that a guarded
aggregate is not one that privacy could build on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from strategies.admission import norm
from strategies.aggregators import NOTHING, Aggregator, Fold
from strategies.errors import LayoutError, StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, flag, number, text
from strategies.robust.quantile import NormCount, QuantileEstimate
from strategies.updates import FloatVector, PartialSum, State, Update

CLIPPINGS = ("none", "fixed", "adaptive")

ZEROING = QuantileEstimate(quantile=0.98, rate=math.log(10.0))
ZEROING_START, MULTIPLIER, INCREMENT = 10.0, 2.0, 1.0
CLIPPING = QuantileEstimate(quantile=0.8, rate=0.2)

LARGEST, NORM, INNER = "largest-value", "clip-norm", "aggregator-"  # names, and a prefix of names, in the state


@dataclass(frozen=True)
class Guarded:
    """An aggregator that sees no update which is far too large, and with ``clipping`` none that is longer than a norm.

    ``clip_norm`` is that norm, where ``clipping`` is "adaptive" the one of the first round.
    """

    aggregator: Aggregator
    zeroing: bool = False
    clipping: str = "none"
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.clipping not in CLIPPINGS:
            raise StrategyError(f"The key 'clipping' is '{self.clipping}', but must be one of {list(CLIPPINGS)}.")
        if not 0 < self.clip_norm < math.inf:
            raise StrategyError(f"The key 'clip-norm' is {self.clip_norm}, but must be a finite number above 0.")

    @staticmethod
    def around(aggregator: Aggregator, options: Options) -> Aggregator:
        """Return the aggregator, guarded as the keys 'zeroing', 'clipping' and 'clip-norm' say."""
        zeroing, clipping = flag(options, "zeroing", False), text(options, "clipping", "none")
        guarded = Guarded(aggregator, zeroing, clipping, number(options, "clip-norm", 1.0))
        return guarded if zeroing or clipping != "none" else aggregator

    @property
    def guarantees(self) -> Guarantees:
        """What the aggregator gives that does not rest on sums, and each client's own update as a need."""
        inner = self.aggregator.guarantees
        return Guarantees(
            gives=inner.gives - {Property.LINEAR, Property.NODE_SUMS},
            needs=inner.needs | {Property.SINGLE_UPDATES},
            takes=inner.takes,
        )

    def weight_of(self, update: Update) -> float:
        """Return what it counts in the aggregator."""
        return self.aggregator.weight_of(update)

    def shortfall(self, updates: int) -> str:
        """Return what the aggregator says."""
        return self.aggregator.shortfall(updates)

    def init(self, size: int) -> State:
        """Return the first estimates, beside the aggregator's own state."""
        return self.state_of(ZEROING_START, self.clip_norm, self.aggregator.init(size))

    def start(self, size: int, state: State = NOTHING) -> Fold:
        """Begin a round with the limits of the state."""
        state = state or self.init(size)
        inner = {name.removeprefix(INNER): array for name, array in state.items() if name.startswith(INNER)}
        largest, clip_norm = _number(state, LARGEST, ZEROING_START), _number(state, NORM, self.clip_norm)
        fold = self.aggregator.start(size, inner)
        return _GuardedFold(self, fold, NormCount(largest), NormCount(clip_norm))

    def state_of(self, largest: float, clip_norm: float, inner: State) -> State:
        """Return a state that holds the estimates which change."""
        own = {LARGEST: np.array(largest)} if self.zeroing else {}
        own |= {NORM: np.array(clip_norm)} if self.clipping == "adaptive" else {}
        return {**own, **{INNER + name: array for name, array in inner.items()}}


@dataclass
class _GuardedFold:
    rule: Guarded
    fold: Fold
    largest: NormCount
    norms: NormCount

    def add(self, update: Update) -> None:
        """Take in an update, clipped; raises LayoutError where it is zeroed, and has then only counted its size."""
        limit = MULTIPLIER * self.largest.estimate + INCREMENT
        if self.rule.zeroing and update.largest > limit:
            self.largest.add(update.largest)
            raise LayoutError(
                "zeroed", f"Its largest value is {update.largest:.3g}, but 'zeroing' allows {limit:.3g} in this round."
            )
        if self.rule.clipping == "none":
            self.fold.add(update)
        else:
            length = norm(update.delta)
            self.fold.add(_clipped(update, length, self.norms.estimate))
            self.norms.add(length)
        self.largest.add(update.largest)

    def merge(self, partial: PartialSum) -> None:
        """Raise StrategyError: in a sum nobody can tell how large the updates are."""
        raise StrategyError("A guard needs each client's own update, but got a sum of several.")

    def result(self) -> FloatVector:
        """Return the aggregate of what has come through."""
        return self.fold.result()

    def state(self) -> State:
        """Return the estimates after this round."""
        return self.rule.state_of(ZEROING.next(self.largest), CLIPPING.next(self.norms), self.fold.state())


def _clipped(update: Update, length: float, limit: float) -> Update:
    if length <= limit:
        return update
    return replace(update, delta=update.delta * np.float32(limit / length))


def _number(state: State, name: str, default: float) -> float:
    return float(state[name].item()) if name in state else default
