"""Who takes part, in whole federations: the highest losses, nobody by chance, and nobody who is banned."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from scipy.stats import binom, chisquare

from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.bans import BanRules
from strategies.client import client_mods
from strategies.errors import StrategyError
from strategies.fedbuff import strategy_class
from strategies.federated import FederatedStrategy
from strategies.records import RoundRecord
from strategies.terms import RoundRules
from tests.strategies import toy_federation as toy
from tests.strategies.scripted_world import ScriptedWorld
from tests.strategies.toy_federation import BAD, WireGrid

Evaluated = dict[tuple[int, str], list[float]]


def evaluating_app(losses: Mapping[str, Callable[[float], float]], seen: Evaluated) -> ClientApp:
    """Clients of the toy federation whose training loss is a function of the model's first value.

    They answer with it where they are asked for their training examples, and with 1000 otherwise.
    """
    app = toy.app()
    evaluating = ClientApp()

    @evaluating.evaluate(mods=client_mods())
    def evaluate(message: Message, context: Context) -> Message:
        config = wire.config_of(message)
        client, weight = str(config["client"]), float(message.content["arrays"].to_numpy_ndarrays()[0].flat[0])
        if client not in losses:
            raise RuntimeError("no such data")
        loss = losses[client](weight) if config.get("data-part") == "train" else 1000.0
        seen.setdefault((int(wire.number(config, "round")), client), []).append(weight)
        metrics = MetricRecord({"num-examples": 10, "loss": loss, "accuracy": 0.5})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    def both(message: Message, context: Context) -> Message:
        return (evaluating if message.metadata.message_type == "evaluate" else app)(message, context)

    return both  # type: ignore[return-value]


def train(app: ClientApp, options: Mapping[str, object], rounds: int = 3, nodes: int = 2, seed: int = 7, **rules):
    records: list[RoundRecord] = []
    composition = registry.build("fedavg", {"clients-per-round": 2, **options})  # type: ignore[dict-item]
    strategy = FederatedStrategy(
        composition,
        RoundRules(**{"limits": toy.LIMITS, **rules}),  # type: ignore[arg-type]
        seed=seed,
        observers=[records.append],
    )
    grid = WireGrid(app, InlineGrid.of(toy.app(), nodes).node_configs)
    result = strategy.start(grid, toy.start_arrays(), num_rounds=rounds)
    return result.arrays.to_numpy_ndarrays(), records[1:], strategy


POWER = {"selection": "power-of-choice"}
HARD = {"0": lambda w: 5.0, "1": lambda w: 1.0, "2": lambda w: 4.0, "3": lambda w: 3.0, "4": lambda w: 2.0}


def test_the_clients_with_the_highest_losses_of_the_present_model_train() -> None:
    """Clients 0 and 1 find the first model hardest, and any other easiest: it moves down in the first round."""
    start = float(toy.KERNEL.flat[0])
    losses = {client: (lambda w: float(w)) if client in "01" else (lambda w: start - 0.01) for client in "012345"}
    seen: Evaluated = {}
    _, records, _ = train(evaluating_app(losses, seen), {**POWER, "power-of-choice-candidates": 6}, rounds=2)
    assert [record.selected for record in records] == [("0", "1"), ("2", "3")]  # then 2 to 5 are tied
    assert set(seen) == {(round, client) for round in (1, 2) for client in "012345"}
    assert {weight for (round, _), (weight,) in seen.items() if round == 1} == {start}
    assert len({weight for (round, _), (weight,) in seen.items() if round == 2}) == 1
    assert all(record.accepted == record.selected for record in records)


def test_only_candidates_are_asked_and_who_fails_to_answer_comes_last() -> None:
    seen: Evaluated = {}
    _, records, _ = train(evaluating_app(HARD, seen), {**POWER, "power-of-choice-candidates": 4}, rounds=20)
    for record in records:
        asked = {client for round, client in seen if round == record.round}
        asked |= {"5"} if len(asked) == 3 else set()  # which has failed
        assert len(asked) == 4
        best = sorted(asked, key=lambda client: (-HARD[client](0.0) if client in HARD else 0.0, client))[:2]
        assert record.selected == tuple(sorted(best))
    assert not any("5" in record.selected for record in records)


def test_candidates_without_scores_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """Else nobody would see that the lowest ids take part in every round."""
    train(evaluating_app({"0": float, "1": float}, {}), {**POWER, "power-of-choice-candidates": 6}, rounds=1)
    assert "Round 1: of 6 candidates 4 gave no loss and accuracy, and come last" in caplog.messages


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -1e39])
def test_a_loss_that_is_no_number_comes_last(loss: float) -> None:
    losses = {client: (lambda w: loss) if client in "01" else (lambda w: -7.0) for client in "0123"}
    _, records, _ = train(evaluating_app(losses, {}), {**POWER, "power-of-choice-candidates": 6}, rounds=1)
    assert records[0].selected == ("2", "3")


def test_the_question_is_paid_for_and_timed() -> None:
    _, plain, _ = train(evaluating_app(HARD, {}), {}, rounds=1)
    _, asked, _ = train(evaluating_app(HARD, {}), POWER, rounds=1)
    assert "select" not in plain[0].seconds and asked[0].seconds["select"] > 0
    assert asked[0].seconds["select"] + asked[0].seconds["train"] <= asked[0].seconds["total"]
    weights = sum(array.nbytes for array in toy.start_arrays().to_numpy_ndarrays())
    assert asked[0].bytes_down > plain[0].bytes_down + 2 * weights  # to each of two nodes once more
    assert asked[0].bytes_up > plain[0].bytes_up + 100


@pytest.mark.parametrize("selection", ["uniform", "poisson", "weighted", "power-of-choice"])
def test_any_packing_and_number_of_nodes_give_the_same_clients_and_bits(selection: str) -> None:
    losses = {client: (lambda w, k=int(client): float(np.sin(k + 50 * w))) for client in "012345"}
    options = {"selection": selection, "clients-per-round": 3}
    reference, records, _ = train(evaluating_app(losses, {}), options, nodes=1)
    for nodes, together in ((3, 0), (2, 1), (2, 2)):
        weights, same, _ = train(evaluating_app(losses, {}), options, nodes=nodes, clients_per_message=together)
        assert toy.same(weights, reference)
        assert [record.selected for record in same] == [record.selected for record in records]
    assert len({record.selected for record in records}) > 1 or selection == "power-of-choice"


def test_buffered_strategies_refuse_power_of_choice_before_the_first_message() -> None:
    with pytest.raises(StrategyError, match=r"cannot combine PowerOfChoice.*change the key 'selection' or 'strategy'"):
        registry.build("fedbuff", {"clients-per-round": 2, **POWER})


@pytest.mark.parametrize("selection", ["poisson", "weighted"])
def test_buffered_strategies_draw_in_the_other_ways(selection: str) -> None:
    composition = registry.build("fedbuff", {"clients-per-round": 2, "buffer-size": 2, "selection": selection})
    strategy = strategy_class(composition)(composition, seed=3)
    records: list[RoundRecord] = []
    strategy.observers = [records.append]
    strategy.start(ScriptedWorld.with_nodes(), ArrayRecord([np.zeros(3, np.float32)]), num_rounds=30)
    assert [len(record.accepted) for record in records[1:]] == [2] * 30


# Chance.


def test_rounds_for_which_chance_draws_nobody_are_skipped_and_end_no_run() -> None:
    """Of 60 rounds of 6 clients with probability 1/6 each, (5/6)^6 = 33 % draw nobody; fails one of 10,000 seeds."""
    _, records, _ = train(toy.app(), {"selection": "poisson", "clients-per-round": 1}, rounds=60, max_skipped_rounds=1)
    sizes = Counter(min(len(record.selected), 2) for record in records)
    chances = [binom.pmf(0, 6, 1 / 6), binom.pmf(1, 6, 1 / 6), binom.sf(1, 6, 1 / 6)]
    assert chisquare([sizes[size] for size in range(3)], [60 * chance for chance in chances]).pvalue > 1e-4
    for record in records:
        assert record.skipped == (not record.selected) and record.accepted == record.selected


def test_rounds_that_fail_end_a_run_also_where_empty_ones_lie_between() -> None:
    with pytest.raises(StrategyError, match=r"after 3 skipped rounds in a row.*gave a good reply, but 6 are needed"):
        train(toy.app(), {"selection": "poisson", "clients-per-round": 1}, rounds=60, min_replies=6)


# Bans.


def nan(content: RecordDict) -> None:
    arrays = {name: np.full_like(array.numpy(), np.nan) for name, array in content["arrays"].items()}
    content["arrays"] = wire.array_record(arrays)


def banned_run(rounds: int, bans: BanRules, **rules: object) -> list[RoundRecord]:
    app = toy.app(bad={BAD: nan})
    return train(app, {"clients-per-round": 0}, rounds=rounds, bans=bans, **rules)[1]


@pytest.mark.parametrize("together", [0, 1])
def test_a_client_is_left_out_after_rejections_in_a_row_and_has_one_chance_afterwards(together: int) -> None:
    """Also where the others of its message come as one sum: who is rejected in a pack is held to account alone."""
    records = banned_run(9, BanRules(after=2, rounds=3), clients_per_message=together)
    assert [BAD in record.selected for record in records] == [
        True,
        True,
        False,
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert [record.banned for record in records] == [0, 0, 1, 1, 1, 0, 1, 1, 1]
    assert [record.rejected for record in records if BAD in record.selected] == [{"not-finite": 1}] * 3
    assert all(len(record.accepted) == 5 for record in records)


def test_without_the_key_nobody_is_banned() -> None:
    assert all(BAD in record.selected and not record.banned for record in banned_run(5, BanRules()))


def test_a_banned_client_is_not_offered_so_that_cohorts_stay_full() -> None:
    app = toy.app(bad={BAD: nan})
    _, records, strategy = train(app, {"clients-per-round": 4}, rounds=20, bans=BanRules(1, 100))
    first = next(record.round for record in records if BAD in record.selected)
    assert all(len(record.selected) == 4 and BAD not in record.selected for record in records[first:])
    assert strategy.bans.state()["clients"].tolist() == [BAD]


def test_where_all_are_banned_the_round_says_so() -> None:
    app = toy.app(bad=dict.fromkeys(toy.IDS, nan))
    with pytest.raises(StrategyError, match=r"the last because every client that is or will be online is banned"):
        train(app, {"clients-per-round": 0}, rounds=9, bans=BanRules(1, 100))


def in_world(world: ScriptedWorld, name: str, rounds: int, bans: BanRules) -> list[RoundRecord]:
    records: list[RoundRecord] = []
    composition = registry.build(name, {"clients-per-round": 0, "buffer-size": 3})
    strategy = strategy_class(composition)(composition, RoundRules(bans=bans), seed=3, observers=[records.append])
    strategy.start(world, ArrayRecord([np.zeros(3, np.float32)]), num_rounds=rounds)
    return records[1:]


def test_a_world_is_waited_for_past_the_banned() -> None:
    """Until 5 s only client 0 is online, which fails and is banned; the others come at 5 s."""
    world = ScriptedWorld.with_nodes(
        away=lambda client, now: client != "0" and now < 5,
        delta=lambda start, weights: None if start[0] == "0" else np.ones(3, np.float32),
    )
    records = in_world(world, "fedavg", 2, BanRules(1, 100))
    assert [record.selected for record in records] == [("0",), ("1", "2", "3")]
    assert world.starts[1][0] == 5.0


def test_buffered_strategies_let_the_banned_begin_no_more() -> None:
    world = ScriptedWorld.with_nodes(
        delta=lambda start, weights: None if start[0] == "0" else np.ones(3, np.float32),
    )
    records = in_world(world, "fedbuff", 12, BanRules(2, 4))
    begun = [time for time, start in world.starts if start[0] == "0"]
    assert begun[:2] == [0.0, 1.0]
    faults = {record.round for record in records if record.rejected}
    first = sorted(faults)[1]
    assert [record.banned for record in records[first : first + 4]] == [1, 1, 1, 1]
    assert first + 5 in faults  # one chance
    assert not faults & set(range(first + 1, first + 5))
