"""Flaws of flwr's own strategies in drawing clients and in FedProx: each test fails stock code and passes ours."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedProx

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.census import Census
from strategies.client import client_mods
from strategies.describe import NodeDescription
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo

NODES = 20
START = ArrayRecord([np.zeros(3, np.float32)])


def app() -> ClientApp:
    """Clients that are called as their partitions are, whatever the ids of their nodes."""
    client_app = ClientApp()

    @client_app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        client = f"client-{int(context.node_config['partition-id']):02}"
        return Message(NodeDescription((ClientInfo(client, 10),)).to_content(), reply_to=message)

    @client_app.train(mods=client_mods())
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return client_app


class Late(InlineGrid):
    """Nodes of which all but two connect only after somebody has looked."""

    looks = 0

    def get_node_ids(self) -> Iterable[int]:
        self.looks += 1
        return list(super().get_node_ids())[: None if self.looks > 1 else 2]


def grid(first_id: int = 1) -> InlineGrid:
    """Twenty nodes with ids from this number on."""
    return InlineGrid(app(), {first_id + place: {"partition-id": place} for place in range(NODES)})


def by_stock(nodes: InlineGrid, round: int = 1) -> set[int]:
    """The partitions that stock FedAvg draws, a quarter of them."""
    messages = FedAvg(fraction_train=0.25, min_available_nodes=NODES).configure_train(
        round, START, ConfigRecord(), nodes
    )
    return {int(nodes.node_configs[message.metadata.dst_node_id]["partition-id"]) for message in messages}


def by_ours(nodes: InlineGrid, round: int = 1) -> set[str]:
    """The clients that we draw, a quarter of them."""
    strategy = FederatedStrategy(registry.build("fedavg", {"clients-per-round": 5}), seed=1)
    messages = strategy.configure_train(round, START, ConfigRecord(), nodes)
    return {client for message in messages for client in wire.text_list(wire.config_of(message), "clients")}


def test_what_else_is_drawn_in_the_process_changes_whom_stock_draws_and_not_whom_we_draw() -> None:
    cohorts = []
    for draws in (0, 1):
        random.seed(1)
        for _ in range(draws):
            random.random()
        cohorts.append((by_stock(grid()), by_ours(grid())))
    (stock, ours), (stock_again, ours_again) = cohorts
    assert stock != stock_again
    assert ours == ours_again and len(ours) == 5


def test_stock_has_to_draw_all_rounds_before_to_draw_one_again() -> None:
    random.seed(1)
    second = [by_stock(grid(), round) for round in (1, 2)][1]
    random.seed(1)
    assert by_stock(grid(), 2) != second
    ours = [by_ours(grid(), round) for round in (1, 2)]
    assert by_ours(grid(), 2) == ours[1] != ours[0]


def test_the_order_of_nodes_changes_whom_stock_draws_and_not_whom_we_draw() -> None:
    """Flower gives nodes random ids; here they connect in another order, with other ids."""

    def turned() -> InlineGrid:
        return InlineGrid(app(), {100 + place: {"partition-id": place} for place in reversed(range(NODES))})

    random.seed(1)
    stock = by_stock(grid())
    random.seed(1)
    assert by_stock(turned()) != stock
    assert by_ours(turned()) == by_ours(grid())


def test_stock_counts_its_share_before_the_nodes_are_there() -> None:
    """All are to train, and 20 are waited for: two do. Ours draws from those that were waited for."""
    stock = FedAvg(fraction_train=1.0, min_available_nodes=NODES)
    assert len(list(stock.configure_train(1, START, ConfigRecord(), Late(app(), grid().node_configs)))) == 2
    nodes = Late(app(), grid().node_configs)
    census = Census(nodes, 10.0)
    census.start(min_nodes=NODES, node_timeout=10.0)
    strategy = FederatedStrategy(registry.build("fedavg", {"clients-per-round": 0}), census=census)
    messages = strategy.configure_train(1, START, ConfigRecord(), nodes)
    assert sum(len(wire.text_list(wire.config_of(message), "clients")) for message in messages) == NODES


def test_stock_fedprox_tells_clients_to_forget_the_square() -> None:
    """The example of its docstring adds mu/2 ||w - w_t||, which pulls no more the farther a client is."""
    import tensorflow as tf

    from tasks.objective import Terms

    assert FedProx.__doc__ is not None
    line = next(line for line in FedProx.__doc__.splitlines() if ".norm(2)" in line)
    assert "**" not in line and "square" not in line
    begun, local = tf.zeros(2), tf.constant([3.0, 4.0])
    assert Terms([tf.constant(0.5), begun]).values([local])[0].numpy() == 0.5 / 2 * 5**2
