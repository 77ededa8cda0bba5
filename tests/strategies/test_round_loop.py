"""A run that is left after any round, and goes on in another process from what was written then, is the same run.

Twelve clients with quadratic losses, in this process; everything that goes on goes through the bytes of a checkpoint.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from app.checkpoint_file import Content, from_bytes, parts_of
from app.world_keys import device_classes
from simulation.availability import ByChance
from simulation.devices import Devices
from simulation.inline import InlineGrid
from simulation.world import WorldGrid
from strategies import registry, wire
from strategies.bans import BanRules
from strategies.client import client_mods
from strategies.client_state import ClientStates, file_name
from strategies.describe import SIMULATED, NodeDescription
from strategies.fedbuff import strategy_class
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo
from strategies.privacy.budget import Budget
from strategies.records import RoundRecord
from strategies.requests import Correspondence
from strategies.scaffold import scaffold_mod
from strategies.seeding import generator
from strategies.server_model import ServerModel
from strategies.snapshot import Snapshot
from strategies.terms import RoundRules
from tests.simulation.worlds import conditions
from tests.strategies.quadratics import Quadratic, flat, local_sgd, start_arrays

ROUNDS = 6
IDS = tuple(f"c{number:02d}" for number in range(12))
BAD = "c03"  # whose updates are not finite
QUADRATICS = {
    client: Quadratic(h, b, steps=2 + number % 4, examples=10 + 5 * number)
    for number, client in enumerate(IDS)
    for h, b in [np.abs(generator(1, 0, client, "losses").normal(size=(2, 3)))]
}
MEASURED = ("seconds", "bytes", "uplink")  # messages are numbered anew, and the numbers are sent as text
PRIVATE = {"clipping-norm": 0.3, "noise-multiplier": 0.1}
OPTIONS: dict[str, dict[str, Any]] = {
    "bulyan": {"attackers-tolerated": 1},
    "dp-fedavg": PRIVATE,
    "dp-fedavg-adaptive": PRIVATE,
    "dp-ftrl": {**PRIVATE, "num-clients": 12},
    "dp-mf": {**PRIVATE, "num-clients": 12},
    "fedavg with bans": {"strategy": "fedavg"},
    "fedavg, power of choice": {"strategy": "fedavg", "selection": "power-of-choice"},
    "fedavg, guarded": {"strategy": "fedavg", "zeroing": True, "clipping": "adaptive"},
    "fedavg, Keras' Adam": {"strategy": "fedavg", "server-optimizer": "keras:adam", "server-learning-rate": 0.1},
    "fedavg, a third of an update": {"strategy": "fedavg", "codec": "top-k", "codec-share": 0.3},
    "fedavg, few bits down": {"strategy": "fedavg", "downlink": "qsgd", "downlink-bits": 4},
    "fedavg, differences down": {"strategy": "fedavg", "downlink": "difference", "downlink-bits": 3},
    "fedbuff": {"buffer-size": 4, "concurrency": 7},
    "fedbuff of a step each": {"strategy": "fedbuff", "buffer-size": 1, "concurrency": 5},
    "fedbuff, few bits both ways": {"strategy": "fedbuff", "buffer-size": 3, "codec": "qsgd", "downlink": "qsgd"},
    "fedprox": {"proximal-mu": 0.5, "adaptive-mu": True},
    "krum": {"attackers-tolerated": 1},
    "local-dp": PRIVATE,
    "multi-krum": {"attackers-tolerated": 1},
}
CASES = sorted({*registry.STRATEGIES, *OPTIONS})
BANNED = {"fedavg with bans": RoundRules(bans=BanRules(after=1, rounds=2))}


def client_app(folder: Path) -> ClientApp:
    app = ClientApp()

    def states(context: Context, run: str) -> ClientStates:
        return ClientStates(folder / file_name(run), durable=False)

    def noise(message: Message, context: Context) -> np.random.Generator:
        return np.random.default_rng(int(wire.number(wire.config_of(message), wire.SEED)))

    mods = client_mods(scaffold_mod(states), noise=noise, states=states)

    @app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        infos = tuple(ClientInfo(client, QUADRATICS[client].examples) for client in IDS)
        return Message(NodeDescription(infos, properties={SIMULATED: True}).to_content(), reply_to=message)

    @app.train(mods=mods)
    def train(message: Message, context: Context) -> Message:
        return Message(trained(message.content, wire.config_of(message)), reply_to=message)

    @app.evaluate(mods=mods)
    def evaluate(message: Message, context: Context) -> Message:
        own = QUADRATICS[wire.text(wire.config_of(message), wire.CLIENT)]
        loss = own.loss(flat(wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS)).arrays))
        metrics = {"num-examples": own.examples, "loss": loss, "accuracy": math.exp(-loss)}
        return Message(RecordDict({wire.METRICS: MetricRecord(metrics)}), reply_to=message)

    return app


def trained(content: RecordDict, config: ConfigRecord) -> RecordDict:
    own = QUADRATICS[name := wire.text(config, wire.CLIENT)]
    correction = None
    if wire.CORRECTION in content:
        correction = flat([wire.decode(array) for array in wire.arrays_of(content, wire.CORRECTION).values()])
    start, mu = flat(wire.read_weights(wire.arrays_of(content, wire.ARRAYS)).arrays), config.get(wire.PROXIMAL_MU, 0.0)
    jolt = np.random.default_rng(int(wire.number(config, wire.SEED))).normal(size=3) / 10  # as by batches in any order
    local = local_sgd(own, start, 0.05, own.steps, float(mu), correction=correction) + jolt  # type: ignore[arg-type]
    local = (local * (math.nan if name == BAD else 1)).astype(np.float32)
    arrays = {"matrix": local[:2].reshape(1, 2), "bias": local[2:]}
    numbers = {"num-examples": own.examples, "loss": own.loss(start), "steps": own.steps}
    return RecordDict({wire.ARRAYS: wire.array_record(arrays), wire.METRICS: MetricRecord(numbers)})


class Killed(BaseException):
    """As by SIGKILL: nobody in between catches it."""


class Disk:
    """A journal that keeps bytes."""

    def __init__(self) -> None:
        self.states: list[bytes] = []
        self.ledgers: list[tuple[int, bytes]] = []

    def begun(self, round: int, ledger: Any) -> None:
        self.ledgers.append((round, b"".join(parts_of(Content({}, {"ledger": ledger})))))

    def saved(self) -> int | None:
        return None

    def failed(self) -> int:
        return 0

    def finished(self, state: Snapshot) -> None:
        self.states.append(b"".join(parts_of(Content(state.facts(), state.groups()))))


class Federation:
    """A server and nodes, in a world where the case wants one; ``folder`` is where clients keep their states."""

    def __init__(self, case: str, folder: Path, rules: RoundRules | None = None, **options: object) -> None:
        given = {"clients-per-round": 7, **OPTIONS.get(case, {}), **options}
        name = str(given.pop("strategy", case))
        self.records: list[RoundRecord] = []
        self.disk = Disk()
        composition = registry.build(name, given)  # type: ignore[arg-type]
        self.strategy: FederatedStrategy = strategy_class(composition)(
            composition,
            rules or BANNED.get(case, RoundRules()),
            seed=5,
            round_config=lambda number: {"learning-rate": 0.05, "run": "a run"},
            observers=[self.records.append],
            journal=self.disk,
        )
        app = client_app(folder)
        inline = InlineGrid.of(app, 2)
        devices = Devices(device_classes("slow:0.4:3"), example_seconds=0.1, compute_spread=0.5)
        in_world = name == "fedbuff" or "world" in case
        world = conditions(3, devices=devices, dropout=0.1, availability=ByChance(0.7)) if in_world else None
        self.grid: Grid = inline if world is None else WorldGrid(inline, world)

    def train(self, rounds: int = ROUNDS, left: bytes | None = None) -> np.ndarray:
        if left is not None:
            content = from_bytes(left)
            self.strategy.resume(Snapshot.of(content.facts, content.groups))
        result = self.strategy.start(self.grid, wire.array_record(start_arrays()), rounds, timeout=60.0)
        return flat(result.arrays.to_numpy_ndarrays())

    def told(self) -> dict[int, dict[str, Any]]:
        """What the records say, by round, but for what is measured."""
        found = {}
        for record in self.records:
            line = {**record.to_json(), "selected": record.selected, "accepted": record.accepted}
            found[record.round] = {key: value for key, value in line.items() if key not in MEASURED}
        return found


Whole = Callable[[str], tuple[Federation, np.ndarray]]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Returns a run of a case that nothing has disturbed, and its final weights; each is done once."""

    @functools.cache
    def run(case: str) -> tuple[Federation, np.ndarray]:
        federation = Federation(case, tmp_path_factory.mktemp("whole"))
        return federation, federation.train()

    return run


