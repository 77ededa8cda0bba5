"""Private rounds as a federation runs them: what is sampled, packed, lost or unequal never changes the noise."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecordValues, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.client import client_mods, delta_mod, packing_mod
from strategies.composition import Composition
from strategies.describe import SIMULATED, NodeDescription
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from strategies.server_model import ServerModel
from strategies.terms import RoundRules

CLIENTS = tuple(str(number) for number in range(8))
MODEL = {"kernel": np.zeros((2, 2), np.float32), "bias": np.zeros(1, np.float32)}
PRIVATE: dict[str, Option] = {
    "clients-per-round": 4,
    "selection": "uniform",
    "privacy": "dp-fedavg",
    "clipping-norm": 0.5,
}

Move = Callable[[str, np.ndarray], np.ndarray]
Change = Callable[[Composition], Composition]


def unchanged(parts: Composition) -> Composition:
    return parts


def by_number(client: str, weights: np.ndarray) -> np.ndarray:
    """A client's step: some shorter and some longer than the norm, with thirds so that sums round."""
    return weights + np.float32((int(client) + 1) / 30)


@dataclass(frozen=True)
class Clients:
    """An app whose clients move all weights, of unequal numbers of examples; ``broken`` ones raise."""

    move: Move = by_number
    broken: frozenset[str] = frozenset()
    properties: Mapping[str, ConfigRecordValues] = field(default_factory=lambda: {SIMULATED: True})
    mods: Sequence[Mod] = field(default_factory=client_mods)

    def app(self) -> ClientApp:
        client_app = ClientApp()

        @client_app.query("describe")
        def describe(message: Message, context: Context) -> Message:
            infos = tuple(ClientInfo(client, 10 ** int(client)) for client in CLIENTS)
            return Message(NodeDescription(infos, properties=self.properties).to_content(), reply_to=message)

        @client_app.train(mods=list(self.mods))
        def train(message: Message, context: Context) -> Message:
            config = wire.config_of(message)
            client = str(config.get("client") or wire.text_list(config, "clients")[0])
            if client in self.broken:
                raise OSError("no disk")
            weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
            moved = [self.move(client, np.asarray(array)) for array in weights.arrays]
            arrays = wire.array_record(dict(zip(weights.layout.names, moved, strict=True)))
            metrics = MetricRecord({"num-examples": 10 ** int(client), "loss": 1.0})
            return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

        @client_app.evaluate(mods=client_mods())
        def evaluate(message: Message, context: Context) -> Message:
            metrics = MetricRecord({"num-examples": 5, "loss": 0.5, "accuracy": 0.75})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        return client_app


def run(
    clients: Clients,
    options: Mapping[str, Option] = PRIVATE,
    model: Mapping[str, np.ndarray] = MODEL,
    *,
    rounds: int = 1,
    nodes: int = 2,
    seed: int = 7,
    packed: int = 0,
    skipped: int = 3,
    told: bool = False,
    change: Change = unchanged,
) -> tuple[np.ndarray, list[RoundRecord], ServerModel]:
    """Return the final weights as one vector, the records of the rounds, and what the server remembers."""
    records: list[RoundRecord] = []
    rules = RoundRules(
        clients_per_message=packed, max_skipped_rounds=skipped, unprotected_metrics=told, federated_evaluate_every=1
    )
    strategy = FederatedStrategy(change(registry.build("fedavg", options)), rules, seed, observers=[records.append])
    arrays: ArrayRecord = wire.array_record(dict(model))
    result = strategy.start(InlineGrid.of(clients.app(), nodes), arrays, num_rounds=rounds)
    return wire.read_weights(result.arrays).flat, records[1:], strategy.model


def exactly(number: str) -> float:
    """What a client adds to each of five weights: its step, but at most 0.5 / sqrt(5)."""
    return min((int(number) + 1) / 30, 0.5 / math.sqrt(5))


def check_equal_weights(change: Change, packed: int = 0) -> None:
    """Clients of 1 to 10,000,000 examples; without noise."""
    weights, (record,), _ = run(Clients(), {**PRIVATE, "noise-multiplier": 0}, packed=packed, change=change)
    assert len(record.accepted) == 4
    assert weights == pytest.approx([sum(map(exactly, record.accepted)) / 4] * 5, rel=1e-6)


@pytest.mark.parametrize("packed", [0, 1])
def test_without_noise_the_sum_of_what_was_clipped_is_divided_by_the_expected_cohort(packed: int) -> None:
    check_equal_weights(unchanged, packed)


@pytest.mark.parametrize("privacy", ["dp-fedavg", "dp-fedavg-adaptive"])
@pytest.mark.parametrize("selection", ["uniform", "poisson"])
def test_packing_and_nodes_change_no_bit(privacy: str, selection: str) -> None:
    options = {**PRIVATE, "privacy": privacy, "selection": selection, "noise-multiplier": 0.3}
    packed, records, model = run(Clients(), options, rounds=5)
    single, others, other = run(Clients(), options, rounds=5, nodes=3, packed=1)
    assert packed.tobytes() == single.tobytes()
    assert [record.accepted for record in records] == [record.accepted for record in others]
    assert model.states.privacy == other.states.privacy


def check_server(change: Change) -> None:
    """Whoever does not clip is clipped by the server: a stock app, full arrays, no mods, and a step of 1e6."""
    clients, options = Clients(lambda client, w: w + np.float32(1e6), mods=()), {**PRIVATE, "noise-multiplier": 0}
    weights, (record,), _ = run(clients, options, packed=1, change=change)
    assert len(record.accepted) == 4
    assert weights == pytest.approx([0.5 / math.sqrt(5)] * 5, rel=1e-6)


