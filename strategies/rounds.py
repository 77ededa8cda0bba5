"""One round in flight: who was asked and on which terms, what became of each client, and the clock of its phases."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecordValues, Message

from strategies import wire
from strategies.admission import Reason
from strategies.aggregators import Aggregator
from strategies.bans import Bans
from strategies.diversity import diversity
from strategies.errors import LayoutError, StrategyError
from strategies.population import Population
from strategies.privacy.clipping import WITHIN
from strategies.privacy.local_dp import DEVIATION
from strategies.privacy.spending import Spending
from strategies.records import ClientScores, RoundRecord
from strategies.replies import Outcome, Rejection
from strategies.requests import Correspondence
from strategies.step_fold import Counted, StepFold
from strategies.terms import RoundTerms
from strategies.update_norms import norms_told, told_norm
from strategies.updates import PartialSum, mean_metrics
from strategies.wire import GlobalWeights

logger = logging.getLogger(__name__)

LOGGED_REJECTIONS = 3
WAYS_OF_THE_WORLD = frozenset({Reason.DROPOUT, Reason.LATE})  # of a simulated one, which has decided so
NO_MEANS = frozenset({wire.NUM_EXAMPLES, wire.STEPS, wire.UPDATE_NORM, WITHIN, DEVIATION})  # a mean says nothing
NOBODY_CONNECTED = "no node with clients was connected"
NOBODY_ONLINE = "no client is online, and none will ever be ('availability', 'availability-trace')"
NOBODY_ALLOWED = "every client that is or will be online is banned ('ban-after', 'ban-rounds')"
NOBODY_DRAWN = "chance has drawn no client ('selection': the larger 'clients-per-round', the rarer that is)"


@dataclass
class RoundProgress:
    """Collects what `RoundRecord` tells of a round.

    ``counted`` holds (client, weight, metrics) of each update that counts. With a ``goal`` the round is complete when
    so many do, and what comes later is surplus. ``population`` holds the clients there are, online or not.
    ``simulated`` says that the clients live in a simulated world, in which it is usual to drop out or to be late.
    ``bans`` learns what each client did; ``banned`` clients could not be drawn, and ``offered`` ones could.
    ``repeated`` counts the clients of the replies that came again, which change nothing else.
    """

    round: int
    cohort: list[str] = field(default_factory=list)
    learning_rate: float | None = None
    goal: int = 0
    population: Population = field(default_factory=lambda: Population((), ()))
    simulated: bool = False
    bans: Bans = field(default_factory=Bans)
    banned: int = 0
    offered: int = 0
    counted: list[Counted] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    staleness: list[int] = field(default_factory=list)  # steps of the server that each counted update has missed
    seconds: dict[str, float] = field(default_factory=dict)
    simulated_seconds: float | None = None
    privacy: Spending | None = None  # what the rounds so far have cost
    checkpoint: int | None = None  # the last round before this one whose state is kept
    failed_checkpoints: int = 0  # in a row, of rounds before this one
    withheld: bool = False  # whether what clients report is not to be told
    norms: list[float] = field(default_factory=list)  # of the updates that count, as far as they are told
    bytes_down: int = 0
    bytes_up: int = 0
    uplink: Mapping[str, float] | None = None  # bytes of a client's update
    expected_bytes: int = 0  # of an update, told instead where what came would tell of the clients' data
    skipped: str = ""  # why the round is skipped
    first_rejection: Rejection | None = None  # the first unusual one, where there is any
    unusual: int = 0  # rejections for which there should be no reason
    started: float = field(default_factory=time.perf_counter)

    @property
    def complete(self) -> bool:
        """Whether as many updates count as the round needs; never, where it wants all it can get."""
        return 0 < self.goal <= len(self.counted)

    def take(self, outcome: Outcome, step: StepFold) -> None:
        """Take an update or a partial sum into the step, or count a rejection.

        What the step refuses (weights that are not the rule's, a sum out of range) is rejected too; a refusal changes
        nothing in it. So is what comes to a complete round; a partial sum counts whole or not at all.
        """
        if isinstance(outcome, Rejection):
            self.reject(outcome)
            return
        clients = outcome.clients if isinstance(outcome, PartialSum) else (outcome.client,)
        if self.complete:
            self._reject_all(clients, Reason.SURPLUS)
            return
        try:
            self.counted.extend(step.take(outcome))
        except (LayoutError, OverflowError) as error:
            reason = Reason(error.reason) if isinstance(error, LayoutError) else Reason.NORM
            self._reject_all(clients, reason, str(error))
            return
        for client in clients:
            self.bans.clear(client)
        if self.withheld:
            return
        if isinstance(outcome, PartialSum):
            self.norms.extend(norms_told(outcome.metrics.values()))
        else:
            self.norms.append(told_norm(outcome.delta))

    def reject(self, rejection: Rejection) -> None:
        """Count a rejection under its reason, and warn of the first few of a round, unless they are to be expected."""
        self.rejected[rejection.reason.value] += 1
        self.bans.hold_against(rejection.client, rejection.reason, self.round)
        usual = rejection.reason == Reason.SURPLUS or (self.simulated and rejection.reason in WAYS_OF_THE_WORLD)
        if self.first_rejection is None or not (usual or self.unusual):
            self.first_rejection = rejection
        self.unusual += not usual
        level = logging.DEBUG if usual or self.unusual > LOGGED_REJECTIONS else logging.WARNING
        logger.log(level, "Round %d: rejected (%s) %s", self.round, rejection.reason, rejection)

    def reject_unanswered(self, clients: Sequence[str]) -> None:
        """Count the clients without a reply: late, unless the round was complete without them."""
        self._reject_all(clients, Reason.SURPLUS if self.complete else Reason.LATE)

    def note_repeated(self, clients: Sequence[str]) -> None:
        """Count the clients of replies that came again, and warn of the first; what each sent first is taken."""
        if not clients:
            return
        level = logging.DEBUG if self.repeated else logging.WARNING
        self.repeated += len(clients)
        told = "Round %d: replies came again, as of client %s; the first alone is taken"
        logger.log(level, told, self.round, clients[0])

    def _reject_all(self, clients: Sequence[str], reason: Reason, detail: str = "") -> None:
        for client in clients:
            self.reject(Rejection(client, reason, detail))

    def shortfall(self, min_replies: int, aggregator: Aggregator) -> str:
        """Return why the round cannot count, "" where it can."""
        good, needed = len(self.counted), max(1, min_replies)
        if good >= needed:
            return aggregator.shortfall(good)
        if not self.cohort:
            return self._why_nobody()
        return f"{good} of {len(self.cohort)} clients gave a good reply, but {needed} are needed ('min-replies')"

    def note_banned(self, population: Population) -> Collection[str]:
        """Return the clients that must not be asked in this round, and count those of them that there are."""
        banned = self.bans.banned(self.round)
        self.banned = sum(client in population for client in banned)
        return banned

    def _why_nobody(self) -> str:
        if self.drawn_empty:
            return NOBODY_DRAWN
        if self.banned:
            return NOBODY_ALLOWED
        return NOBODY_ONLINE if self.population else NOBODY_CONNECTED

    @property
    def drawn_empty(self) -> bool:
        """Whether clients were there and the sampler drew none: a legal outcome, which ends no run."""
        return self.offered > 0 and not self.cohort

    @property
    def fruitless(self) -> bool:
        """Whether nothing good came of the round, even where it has counted: privacy may release noise alone."""
        return bool(self.skipped) or not self.counted

    def skip(self, why: str) -> tuple[None, None]:
        """Let the round not count; returns what Flower takes for no new weights and no metrics."""
        self.skipped = why
        logger.warning("Round %d skipped, the model stays as it is: %s", self.round, why)
        return None, None

    def end_run_if_hopeless(self, skipped: int, most: int) -> None:
        """Raise StrategyError where this is the last of as many skipped rounds in a row as a run may have."""
        if skipped and skipped >= most:
            first = f" (the first: {self.first_rejection})" if self.first_rejection else ""
            what, why = ("skipped rounds", self.skipped) if self.skipped else ("rounds", "no client gave a good reply")
            raise StrategyError(
                f"The run ends after {skipped} {what} in a row ('max-skipped-rounds'), the last because {why}{first}."
            )

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the seconds of a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def add_bytes(self, down: int, up: int) -> None:
        """Count what a phase has sent and received."""
        self.bytes_down += down
        self.bytes_up += up

    def train_metrics(self) -> dict[str, float]:
        """Return the means over the clients that count, weighted as in the aggregate; none where they are withheld."""
        if self.withheld:
            return {}
        rows = [(weight, metrics) for _, weight, metrics in self.counted]
        return {name: value for name, value in mean_metrics(rows).items() if name not in NO_MEANS}

    def _diversity(self) -> dict[str, Any] | None:
        """Return which groups took part; None where it must stay secret who did, as a group may be a single client."""
        if self.withheld:
            return None
        return diversity(self.population, self.cohort, [client for client, _, _ in self.counted])

    def record(self, central: Mapping[str, float] | None, federated: ClientScores | None) -> RoundRecord:
        """Close the round."""
        return RoundRecord(
            round=self.round,
            selected=tuple(self.cohort),
            accepted=tuple(sorted(client for client, _, _ in self.counted)),
            rejected=dict(self.rejected),
            repeated=self.repeated,
            banned=self.banned,
            skipped=bool(self.skipped),
            learning_rate=self.learning_rate,
            train=self.train_metrics(),
            central=central,
            federated=federated,
            bytes_down=self.bytes_down,
            bytes_up=self.expected_bytes * len(self.counted) if self.expected_bytes else self.bytes_up,
            uplink=self.uplink,
            seconds={**self.seconds, "total": time.perf_counter() - self.started},
            simulated_seconds=self.simulated_seconds,
            staleness=_spread(self.staleness),
            privacy=None if self.privacy is None else self.privacy.on_mean_of(len(self.counted)),
            checkpoint=self.checkpoint,
            failed_checkpoints=self.failed_checkpoints,
            offered=self.offered,
            diversity=self._diversity(),
            norms=tuple(self.norms),
        )


@dataclass(frozen=True)
class RoundInFlight:
    """A round whose requests are written: from which weights, on which terms, and what is known of it so far.

    ``weights`` are the server's, and ``start`` what the clients were sent of them. ``settings`` are those that they
    were sent; ``described`` are the numbers of examples that the clients of the cohort gave before.
    """

    progress: RoundProgress
    weights: GlobalWeights
    start: GlobalWeights
    terms: RoundTerms
    settings: Mapping[str, ConfigRecordValues]
    described: Mapping[str, int]
    letters: Correspondence

    def fold(self, replies: Iterable[Message]) -> StepFold:
        """Take the replies in one by one as the iterable yields them, until all have come or the round is complete."""
        progress, step = self.progress, self.terms.start(self.settings, self.weights.layout.size)
        reader = self.terms.reader(self.start, self.described)
        for reply, asked in self.letters.answered(replies):
            with progress.phase("aggregate"):
                for outcome in reader.read(reply, asked):
                    progress.take(outcome, step)
            if progress.complete:
                break
        progress.reject_unanswered(self.letters.unanswered())
        progress.note_repeated(self.letters.repeated)
        if progress.withheld and self.terms.lengths_tell:
            progress.expected_bytes = self.terms.update_bytes
        else:
            progress.uplink = self.letters.uplink.told(self.weights.flat)
        return step


def rate_of(settings: Mapping[str, ConfigRecordValues]) -> float | None:
    """Return the learning rate of a round, where its settings name one."""
    rate = settings.get(wire.LEARNING_RATE)
    return float(rate) if isinstance(rate, int | float) else None


def _spread(staleness: Sequence[int]) -> dict[str, float] | None:
    if not staleness:
        return None
    return {"mean": sum(staleness) / len(staleness), "largest": float(max(staleness))}
