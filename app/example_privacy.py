"""What DP-SGD has cost the clients of a run: the highest epsilon in each round's record, a table when the run ends.

The ledger knows how often each client was asked, and how many examples it had each time, the task how many steps a
client with so many does in a round; here they meet. All that was ever paid is in the ledger, and so in checkpoints and
in what is written ahead of a round: who comes back with more examples, or not at all, has paid no less for that.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from app.atomic import write_text
from app.compose import example_level
from app.config import RunConfig
from strategies.census import Census
from strategies.privacy.example_level import ClientCost, ExampleLevel, costs, summary
from strategies.privacy.participations import Asked, by_client
from strategies.records import RoundRecord
from strategies.round_loop import Observer
from strategies.updates import State

logger = logging.getLogger(__name__)


@dataclass
class ExamplePrivacy:
    """Follows a run whose clients train by DP-SGD; ``ledger`` says how often they were asked."""

    level: ExampleLevel
    census: Census
    ledger: Callable[[], State]
    _examples: dict[str, int] = field(default_factory=dict)  # of all clients that this process has met
    _paid: dict[str, Asked] = field(default_factory=dict)  # what `_worst` is of
    _worst: float = 0.0

    @classmethod
    def of(cls, config: RunConfig, census: Census, ledger: Callable[[], State]) -> ExamplePrivacy | None:
        """Return what follows a run of this config, None where examples are not private."""
        level = example_level(config)
        return None if level is None else cls(level, census, ledger)

    def tell(self, observers: Sequence[Observer]) -> Observer:
        """Return what tells the observers of each round with the epsilon of the client that has paid most."""

        def observe(record: RoundRecord) -> None:
            told = self.told(record)
            for observer in observers:
                observer(told)

        return observe

    def told(self, record: RoundRecord) -> RoundRecord:
        """Return the record with that epsilon; takes time for those who were asked since, as no other has paid more."""
        self._meet()
        asked = by_client(self.ledger())
        since = {client: times for client, times in asked.items() if self._paid.get(client) != times}
        self._worst = max([self._worst, *(cost.epsilon for cost in costs(self.level, self._known(since), since))])
        self._paid.update(since)
        return replace(record, example_privacy={"epsilon": self._worst, "delta": self.level.delta})

    def write(self, path: Path) -> None:
        """Write the table of all clients, those that paid most first, and log what it says. Raises OSError."""
        self._meet()
        asked = by_client(self.ledger())
        found = costs(self.level, {**self._examples, **self._known(asked)}, asked)
        text = io.StringIO()
        rows = csv.DictWriter(text, [column.name for column in fields(ClientCost)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(cost) for cost in found)
        write_text(path, text.getvalue())
        if found:
            logger.info("%s", summary(found, self.level.delta))

    def _meet(self) -> None:
        population = self.census.population()
        self._examples.update(population.described(population.ids))

    def _known(self, asked: Mapping[str, Asked]) -> dict[str, int]:
        """Return how many examples these clients had last; of who has not been met since a restart, the most."""
        return {client: self._examples.get(client, max(times)) for client, times in asked.items()}


def read_table(path: Path) -> list[ClientCost]:
    """Return what `ExamplePrivacy.write` wrote. Raises OSError, or what reading the wrong columns raises."""
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [_cost(row["client"], row["examples"], row["participations"], row["epsilon"]) for row in rows]


def _cost(client: str, examples: str, participations: str, epsilon: str) -> ClientCost:
    return ClientCost(client, int(examples) if examples else None, int(participations), float(epsilon))
