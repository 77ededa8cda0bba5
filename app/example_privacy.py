"""What DP-SGD has cost the clients of a run: the highest epsilon in each round's record, a table when the run ends.

The strategies count how often each client is asked, the task knows how many steps a client with so many examples does;
here they meet. A client that comes back with another number of examples pays for each round by the number it had then.
Only the counts outlive a process: after a restart earlier rounds are accounted by the number that clients then have.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from app.atomic import write_text
from app.compose import example_level
from app.config import RunConfig
from strategies.census import Census
from strategies.population import Population
from strategies.privacy.example_level import ClientCost, ExampleLevel, costs, summary
from strategies.privacy.participations import by_client
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
    _examples: dict[str, int] = field(default_factory=dict)  # of all clients that were ever there
    _asked: dict[str, Counter[int]] = field(default_factory=dict)
    _met: Population | None = None
    _worst: float | None = None  # of the rounds so far; of those of an earlier process, the ledger knows

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
        """Return the record with that epsilon; takes time for those who were asked, as no other has paid anything."""
        self._meet()
        payers = self._examples.keys() if self._worst is None else self._examples.keys() & set(record.selected)
        examples = {client: self._examples[client] for client in payers}
        found = costs(self.level, examples, self._asked)
        self._worst = max([self._worst or 0.0, *(cost.epsilon for cost in found)])
        return replace(record, example_privacy={"epsilon": self._worst, "delta": self.level.delta})

    def write(self, path: Path) -> None:
        """Write the table of all clients, those that paid most first, and log what it says. Raises OSError."""
        self._meet()
        found = costs(self.level, self._examples, self._asked)
        text = io.StringIO()
        rows = csv.DictWriter(text, [column.name for column in fields(ClientCost)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(cost) for cost in found)
        write_text(path, text.getvalue())
        if found:
            logger.info("%s", summary(found, self.level.delta))

    def _meet(self) -> None:
        """Take down how many examples the clients have, and by it the rounds for which they were asked since.

        It is the same population while nodes stay.
        """
        population = self.census.population()
        if population is not self._met:
            self._met = population
            self._examples.update(population.described(population.ids))
        for client, times in by_client(self.ledger()).items():
            asked = self._asked.setdefault(client, Counter())
            if client in self._examples and (new := times - asked.total()):
                asked[self._examples[client]] += new


def read_table(path: Path) -> list[ClientCost]:
    """Return what `ExamplePrivacy.write` wrote. Raises OSError, or what reading the wrong columns raises."""
    rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    return [_cost(row["client"], row["examples"], row["participations"], row["epsilon"]) for row in rows]


def _cost(client: str, examples: str, participations: str, epsilon: str) -> ClientCost:
    return ClientCost(client, int(examples), int(participations), float(epsilon))
