"""Run a federation inside one process: Flower's ``Grid`` that calls the ClientApp directly.

No Ray, no SuperLink, no threads: for tests, for benchmarks of the server side, and for debugging, because an exception
of a client can be let through with its own stack trace (``raise_client_errors``).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1


@dataclass
class InlineGrid(Grid):
    """Nodes that live in this process. A message is executed when its reply is pulled, so only one is alive at a time.

    ``node_configs`` maps each node's id to its config. Each node keeps its own ``Context`` for the run.
    """

    client_app: ClientApp
    node_configs: Mapping[int, UserConfig]
    run_config: UserConfig = field(default_factory=dict)
    raise_client_errors: bool = False

    def __post_init__(self) -> None:
        TaskIdentity.run_id = RUN_ID  # Flower's Message asks for these, which its processes set at their start
        TaskIdentity.node_id = 1
        TaskIdentity.task_id = 1
        self._ids = count(1)
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

    def set_run(self, run: Run) -> None:
        """There is one run, and it is known."""

    @property
    def run(self) -> Run:
        """The run, of which only the id means something here."""
        return Run.create_empty(RUN_ID)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message, as Flower's deprecated method does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; nothing is executed yet."""
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"message-{next(self._ids)}"  # as Flower's own grids do
            self._waiting[message.metadata.message_id] = message
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Execute the messages and yield the replies one by one."""
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                yield self._execute(message)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Execute the messages; ``timeout`` cannot interrupt a client in the same process and is not used."""
        return list(self.pull_messages(self.push_messages(messages)))

    def _execute(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            return self.client_app(message=message, context=context)
        except Exception as error:
            if self.raise_client_errors:
                raise
            traceback.print_exc()
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
