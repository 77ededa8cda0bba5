"""Every robust rule in a whole federation: packing, order of nodes, too few clients, bad replies, skipped rounds."""

import logging

import numpy as np
import pytest
from flwr.app import RecordDict

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.errors import StrategyError
from strategies.federated import FederatedStrategy
from strategies.options import Option
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy

# Of the six clients of the toy federation, of which client k moves every weight by (k + 1) / 3.
RULES: dict[str, dict[str, Option]] = {
    "trimmed-mean": {"attackers-tolerated": 1},
    "median": {"attackers-tolerated": 2},
    "geometric-median": {"attackers-tolerated": 2},
    "krum": {"attackers-tolerated": 1},
    "multi-krum": {"attackers-tolerated": 1, "krum-selected": 3},
    "bulyan": {},
    "centered-clipping": {"attackers-tolerated": 2, "centered-clip-norm": 2.0},
}
every_rule = pytest.mark.parametrize("name", RULES)
GUARD: dict[str, Option] = {"zeroing": True, "clipping": "adaptive", "clip-norm": 3.0}


def run(
    name: str, options: dict[str, Option], bad: dict[str, toy.Misbehaviour] | None = None, nodes: int = 2, **rules: int
) -> tuple[list[np.ndarray], list[RoundRecord]]:
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(
        registry.build(name, options),
        RoundRules(limits=toy.LIMITS, **rules),  # type: ignore[arg-type]
        seed=7,
        observers=[records.append],
    )
    client_app = toy.app(bad=bad)
    grid = toy.WireGrid(client_app, InlineGrid.of(client_app, nodes).node_configs)
    result = strategy.start(grid, toy.start_arrays(), num_rounds=2)
    return result.arrays.to_numpy_ndarrays(), records


def broken(content: RecordDict) -> RecordDict:
    nan = {name: array * np.nan for name, array in toy.local_arrays(toy.BAD).items()}
    return RecordDict({"arrays": wire.array_record(nan), "metrics": content["metrics"]})


def off_by(distance: float) -> toy.Misbehaviour:
    def misbehave(content: RecordDict) -> RecordDict:
        far = {name: array + np.float32(distance) for name, array in toy.local_arrays(toy.BAD).items()}
        return RecordDict({"arrays": wire.array_record(far), "metrics": content["metrics"]})

    return misbehave


@every_rule
def test_packed_or_not_on_any_number_of_nodes_the_model_is_the_same(name: str) -> None:
    expected, records = run(name, RULES[name])
    assert records[1].accepted == toy.IDS and not records[1].skipped
    for nodes in (1, 3):
        for clients_per_message in (0, 1, 2):
            again, _ = run(name, RULES[name], nodes=nodes, clients_per_message=clients_per_message)
            assert toy.same(again, expected)


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("trimmed-mean", {3.5}),  # ceil(0.2 * 6) = 2 off each end: of 1 to 6 thirds 3 and 4 are left
        ("median", {3.5}),
        ("geometric-median", {3.5}),
        ("krum", {3, 4}),  # which tie, but for the rounding of thirds
        ("multi-krum", {3, 4}),  # 3, 4, and one of 2 and 5
        ("bulyan", {3.5}),  # nobody is an attacker: the mean
    ],
)
def test_one_round_by_hand(name: str, moved: set[float]) -> None:
    strategy = FederatedStrategy(registry.build(name, RULES[name]), seed=7)
    arrays = strategy.start(InlineGrid.of(toy.app(), 2), toy.start_arrays(), num_rounds=1).arrays
    kernel, bias = arrays.to_numpy_ndarrays()
    thirds = round(float(bias[0] - toy.BIAS[0]) * 6) / 2
    assert thirds in moved
    np.testing.assert_allclose(kernel, toy.KERNEL - np.float32(thirds / 3), atol=1e-6)
    np.testing.assert_allclose(bias, toy.BIAS + np.float32(thirds / 3), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in RULES if name != "bulyan"])  # to which one attacker needs seven
