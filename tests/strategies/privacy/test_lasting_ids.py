"""Privacy that goes by how often each client takes part needs clients that stay the same when a node restarts."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Context, Message
from flwr.clientapp import ClientApp

from simulation.inline import InlineGrid
from strategies import registry
from strategies.client import client_mods
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.privacy.budget import Budget
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy

CYCLIC: dict[str, Option] = {"selection": "cyclic", "pass-rounds": 2}
GOES_BY_CLIENT: list[tuple[str, dict[str, Option], bool]] = [
    ("dp-ftrl", CYCLIC, False),
    ("dp-mf", CYCLIC, False),
    ("local-dp", {}, False),
    ("fedavg", {"privacy": "local-dp"}, False),
    ("fedavg", {}, True),
]
GOES_BY_SAMPLING_OR_NOTHING: list[tuple[str, dict[str, Option], bool]] = [
    ("dp-fedavg", {}, False),
    ("fedavg", {}, False),
    ("fedavg", CYCLIC, False),
]


def stock_app() -> ClientApp:
    """Clients of an app that adds our mods, but does not describe itself."""
    app = ClientApp()

    @app.train(mods=client_mods())
    def train(message: Message, context: Context) -> Message:
        return Message(toy.honest_content("0"), reply_to=message)

    return app


def strategy_of(name: str, options: dict[str, Option], by_client: bool) -> FederatedStrategy:
    composition = registry.build(name, {"clients-per-round": 2, "noise-multiplier": 1.0, **options})
    rules = RoundRules(limits=toy.LIMITS, budget=Budget(by_client=by_client))
    return FederatedStrategy(composition, rules, seed=3)


def nodes(app: ClientApp) -> InlineGrid:
    return InlineGrid.of(app, 4)


@pytest.mark.parametrize(("name", "options", "by_client"), GOES_BY_CLIENT)
def test_nodes_that_name_no_clients_are_refused_before_anybody_is_asked(
    name: str, options: dict[str, Option], by_client: bool
) -> None:
    with pytest.raises(StrategyError, match=r"Node 1 does not say which clients it hosts.* how often each client"):
        strategy_of(name, options, by_client).start(nodes(stock_app()), toy.start_arrays(), num_rounds=1)
    strategy = strategy_of(name, options, by_client)
    with pytest.raises(StrategyError, match="Node 1 does not say which clients it hosts"):
        strategy.configure_train(1, toy.start_arrays(), ConfigRecord(), nodes(stock_app()))


@pytest.mark.parametrize(("name", "options", "by_client"), GOES_BY_SAMPLING_OR_NOTHING)
def test_where_nothing_hangs_on_their_names_they_take_part(
    name: str, options: dict[str, Option], by_client: bool
) -> None:
    strategy_of(name, options, by_client).start(nodes(stock_app()), toy.start_arrays(), num_rounds=1)


@pytest.mark.parametrize(("name", "options", "by_client"), GOES_BY_CLIENT)
def test_nodes_that_name_their_clients_take_part(name: str, options: dict[str, Option], by_client: bool) -> None:
    strategy_of(name, options, by_client).start(InlineGrid.of(toy.app(), 2), toy.start_arrays(), num_rounds=1)
