"""The rules of all rounds, and the terms of one: what server and clients have to agree on for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from flwr.app import ArrayRecord, ConfigRecordValues

from strategies import wire
from strategies.admission import Limits
from strategies.aggregators import WeightedMean
from strategies.bans import BanRules
from strategies.composition import Composition
from strategies.compression.codec import Dense
from strategies.compression.expected import expected_bytes
from strategies.fixed_point import MAX_WEIGHT, share
from strategies.privacy.budget import Budget
from strategies.privacy.clipping import NORM, PREFIX
from strategies.privacy.local_dp import DEVIATION, longest
from strategies.replies import ReplyReader
from strategies.states import StrategyStates
from strategies.step_fold import StepFold


@dataclass(frozen=True)
class RoundRules:
    """How rounds are run. A count of 0 means "all" for clients and "never" for evaluations.

    ``max_skipped_rounds`` rounds in a row with fewer than ``min_replies`` good replies end the run with an error.
    ``clients_per_message`` bounds how many clients travel together; ``limits`` say what is believed of an update.
    ``round_deadline`` is how long a client may take in a simulated world, in its seconds, 0 = as long as it likes.
    No round begins that would exceed the ``budget`` of privacy. What clients report of training and evaluation has no
    noise, so that a private strategy tells it with ``unprotected_metrics`` only.
    """

    min_replies: int = 1
    max_skipped_rounds: int = 3
    clients_per_message: int = 0
    limits: Limits = field(default_factory=lambda: Limits(MAX_WEIGHT))
    evaluate_every: int = 1
    federated_evaluate_every: int = 0
    federated_evaluate_clients: int = 0
    round_deadline: float = 0.0
    bans: BanRules = field(default_factory=BanRules)
    budget: Budget = field(default_factory=Budget)
    unprotected_metrics: bool = False

    def withhold(self, composition: Composition) -> bool:
        """Tell whether what clients report would undo what this strategy's privacy protects."""
        return composition.privacy.noise_multiplier is not None and not self.unprotected_metrics


def due(number: int, every: int, num_rounds: int) -> bool:
    """Tell whether a round is one of every so many, or the last of the run; none is where ``every`` is 0."""
    return every > 0 and (number % every == 0 or number == num_rounds)


@dataclass(frozen=True)
class RoundTerms:
    """What holds for the updates of one round: by which limits they are judged, how they are clipped and summed.

    ``states`` are those of the strategy when the round was begun; ``norms`` says whether sums tell how long the updates
    in them were.
    """

    composition: Composition
    limits: Limits
    states: StrategyStates
    deadline: float = 0.0
    goal: int = 0
    codec_seed: int = 0
    update_bytes: int = 0
    norms: bool = False

    @classmethod
    def of(
        cls,
        composition: Composition,
        rules: RoundRules,
        addends: int,
        states: StrategyStates,
        size: int,
        codec_seed: int,
        goal: int = 0,
    ) -> RoundTerms:
        """Settle the terms of a step that adds up so many updates, of which ``goal`` are enough (0 = it wants all).

        ``size`` is that of a flat update; ``codec_seed`` is what the clients' codecs have in common. No client may use
        up the range of the exact sum and so shut out the others. Under privacy nothing longer than clipping and noise
        leave it is believed: a node whose app lacks ``clip_mod`` does not add up what is.
        """
        most = _longest(rules.limits.max_norm, composition.privacy.config(states.privacy), size)
        limits = replace(rules.limits, max_contribution=share(max(1, addends)), max_norm=most)
        update_bytes = expected_bytes(composition.codec, size)
        told = not rules.withhold(composition)
        return cls(composition, limits, states, rules.round_deadline, goal, codec_seed, update_bytes, told)

    @cached_property
    def privacy_config(self) -> Mapping[str, float]:
        """How clients and server clip."""
        return self.composition.privacy.config(self.states.privacy)

    @property
    def lengths_tell(self) -> bool:
        """Whether the bytes that clients send depend on what noise is to hide: it comes onto the sum, after them."""
        central = NORM in self.privacy_config and DEVIATION not in self.privacy_config
        return central and not isinstance(self.composition.codec, Dense)

    def settings(self) -> dict[str, ConfigRecordValues]:
        """Return what the mods on the clients, and the world they live in, have to know."""
        aggregator = self.composition.aggregator
        summed = aggregator.weighting if isinstance(aggregator, WeightedMean) else ""
        return {
            wire.SUMMED: summed if self.composition.takes_partial_sums else "",
            wire.NORMS: self.norms,
            wire.DEADLINE: self.deadline,
            wire.GOAL: self.goal,
            wire.UPDATE_BYTES: self.update_bytes,
            **wire.limits_record(self.limits),
            **self.composition.objective.config(self.states.objective),
            **{PREFIX + key: value for key, value in self.privacy_config.items()},
            **self._codec_settings(),
        }

    def _codec_settings(self) -> dict[str, ConfigRecordValues]:
        told = self.composition.codec.settings
        return {**told, wire.CODEC_SEED: self.codec_seed} if told else {}

    def beside(self) -> dict[str, ArrayRecord]:
        """Return the records that travel with the weights: the objective's vectors, each under its name."""
        vectors = self.composition.objective.arrays(self.states.objective)
        return {name: wire.array_record({wire.VECTOR: vector}) for name, vector in vectors.items()}

    def start(self, settings: Mapping[str, ConfigRecordValues], size: int) -> StepFold:
        """Begin to take in updates of flat vectors of this length; ``settings`` are those of the clients."""
        return StepFold.start(self.composition, self.states, settings, size)

    def reader(self, weights: wire.GlobalWeights, described: Mapping[str, int]) -> ReplyReader:
        """Return what reads the replies; ``weights`` are those the clients start from.

        ``described`` are the numbers of examples that clients gave before; who claims more now is not believed.
        """
        composition = self.composition
        return ReplyReader(
            weights,
            composition.codec,
            lambda update: composition.privacy.clip(update, self.privacy_config, weights.layout),
            self.limits,
            composition.takes_partial_sums,
            described,
            self.codec_seed,
            {key: value for key, value in self.privacy_config.items() if key == DEVIATION},
        )


def _longest(max_norm: float, privacy: Mapping[str, float], size: int) -> float:
    """Return the largest norm that is believed, 0 = any; a rounding above what privacy leaves is none."""
    if NORM not in privacy:
        return max_norm
    clipped = longest(privacy, size) * (1 + 2.0**-40)
    return min(max_norm, clipped) if max_norm else clipped
