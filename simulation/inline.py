"""Run a federation inside one process: Flower's ``Grid`` that calls the ClientApp directly.

No Ray, no SuperLink, no threads: for tests, for benchmarks of the server side, and for debugging, because an exception
of a client can be let through with its own stack trace (``raise_client_errors``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp

from app.simulated_process import simulated_here
from simulation.virtual import RUN_ID, VirtualGrid, answer
from strategies.client import client_errors_raised

__all__ = ["RUN_ID", "InlineGrid"]


@dataclass
class InlineGrid(VirtualGrid):
    """Nodes that live in this process. A message is executed when its reply is pulled, so only one is alive at a time.

    ``node_configs`` maps each node's id to its config. Each node keeps its own ``Context`` for the run.
    """

    client_app: ClientApp
    node_configs: Mapping[int, UserConfig]
    run_config: UserConfig = field(default_factory=dict)
    raise_client_errors: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self._waiting: dict[str, Message] = {}
        self._contexts = {
            node: Context(RUN_ID, node, dict(config), RecordDict(), dict(self.run_config))
            for node, config in self.node_configs.items()
        }

    @classmethod
    def of(cls, client_app: ClientApp, num_nodes: int, run_config: UserConfig | None = None) -> InlineGrid:
        """Make nodes as Flower's simulation does: each knows its partition and how many there are."""
        configs: dict[int, UserConfig] = {
            node + 1: {"partition-id": node, "num-partitions": num_nodes} for node in range(num_nodes)
        }
        return cls(client_app, configs, run_config or {})

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; nothing is executed yet."""
        ids = []
        for message in messages:
            ids.append(self._number(message))
            self._waiting[ids[-1]] = message
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Execute the messages and yield the replies one by one."""
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                yield self._execute(message)

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        """Execute the first of these messages, in the order they were sent, and return its reply.

        ``timeout`` cannot interrupt a client in the same process and is not used.
        """
        wanted = set(message_ids)
        for message_id in [message_id for message_id in self._waiting if message_id in wanted]:
            if replies := list(self.pull_messages([message_id])):
                return replies
        return []

    def _execute(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        with simulated_here():
            if not self.raise_client_errors:
                return answer(self.client_app, message, context)
            with client_errors_raised():
                return self.client_app(message=message, context=context)
