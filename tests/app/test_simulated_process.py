"""Who is certain to be simulated: clients called in this process by a simulation, and nobody else here."""

from __future__ import annotations

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from app.hosting import hosts_any, is_simulated
from app.simulated_process import in_simulation, simulated_here
from simulation.inline import InlineGrid

FLOWERS = {"partition-id": 0, "num-partitions": 2}


def test_a_config_alone_makes_nobody_simulated() -> None:
    """A SuperNode started with --node-config 'partition-id=0 num-partitions=2' has the very config of a simulation."""
    assert hosts_any(FLOWERS) and not is_simulated(FLOWERS)
    with simulated_here():
        assert is_simulated(FLOWERS)
        assert not is_simulated({**FLOWERS, "client-id": "east"})
        assert not is_simulated({**FLOWERS, "data-path": "own.npz"})
        assert not is_simulated({})
    assert not is_simulated(FLOWERS)


def test_it_ends_with_the_call_whatever_happens() -> None:
    with pytest.raises(OSError, match="no disk"), simulated_here():
        raise OSError("no disk")
    assert not in_simulation()


@pytest.mark.parametrize("raised", [False, True])
def test_a_grid_in_this_process_says_so_of_its_clients_alone(raised: bool) -> None:
    app, found = ClientApp(), []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        found.append(is_simulated(context.node_config))
        return Message(RecordDict(), reply_to=message)

    deployed = {"client-id": "east"}
    grid = InlineGrid(app, {1: dict(FLOWERS), 2: deployed}, raise_client_errors=raised)  # type: ignore[dict-item]
    replies = list(grid.send_and_receive([Message(RecordDict(), node, "train") for node in (1, 2)]))
    assert len(replies) == 2
    assert found == [True, False]
    assert not in_simulation()