def test_who_is_far_away_gets_nowhere(name: str) -> None:
    (kernel, _), records = run(name, RULES[name], {toy.BAD: off_by(20)})
    assert toy.BAD in records[1].accepted
    (honest, _), _ = run(name, RULES[name])
    assert np.abs(kernel - honest).max() < 1.5


@every_rule
def test_too_few_clients_for_the_attackers_are_refused_before_the_first_message(name: str) -> None:
    records: list[RoundRecord] = []
    strategy = FederatedStrategy(registry.build(name, {"attackers-tolerated": 4}), observers=[records.append])
    with pytest.raises(StrategyError, match=rf"^The strategy '{name}' cannot run: .*'attackers-tolerated'"):
        strategy.start(InlineGrid.of(toy.app(), 2), toy.start_arrays(), num_rounds=1)
    assert not records


@every_rule
def test_where_too_few_good_updates_come_the_round_is_skipped(name: str, caplog: pytest.LogCaptureFixture) -> None:
    bad = dict.fromkeys(toy.IDS[:4], broken)
    with caplog.at_level(logging.WARNING):
        arrays, records = run(name, RULES[name], bad)
    assert records[1].rejected == {"not-finite": 4}
    assert toy.same(arrays, toy.start_arrays().to_numpy_ndarrays())
    assert [record.skipped for record in records[1:]] == [True, True]
    assert "a round has 2" in caplog.text or "of 2" in caplog.text


@every_rule
def test_the_guard_works_around_it(name: str) -> None:
    arrays, records = run(name, {**RULES[name], **GUARD}, {toy.BAD: off_by(22)}, max_skipped_rounds=9)
    assert records[1].rejected == {"zeroed": 1} and toy.BAD not in records[1].accepted
    assert not toy.same(arrays, toy.start_arrays().to_numpy_ndarrays())


def test_a_guarded_mean_is_clipped_and_takes_no_sums() -> None:
    composition = registry.build("fedavg", GUARD)
    assert not composition.takes_partial_sums and registry.build("fedavg", {}).takes_partial_sums
    (kernel, _), records = run("fedavg", GUARD)
    # Client k moves five weights by (k + 1) / 3 each, and the norm may be 3: k = 4 and 5 are shortened.
    moved = [min((k + 1) / 3, 3 / np.sqrt(5)) for k in range(6)]
    weights = [10 * (k + 1) for k in range(6)]
    strategy = FederatedStrategy(composition, seed=7)
    once = strategy.start(InlineGrid.of(toy.app(), 2), toy.start_arrays(), num_rounds=1).arrays.to_numpy_ndarrays()
    np.testing.assert_allclose(once[0], toy.KERNEL - np.average(moved, weights=weights), rtol=1e-5)
    assert strategy.model.states.aggregator["clip-norm"] == pytest.approx(3 * np.exp(-0.2 * (4 / 6 - 0.8)))
    assert not records[2].skipped and kernel[0, 0] < once[0][0, 0]


def test_what_a_rule_remembers_goes_from_round_to_round() -> None:
    strategy = FederatedStrategy(registry.build("centered-clipping", {"centered-clip-norm": 0.5}), seed=7)
    moved = []
    for _ in range(3):
        arrays = strategy.start(InlineGrid.of(toy.app(), 2), toy.start_arrays(), num_rounds=1).arrays
        moved.append(float(toy.KERNEL[0, 0] - arrays.to_numpy_ndarrays()[0][0, 0]))
    # All updates lie on one line from 0, on which the five weights of client k have moved by (k + 1) / 3 each.
    expected, center, limit = [], 0.0, 0.5 / np.sqrt(5)
    for _ in range(3):
        center += np.clip(np.arange(1, 7) / 3 - center, -limit, limit).mean()
        expected.append(center)
    np.testing.assert_allclose(moved, expected, rtol=1e-5)