@pytest.mark.parametrize("case", CASES)
def test_left_after_any_round_it_goes_on_as_if_nothing_had_happened(
    case: str, whole_run: Whole, tmp_path: Path
) -> None:
    whole, weights = whole_run(case)
    assert len(whole.disk.states) == ROUNDS + 1
    for left in (0, 3, 5, 6):
        before = Federation(case, tmp_path / str(left))
        before.train(left)
        after = Federation(case, tmp_path / str(left))
        assert np.array_equal(after.train(left=before.disk.states[-1]), weights), left
        assert {**before.told(), **after.told()} == whole.told()
        assert after.disk.states == whole.disk.states[left + 1 :]


def before_sending(kill: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    original = Correspondence.exchange

    def exchange(self: Correspondence, *given: Any) -> Any:
        kill()
        return original(self, *given)

    patch.setattr(Correspondence, "exchange", exchange)


def while_waiting(kill: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    original = Correspondence.exchange

    def exchange(self: Correspondence, *given: Any) -> Any:
        for number, reply in enumerate(original(self, *given)):
            if number == 1:
                kill()
            yield reply

    patch.setattr(Correspondence, "exchange", exchange)


def in_aggregation(kill: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    original = ServerModel.step

    def step(self: ServerModel, *given: Any) -> ArrayRecord | None:
        arrays = original(self, *given)
        kill()
        return arrays

    patch.setattr(ServerModel, "step", step)


def before_the_state_is_kept(kill: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Disk, "finished", lambda *_: kill())


HOOKS = (before_sending, while_waiting, in_aggregation, before_the_state_is_kept)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
@pytest.mark.parametrize("case", [case for case in CASES if "fedbuff" not in case])
def test_killed_anywhere_in_a_round_it_does_that_round_again(
    case: str, hook: Callable[..., None], whole_run: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients have trained in the round that is done again, and may have kept what they learnt in it."""
    whole, weights = whole_run(case)
    before = Federation(case, tmp_path / "killed")
    before.train(3)
    state = before.disk.states[-1]
    again = Federation(case, tmp_path / "killed")

    def kill() -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        hook(kill, patch)
        again.train(left=state)
    assert len(again.disk.states) < ROUNDS - 3  # none, but where a round was skipped and had no step
    after = Federation(case, tmp_path / "killed")
    assert np.array_equal(after.train(left=[state, *again.disk.states][-1]), weights)
    assert {**before.told(), **again.told(), **after.told()} == whole.told()


@pytest.mark.parametrize("case", ["fedavg in a world", "fedbuff"])
def test_the_clock_of_a_world_goes_on(case: str, tmp_path: Path) -> None:
    options = {"strategy": "fedavg"} if "world" in case else {}
    whole = Federation(case, tmp_path, **options)
    whole.train()
    for left in (1, 4):
        after = Federation(case, tmp_path, **options)
        after.train(left=whole.disk.states[left])
        times = [record.simulated_seconds for record in (*whole.records[: left + 1], *after.records)]
        assert times == [record.simulated_seconds for record in whole.records]
        assert len(set(times)) > ROUNDS / 2
        assert after.told() == {number: line for number, line in whole.told().items() if number > left}


def test_where_time_is_real_fedbuff_lets_others_begin(tmp_path: Path) -> None:
    """Those at work are gone with the process; steps and draws go on."""

    def buffered() -> Federation:
        federation = Federation("fedbuff", tmp_path)
        federation.grid = InlineGrid.of(client_app(tmp_path), 2)
        return federation

    before, after = buffered(), buffered()
    before.train(3)
    facts = from_bytes(before.disk.states[-1]).facts["pace"]
    assert (facts["steps"], facts["begun"]) == (3, []) and facts["cohort"] > 0
    after.train(left=before.disk.states[-1])
    assert [record.round for record in after.records] == [4, 5, 6]
    assert not any(record.skipped for record in after.records)
    assert from_bytes(after.disk.states[-1]).facts["pace"]["steps"] == 6
    assert from_bytes(after.disk.states[-1]).facts["pace"]["cohort"] > facts["cohort"]


def test_what_is_remembered_is_something(tmp_path: Path) -> None:
    """Of each case above something is in the state, so that to lose it would show."""
    found: dict[str, set[str]] = {}
    for case in CASES:
        federation = Federation(case, tmp_path / case)
        federation.train(3)
        content = from_bytes(federation.disk.states[-1])
        arrays = {group for group, arrays in content.groups.items() if arrays}
        found[case] = arrays | {fact for fact, value in content.facts.items() if value}
    assert {"objective", "committed"} <= found["scaffold"]
    assert {"privacy", "ledger"} <= found["dp-fedavg-adaptive"] & found["dp-mf"] & found["dp-ftrl"]
    assert "ledger" in found["dp-fedavg"] & found["local-dp"]
    assert "server_optimizer" in found["fedadam"] & found["fedavgm"] & found["fedavg, Keras' Adam"]
    assert "aggregator" in found["centered-clipping"] & found["fedavg, guarded"]
    assert "bans" in found["fedavg with bans"] and "objective" in found["fedprox"]
    assert {"pace", "clock"} <= found["fedbuff"]
    assert any(group.startswith("pace/") for group in found["fedbuff"])


def test_rounds_that_were_skipped_in_a_row_still_count(tmp_path: Path) -> None:
    rules = RoundRules(min_replies=12, max_skipped_rounds=3)
    federation = Federation("fedavg", tmp_path, rules)
    with pytest.raises(Exception, match="The run ends after 3 skipped rounds in a row"):
        federation.train()
    for left, more in ((1, 2), (2, 1), (3, 1)):
        after = Federation("fedavg", tmp_path, rules)
        with pytest.raises(Exception, match=f"The run ends after {left + more} skipped rounds in a row"):
            after.train(left=federation.disk.states[left])
        assert len(after.records) == more


def test_a_budget_that_is_spent_stays_spent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = RoundRules(budget=Budget(epsilon=20.0))
    options = {"noise-multiplier": 0.5}
    federation = Federation("dp-fedavg", tmp_path, rules, **options)
    weights = federation.train(50)
    rounds = len(federation.records) - 1
    assert 1 < rounds < 50
    caplog.clear()
    after = Federation("dp-fedavg", tmp_path, rules, **options)
    assert np.array_equal(after.train(50, federation.disk.states[-1]), weights)
    assert after.records == []
    assert f"The run ends before round {rounds + 1}: The privacy budget is spent" in caplog.text


def test_a_simulation_writes_no_ledger_ahead_and_others_do_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = Federation("dp-fedavg", tmp_path)
    simulated.train(2)
    assert simulated.disk.ledgers == []
    monkeypatch.setattr(FederatedStrategy, "_simulated", False)
    deployed, asked = Federation("dp-fedavg", tmp_path), list[int]()

    def count(self: Correspondence, *given: Any) -> Sequence[Message]:
        asked.append(len(deployed.disk.ledgers))
        return []

    monkeypatch.setattr(Correspondence, "exchange", count)
    deployed.train(2)
    assert asked == [1, 2] and [number for number, _ in deployed.disk.ledgers] == [1, 2]
    state, ledger = (from_bytes(data) for data in (deployed.disk.states[1], deployed.disk.ledgers[0][1]))
    for name, array in ledger.groups["ledger"].items():
        assert np.array_equal(array, state.groups["ledger"][name])
