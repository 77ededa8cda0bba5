"""A strategy is a composition: sampler x objective x codec x aggregator x privacy x server optimizer, at a pace.

Who calls what in a round (the order of DESIGN.md's picture; everything here is plain arrays):

    cohort  = sampler.sample(round, clients, seed)
    config  = objective.config(state), privacy.config(state)      sent along with the weights, and objective.arrays
              the weights themselves are written by the downlink
    client:   delta -> privacy.clip -> codec.encode               mods around the app's own training
    server:   codec.decode -> admission -> privacy.clip -> fold.add (or fold.merge of a partial sum made the same way)
              and what counts is shown to the objective's observation
    delta, state   = privacy.finish(round, fold, metrics, state, noise)   noise on the sum, or just fold.result()
    weights, state = server_optimizer.step(weights, delta, state)

Privacy is only a protocol here, with its identity; the mechanisms are in `strategies.privacy`, as codecs are in
`strategies.compression`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, Self

import numpy as np

from strategies.aggregators import Aggregator, Fold
from strategies.compression.codec import Codec as Codec  # part of this module's interface, as Dense is
from strategies.compression.codec import Dense as Dense
from strategies.compression.downlink import Differences, Downlink
from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.layout import ModelLayout
from strategies.local_objective import LocalObjective, PlainObjective
from strategies.options import Options
from strategies.pace import Pace, Synchronous
from strategies.privacy.accounting import Release
from strategies.samplers import Sampler
from strategies.server_optimizers import ServerOptimizer
from strategies.updates import FloatVector, State, Update


class Privacy(Protocol):
    """What bounds and blurs the influence of one client (differential privacy).

    The state is explicit (the present clipping norm, the tree of DP-FTRL), so that it can be checkpointed.
    """

    @property
    def guarantees(self) -> Guarantees:
        """What the mechanism gives (BOUNDED_UPDATES) and needs (LINEAR, EQUAL_WEIGHTS, KNOWN_SAMPLING)."""

    @property
    def noise_multiplier(self) -> float | None:
        """z of all that a round releases, as accountants take it; None where there is nothing to account."""

    @property
    def caveat(self) -> str:
        """Why what is accounted is not what this run protects, to follow "the run ..."; "" where it is."""

    @property
    def scale(self) -> float:
        """How many times as many clients are accounted as there are: where not 1, the run must be a simulation."""

    @property
    def unconditional(self) -> bool:
        """Whether a round is released whatever came of it, so that its release says nothing of who took part.

        A round for which nobody at all could be drawn asks nothing of anybody, and releases nothing.
        """

    def release(self, round: int, sampler: Sampler, clients: int) -> Release | None:
        """Return what a round begins to let out, to be paid before anybody is asked; None where it is nothing new.

        ``clients`` is how many could be drawn in it. Raises StrategyError where that cannot be known of this sampler.
        """

    def init(self, size: int) -> State:
        """Return the state before the first round."""

    def config(self, state: State) -> dict[str, float]:
        """Return the settings that clients must have this round to clip as the server does."""

    def told(self, state: State) -> dict[str, float]:
        """Return what a round's record tells of its noise, under names in kebab-case.

        "clipping-norm" is that of the round, "noise-multiplier" z, "noise-deviation" the standard deviation of the
        noise on each number of the mean.
        """

    def clip(self, update: Update, config: Mapping[str, float], layout: ModelLayout) -> Update:
        """Bound an update; applied by the client and again by the server after decoding, so clipping twice is once."""

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        """Return the delta to release, float32 [size], and the new state.

        Gets the fold and not its mean: noise belongs on the exact sum (`LinearFold.total`), to be divided by the
        expected number of clients and not by the one that came. ``metrics`` are those of each update that counts;
        ``noise`` is where all randomness comes from.
        """


@dataclass(frozen=True)
class NoPrivacy:
    """No clipping, no noise, no guarantee."""

    @classmethod
    def of(cls, options: Options) -> Self:
        """Read nothing."""
        return cls()

    @property
    def guarantees(self) -> Guarantees:
        """No bound on an update, so that nothing is lost where nodes add up."""
        return Guarantees(gives=frozenset({Property.NODE_SUMS}))

    @property
    def noise_multiplier(self) -> None:
        """No mechanism."""

    @property
    def caveat(self) -> str:
        """Nothing is claimed."""
        return ""

    @property
    def scale(self) -> float:
        """The clients are those that there are."""
        return 1.0

    @property
    def unconditional(self) -> bool:
        """Without updates there is nothing to release."""
        return False

    def release(self, round: int, sampler: Sampler, clients: int) -> None:
        """Nothing that is accounted."""

    def init(self, size: int) -> State:
        """Return no state."""
        return {}

    def config(self, state: State) -> dict[str, float]:
        """Return no settings."""
        return {}

    def told(self, state: State) -> dict[str, float]:
        """Return nothing: there is no noise."""
        return {}

    def clip(self, update: Update, config: Mapping[str, float], layout: ModelLayout) -> Update:
        """Return the update as it is."""
        return update

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        """Return the aggregate as it is."""
        return fold.result(), state


ADVICE = {
    Property.LINEAR: "set the keys 'strategy', 'aggregator', 'zeroing' and 'clipping' so that the mean is taken",
    Property.EQUAL_WEIGHTS: "set the key 'weighting' to 'uniform'",
    Property.KNOWN_SAMPLING: "set the key 'selection' to 'poisson' or 'uniform', and 'over-selection' to 1",
    Property.INDEPENDENT_SAMPLING: "set the key 'selection' to 'poisson', or 'error-feedback' to 'off'",
    Property.BOUNDED_PARTICIPATION: "set the key 'selection' to 'cyclic'",
    Property.NOTHING_ELSE: "change the key 'strategy' or 'selection', or set 'adaptive-mu' to false",
    Property.CLIENT_STATE: "change the key 'strategy', or set 'error-feedback' to 'off'",
    Property.EXACT_UPDATES: "set the key 'codec' to 'none' or 'zstd'",
    Property.COMMON_START: "change the key 'selection' or 'strategy'",
}

ADVICE_WHERE_TAKEN = {
    **ADVICE,
    **dict.fromkeys((Property.KNOWN_SAMPLING, Property.BOUNDED_PARTICIPATION), "change the key 'strategy'"),
}
"""Where another part takes the property away: of these two it is the pace."""

GIVERS = {
    **dict.fromkeys((Property.LINEAR, Property.EQUAL_WEIGHTS), "aggregator"),
    **dict.fromkeys((Property.KNOWN_SAMPLING, Property.BOUNDED_PARTICIPATION), "sampler"),
    **dict.fromkeys((Property.BOUNDED_UPDATES, Property.NOTHING_ELSE), "privacy"),
    **dict.fromkeys((Property.CLIENT_STATE, Property.ROUNDS, Property.COMMON_START), "pace"),
    **dict.fromkeys(
        (Property.SINGLE_UPDATES, Property.NODE_SUMS, Property.EXACT_UPDATES, Property.EQUAL_SUPPORT), "codec"
    ),
    Property.INDEPENDENT_SAMPLING: "codec",
}
"""The part that is at fault where nobody gives a property."""

Part = Sampler | LocalObjective | Codec | Aggregator | Privacy | ServerOptimizer | Pace


@dataclass(frozen=True)
class Composition:
    """A named strategy. Raises StrategyError, with the reason in one sentence, where its parts do not go together.

    ``codec`` writes the updates of clients, ``downlink`` the weights that they begin from: with it all parts go, but as
    differences they need rounds.
    """

    name: str
    sampler: Sampler
    codec: Codec
    aggregator: Aggregator
    privacy: Privacy
    server_optimizer: ServerOptimizer
    pace: Pace = field(default_factory=Synchronous)
    objective: LocalObjective = field(default_factory=PlainObjective)
    downlink: Downlink = field(default_factory=Dense)

    def __post_init__(self) -> None:
        self._check_downlink()
        for part in self.parts:
            for need in sorted(part.guarantees.needs):
                self._require(need, part)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts, in the order in which a round meets them; last the pace of the rounds themselves."""
        return (
            *(self.sampler, self.objective, self.codec, self.aggregator, self.privacy),
            *(self.server_optimizer, self.pace),
        )

    @property
    def takes_partial_sums(self) -> bool:
        """Whether a node may send one sum for all its clients of a message: all that touches updates must agree."""
        parts = (self.objective, self.codec, self.aggregator, self.privacy, self.pace)
        return all(Property.NODE_SUMS in part.guarantees.gives for part in parts)

    @property
    def keeps_client_state(self) -> bool:
        """Whether clients remember something from round to round, and have to be told what of it counted."""
        return any(Property.CLIENT_STATE in part.guarantees.needs for part in self.parts)

    @property
    def keeps_on_nodes(self) -> bool:
        """Whether nodes keep something from round to round: the states of clients, or the model that they were sent."""
        return self.keeps_client_state or isinstance(self.downlink, Differences)

    def _check_downlink(self) -> None:
        if isinstance(self.downlink, Differences) and Property.ROUNDS not in self.pace.guarantees.gives:
            raise StrategyError(
                f"The strategy '{self.name}' cannot send differences: clients begin at any time, each from the model "
                "that is there, so that many versions are at work at once. Set 'downlink' to 'float16', 'qsgd' or "
                "'zstd', or change the key 'strategy'."
            )

    def _require(self, need: Property, part: Part) -> None:
        if takers := [other for other in self.parts if need in other.guarantees.takes]:
            self._refuse(part, takers, f"{need}, which {_names(takers)} takes away", ADVICE_WHERE_TAKEN.get(need))
        if not any(need in other.guarantees.gives for other in self.parts):
            giver = [getattr(self, GIVERS[need])]
            self._refuse(part, giver, f"{need}, which {_names(giver)} does not give", ADVICE.get(need))

    def _refuse(self, part: Part, others: Sequence[Part], why: str, advice: str | None) -> NoReturn:
        named, advice = _names([part]), advice or "change the key 'strategy'"
        raise StrategyError(
            f"The strategy '{self.name}' cannot combine {named} with {_names(others)}: {named} needs {why}; {advice}."
        )


def _names(parts: Sequence[Part]) -> str:
    return ", ".join(type(part).__name__ for part in parts)
