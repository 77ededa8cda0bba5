"""A simulated world whose clients take as long as a script says, and move the model by what it says."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from simulation.inline import InlineGrid
from strategies import wire
from strategies.client import packing_mod
from strategies.describe import NodeDescription
from strategies.population import ClientInfo
from tests.strategies import toy_federation as toy

SIZE = 3
Start = tuple[str, int, int]  # client, how often it has begun before, steps of the server that made its model
Delta = Callable[[Start, np.ndarray], np.ndarray | None]  # also of the weights that the client was sent
Duration = Callable[[Start], float]


def examples(client: str) -> int:
    return 10 * (int(client) + 1)


@dataclass
class ScriptedWorld(InlineGrid):
    """Clients "0", "1", ... on every node; a client's delta of None stands for a failure.

    ``reverse`` hands out what arrives at one instant in another order; ``away`` says who is not online at a time.
    """

    count: int = 4
    duration: Duration = lambda start: 1.0
    delta: Delta = lambda start, weights: np.ones(3, np.float32)
    reverse: bool = False
    away: Callable[[str, float], bool] = lambda client, now: False
    never_online: bool = False
    time: float = 0.0
    starts: list[tuple[float, Start]] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._due: dict[str, tuple[float, Start]] = {}
        self._begun: dict[str, int] = {}

    @classmethod
    def with_nodes(cls, nodes: int = 2, **script: object) -> "ScriptedWorld":
        return cls(toy.app(), InlineGrid.of(toy.app(), nodes).node_configs, **script)  # type: ignore[arg-type]

    # A world.

    def now(self) -> float:
        return self.time

    def set_clock(self, seconds: float) -> None:
        self.time = seconds

    def online(self, clients: Sequence[str]) -> list[str]:
        return [] if self.never_online else [one for one in clients if not self.away(one, self.time)]

    def wait_for_clients(self, banned: Collection[str] = frozenset()) -> bool:
        self.time += 1.0
        return not self.never_online

    # A grid.

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        for message_id, message in zip(ids, messages, strict=True):
            if message.metadata.message_type == "train":
                self.sent.append(message)
                self._begin(message_id, message)
        return ids

    def _begin(self, message_id: str, message: Message) -> None:
        config = wire.config_of(message)
        clients = wire.text_list(config, "clients")
        base = int(wire.number(config, "base-version")) if "base-version" in config else -1
        starts = [(client, self._begun.get(client, 0), base) for client in clients]
        self._begun.update((client, before + 1) for client, before, _ in starts)
        self.starts.extend((self.time, start) for start in starts)
        self._due[message_id] = self.time + max(map(self.duration, starts)), starts[0]

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        ids = [message_id for message_id in message_ids if message_id in self._waiting]
        due = min((self._due.get(message_id, (self.time,))[0] for message_id in ids), default=float("inf"))
        if due > self.time + timeout:
            self.time += timeout
            return []
        self.time = due
        self.arrivals.append(due)
        now = sorted(message_id for message_id in ids if self._due.get(message_id, (due,))[0] == due)
        return list(self.pull_messages(now[::-1] if self.reverse else now))

    def _execute(self, message: Message) -> Message:
        if message.metadata.message_type == "query.describe":
            infos = tuple(ClientInfo(str(number), examples(str(number))) for number in range(self.count))
            return Message(NodeDescription(infos).to_content(), reply_to=message)
        if message.metadata.message_type == "evaluate":
            return super()._execute(message)
        return packing_mod(message, self._contexts[message.metadata.dst_node_id], self._trained)

    def _trained(self, message: Message, context: object) -> Message:
        client = str(wire.config_of(message)["client"])
        start = next(start for _, start in reversed(self.starts) if start[0] == client)
        delta = self.delta(start, wire.read_weights(wire.arrays_of(message.content, "arrays")).flat)
        if delta is None:
            raise RuntimeError("no battery")
        content = {
            wire.UPDATE: wire.array_record({wire.DELTA: delta}),
            wire.METRICS: MetricRecord({"num-examples": examples(client), "loss": float(client)}),
        }
        return Message(RecordDict(content), reply_to=message)
