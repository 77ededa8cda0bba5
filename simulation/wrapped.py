"""A grid around another: what it does not do itself, the one inside does."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from simulation.virtual import WaitedGrid
from strategies import wire
from strategies.exchange import ArrivalGrid

TRAIN = "train"


class WrappedGrid(WaitedGrid):
    """Hands everything on. ``grid`` must be an `ArrivalGrid` too; if it packs, so does this."""

    def __init__(self, grid: Grid) -> None:
        if not isinstance(grid, ArrivalGrid):
            raise TypeError(
                f"{type(self).__name__} needs a grid with next_arrivals, which {type(grid).__name__} has not."
            )
        self.grid: Grid = grid
        self._arrivals: ArrivalGrid = grid
        if hasattr(grid, "packs"):
            self.packs = grid.packs

    def set_run(self, run: Run) -> None:
        """Hand the run on."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self.grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Create a message, as the grid does."""
        return self.grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes' ids."""
        return self.grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send the messages."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self.grid.pull_messages(message_ids)

    def next_arrivals(self, message_ids: Collection[str], timeout: float) -> list[Message]:
        """Wait for the next replies."""
        return self._arrivals.next_arrivals(message_ids, timeout)


def is_training(message: Message) -> bool:
    """Tell whether a message asks listed clients to train."""
    return message.metadata.message_type == TRAIN and wire.CLIENTS in wire.config_of(message)