def test_a_client_that_does_not_clip_is_clipped_by_the_server() -> None:
    check_server(unchanged)


def test_a_node_that_cannot_clip_adds_up_only_what_is_short_enough() -> None:
    """Its app lacks ``clip_mod``: client 6's step of 7/30 is the first that is longer than 0.5 / sqrt(5)."""
    options = {**PRIVATE, "clients-per-round": 8, "noise-multiplier": 0}
    weights, (record,), _ = run(Clients(mods=[packing_mod, delta_mod]), options, nodes=1)
    assert record.accepted == tuple("012345") and record.rejected == {"norm": 2}
    assert weights == pytest.approx([sum(range(1, 7)) / 30 / 8] * 5, rel=1e-6)


def test_a_simulation_can_be_repeated_and_a_deployment_cannot() -> None:
    deployed = Clients(properties={})
    assert run(Clients())[0].tobytes() == run(Clients())[0].tobytes() != run(Clients(), seed=8)[0].tobytes()
    assert run(deployed)[0].tobytes() != run(deployed)[0].tobytes()


@pytest.mark.parametrize("said", [{SIMULATED: False}, {SIMULATED: 1}, {SIMULATED: "yes"}, {}])
def test_only_nodes_that_all_say_so_are_a_simulation(said: dict[str, ConfigRecordValues]) -> None:
    assert not np.any(run(Clients(properties=said))[0] == run(Clients())[0])


LARGE = {"w": np.zeros(100_000, np.float32)}
LOST = frozenset("01234567")


def check_round_noise(change: Change, broken: str = "", packed: int = 0, selection: str = "uniform") -> None:
    """1e5 draws within 1 %, which is 4.5 deviations; with dropouts, packing and unequal examples."""
    options = {**PRIVATE, "noise-multiplier": 1.7, "clipping-norm": 0.5, "selection": selection}
    clients = Clients(lambda client, w: w + np.float32(int(client) + 1), frozenset(broken))
    weights, (record,), _ = run(clients, options, LARGE, packed=packed, change=change)
    assert not record.skipped and not set(record.accepted) & set(broken)
    each = len(record.accepted) * 0.5 / math.sqrt(100_000)  # of the sum, the same in every place
    noise = weights.astype(np.float64) * 4 - each
    assert np.std(noise) == pytest.approx(1.7 * 0.5, rel=0.01)
    assert abs(np.mean(noise)) < 5 * 1.7 * 0.5 / math.sqrt(100_000)


@pytest.mark.parametrize(
    ("broken", "packed", "selection"),
    [("", 0, "uniform"), ("", 1, "poisson"), ("0246", 0, "uniform"), ("1234567", 1, "uniform"), (LOST, 0, "poisson")],
)
def test_the_noise_on_the_sum_is_z_times_the_norm_whatever_happens(broken: str, packed: int, selection: str) -> None:
    check_round_noise(unchanged, broken, packed, selection)


def check_empty_rounds(change: Change) -> None:
    """Else a skipped round would say that nobody, and so no one, took part. One in e rounds is empty."""
    options = {**PRIVATE, "clients-per-round": 1, "selection": "poisson", "noise-multiplier": 1}
    _, records, _ = run(Clients(), options, rounds=12, change=change)
    empty = [record for record in records if not record.selected]
    assert 0 < len(empty) < 12 and not any(record.skipped for record in records)


def test_a_cohort_that_chance_left_empty_releases_noise() -> None:
    check_empty_rounds(unchanged)


def test_rounds_in_which_everybody_fails_are_released_but_end_the_run() -> None:
    with pytest.raises(StrategyError) as caught:
        run(Clients(broken=LOST), rounds=5)
    told = "The run ends after 3 rounds in a row ('max-skipped-rounds'), the last because no client gave a good reply"
    assert str(caught.value).startswith(told) and "no disk" in str(caught.value)


def test_without_privacy_such_rounds_are_skipped_as_ever() -> None:
    with pytest.raises(StrategyError, match="after 3 skipped rounds in a row"):
        run(Clients(broken=LOST), {"clients-per-round": 4}, rounds=5)


def test_who_was_within_the_norm_is_told_to_nobody_but_the_mechanism() -> None:
    options = {**PRIVATE, "privacy": "dp-fedavg-adaptive", "noise-multiplier": 0.3}
    _, (record,), model = run(Clients(), options, told=True)
    assert set(record.train) == {"loss"}
    assert set(model.states.privacy) == {"clipping-norm"}


def test_what_clients_report_without_noise_is_told_only_where_that_is_allowed() -> None:
    _, (record,), _ = run(Clients())
    assert record.train == {} and record.federated is None
    _, (record,), _ = run(Clients(), told=True)
    assert record.train == {"loss": 1.0} and record.federated is not None
    _, (record,), _ = run(Clients(), {"clients-per-round": 4})
    assert record.train == {"loss": 1.0} and record.federated is not None


def test_the_adapted_norm_reaches_the_clients() -> None:
    """Without noise: all steps are shorter than the norm of 10, which falls by exp(-0.2 / 2) a round."""
    options = {**PRIVATE, "privacy": "dp-fedavg-adaptive", "noise-multiplier": 0, "clipping-norm": 10.0}
    *_, model = run(Clients(), options, rounds=3)
    assert model.states.privacy["clipping-norm"].item() == pytest.approx(10 * math.exp(-0.3))
