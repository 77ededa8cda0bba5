"""One round in progress: who was asked, what became of each client, and the clock of its phases."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from strategies.admission import Reason
from strategies.aggregators import Aggregator, Fold
from strategies.errors import LayoutError
from strategies.records import ClientScores, RoundRecord
from strategies.replies import Outcome, Rejection
from strategies.updates import PartialSum, mean_metrics

logger = logging.getLogger(__name__)

LOGGED_REJECTIONS = 3


@dataclass
class RoundProgress:
    """Collects what `RoundRecord` tells of a round. ``weights`` and ``metrics`` are those of the clients that count."""

    round: int
    cohort: Sequence[str] = ()
    learning_rate: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)
    rejected: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    skipped: str = ""  # why the round is skipped
    first_rejection: Rejection | None = None
    started: float = field(default_factory=time.perf_counter)

    def take(self, outcome: Outcome, aggregator: Aggregator, fold: Fold) -> None:
        """Fold an update or a partial sum into the aggregate, or count a rejection.

        What the fold refuses (weights that are not the rule's, a sum out of range) is rejected too; a refusal changes
        nothing in the fold.
        """
        clients = outcome.clients if isinstance(outcome, PartialSum) else (outcome.client,)
        try:
            if isinstance(outcome, Rejection):
                self.reject(outcome)
            elif isinstance(outcome, PartialSum):
                fold.merge(outcome)
                self.weights.update(outcome.weights)
                self.metrics.update(outcome.metrics)
            else:
                fold.add(outcome)
                self.weights[outcome.client] = aggregator.weight_of(outcome)
                self.metrics[outcome.client] = outcome.metrics
        except (LayoutError, OverflowError) as error:
            reason = Reason(error.reason) if isinstance(error, LayoutError) else Reason.NORM
            for client in clients:
                self.reject(Rejection(client, reason, str(error)))

    def reject(self, rejection: Rejection) -> None:
        """Count a rejection under its reason, and log the first few of a round with what is known of them."""
        self.rejected[rejection.reason.value] += 1
        self.first_rejection = self.first_rejection or rejection
        if self.rejected.total() <= LOGGED_REJECTIONS:
            logger.warning("Round %d: rejected (%s) %s", self.round, rejection.reason, rejection)

    def reject_late(self, clients: Sequence[str]) -> None:
        """Count the clients whose reply had not come by the deadline."""
        for client in clients:
            self.reject(Rejection(client, Reason.LATE))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the seconds of a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def train_metrics(self) -> dict[str, float]:
        """Return the means over the clients that count, weighted as in the aggregate."""
        rows = ((weight, self.metrics.get(client, {})) for client, weight in sorted(self.weights.items()))
        return {name: value for name, value in mean_metrics(rows).items() if name != "num-examples"}

    def record(self, central: Mapping[str, float] | None, federated: ClientScores | None) -> RoundRecord:
        """Close the round."""
        return RoundRecord(
            round=self.round,
            selected=tuple(self.cohort),
            accepted=tuple(sorted(self.weights)),
            rejected=dict(self.rejected),
            skipped=bool(self.skipped),
            learning_rate=self.learning_rate,
            train=self.train_metrics(),
            central=central,
            federated=federated,
            bytes_down=self.bytes_down,
            bytes_up=self.bytes_up,
            seconds={**self.seconds, "total": time.perf_counter() - self.started},
        )
