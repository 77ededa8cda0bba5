"""The rules of all rounds, and the terms of one: what server and clients have to agree on for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flwr.app import ConfigRecordValues

from strategies import wire
from strategies.admission import Limits
from strategies.aggregators import WeightedMean
from strategies.composition import Composition
from strategies.fixed_point import MAX_WEIGHT, share
from strategies.replies import ReplyReader
from strategies.updates import State, Update


@dataclass(frozen=True)
class RoundRules:
    """How rounds are run. A count of 0 means "all" for clients and "never" for evaluations.

    ``max_skipped_rounds`` rounds in a row with fewer than ``min_replies`` good replies end the run with an error.
    ``clients_per_message`` bounds how many clients travel together; ``limits`` say what is believed of an update.
    """

    min_replies: int = 1
    max_skipped_rounds: int = 3
    clients_per_message: int = 0
    limits: Limits = field(default_factory=lambda: Limits(MAX_WEIGHT))
    evaluate_every: int = 1
    federated_evaluate_every: int = 0
    federated_evaluate_clients: int = 0


@dataclass(frozen=True)
class RoundTerms:
    """What holds for the updates of one round: by which limits they are judged, how they are clipped and summed."""

    composition: Composition
    limits: Limits
    privacy_config: Mapping[str, float]

    @classmethod
    def of(cls, composition: Composition, limits: Limits, cohort_size: int, privacy_state: State) -> RoundTerms:
        """Settle the terms: no client may use up the range of the exact sum and so shut out the others."""
        shared = replace(limits, max_contribution=share(max(1, cohort_size)))
        return cls(composition, shared, composition.privacy.config(privacy_state))

    def settings(self) -> dict[str, ConfigRecordValues]:
        """Return what the mods on the clients have to know."""
        aggregator = self.composition.aggregator
        summed = aggregator.weighting if isinstance(aggregator, WeightedMean) else ""
        return {
            wire.SUMMED: summed if self.composition.takes_partial_sums else "",
            **wire.limits_record(self.limits),
            **{f"privacy-{key}": value for key, value in self.privacy_config.items()},
        }

    def reader(self, weights: wire.GlobalWeights, described: Mapping[str, int]) -> ReplyReader:
        """Return what reads the replies; ``weights`` are those the clients start from.

        ``described`` are the numbers of examples that clients gave before; who claims more now is not believed.
        """
        composition = self.composition
        return ReplyReader(
            weights, composition.codec, self._clip, self.limits, composition.takes_partial_sums, described
        )

    def _clip(self, update: Update) -> Update:
        return self.composition.privacy.clip(update, self.privacy_config)
