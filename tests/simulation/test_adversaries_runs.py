"""Attackers in federations: who sends what, the same whatever the packing, the engine and the order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from app.compose import data_spec
from app.config import RunConfig
from app.federated_run import FederatedRun
from app.local_task import local_task
from app.run_directory import RunDirectory
from simulation import attacked_client
from simulation.adversaries.alone import Replay, SignFlip
from simulation.adversaries.attack import Attack
from simulation.adversaries.briefing import BriefedGrid, asked_of_all, briefing
from simulation.adversaries.colluding import ALittleIsEnough, Collusion
from simulation.adversaries.members import attackers_of
from simulation.adversaries.mod import Company
from simulation.adversaries.poisoning import ModelReplacement
from simulation.adversaries.registry import probes_of
from simulation.inline import InlineGrid
from simulation.world import WorldGrid
from strategies import wire
from strategies.client import asked_together, client_mods, each_client
from strategies.describe import NodeDescription
from strategies.population import ClientInfo
from strategies.seeding import child_seed
from tasks.data import Examples
from tasks.datasets import kept_data
from tests.app.inline_runs import SMALL, Left
from tests.simulation.engines import FEDBUFF, warm_runs
from tests.simulation.worlds import A_SECOND_FOR_TEN, WiredGrid, conditions, run
from tests.strategies import toy_federation as toy

BAD = ("1", "4")
FIRST = wire.array_record({"kernel": toy.KERNEL * 2, "bias": toy.BIAS * 2})


def first_request(client: str) -> RecordDict:
    settings = ConfigRecord({"client": client, "round": 1, "seed": 77, "share": 1.0})
    return RecordDict({wire.ARRAYS: FIRST, wire.CONFIG: settings})


class Toy:
    """A federation whose clients add to every weight a number that their seed and share decide; two of them attack.

    ``trained`` are the clients in the order in which they were trained, ``together`` what each was trained with.
    """

    def __init__(self, attack: Attack, failing: Sequence[str] = ()) -> None:
        self.company = Company(attack, frozenset(BAD), first_request)
        self.failing = failing
        self.trained: list[str] = []
        self.together: list[list[str]] = []
        self.beside: list[bool] = []
        self.app = ClientApp()
        self.app.query("describe")(self.describe)
        self.app.train(mods=client_mods(self.company.mod))(self.train)

    def describe(self, message: Message, context: Context) -> Message:
        infos = tuple(ClientInfo(client, 10 * (int(client) + 1)) for client in toy.IDS)
        return Message(NodeDescription(infos).to_content(), reply_to=message)

    def train(self, message: Message, context: Context) -> Message:
        own = wire.config_of(message)
        client, seed, share = str(own["client"]), wire.number(own, "seed"), wire.number(own, "share")
        self.trained.append(client)
        self.beside.append("control" in message.content)
        self.together.append([str(later["client"]) for later in asked_together().later])
        if client in self.failing:
            raise OSError("no disk")
        weights = wire.read_weights(wire.arrays_of(message.content, wire.ARRAYS))
        step = np.float32(seed % 1000 / 1000 + share)
        arrays = {name: array + step for name, array in zip(weights.layout.names, weights.arrays, strict=True)}
        metrics = MetricRecord({"num-examples": 10 * (int(client) + 1), "loss": 1 / (int(client) + 1)})
        return Message(RecordDict({"arrays": wire.array_record(arrays), "metrics": metrics}), reply_to=message)

    def grid(self, nodes: int = 2) -> BriefedGrid:
        return BriefedGrid(WiredGrid(self.app, InlineGrid.of(self.app, nodes).node_configs), BAD)


def ask(federation: Toy, seeds: dict[str, int], **settings: Any) -> dict[str, np.ndarray]:
    """Ask clients in one message and return the delta of each that gave one."""
    config = ConfigRecord({"clients": list(seeds), "seeds": list(seeds.values()), "round": 3, **settings})
    message = toy.message_with(RecordDict({"arrays": toy.start_arrays(), "config": config}))
    grid = federation.grid(1)
    (reply,) = grid.send_and_receive([message])
    clients = wire.text_list(reply.content["pack"], "clients")  # type: ignore[arg-type]
    arrays = wire.arrays_of(reply.content, wire.UPDATE)
    return {clients[int(name.split("/")[0])]: array.numpy() for name, array in arrays.items()}


def value(delta: np.ndarray) -> float:
    assert np.allclose(delta, delta[0], atol=1e-6)
    return float(delta[0])


SEEDS = {"0": 100, "1": 200, "3": 300, "4": 600}  # their honest updates are 1.1, 1.2, 1.3 and 1.6


def test_attackers_send_what_they_forge_and_the_others_what_they_trained() -> None:
    found = {client: value(delta) for client, delta in ask(Toy(SignFlip(2.0)), SEEDS).items()}
    assert found == pytest.approx({"0": 1.1, "1": -2.4, "3": 1.3, "4": -3.2}, abs=1e-5)
    found = {client: value(delta) for client, delta in ask(Toy(Collusion(1.0)), SEEDS).items()}
    assert found == pytest.approx({"0": 1.1, "1": -1.4, "3": 1.3, "4": -1.4}, abs=1e-5)
    found = {client: value(delta) for client, delta in ask(Toy(ModelReplacement()), SEEDS).items()}
    assert found == pytest.approx({"0": 1.1, "1": 2.4, "3": 1.3, "4": 3.2}, abs=1e-5)  # four clients, two attackers


def test_a_replay_is_the_update_for_the_weights_and_the_seed_of_the_first_round() -> None:
    federation = Toy(Replay())
    for seeds, shares in ((SEEDS, [0.5] * 4), ({"1": 5, "4": 6}, [1.0] * 2)):
        found = ask(federation, seeds, shares=shares)
        assert value(found["1"]) == value(found["4"]) == pytest.approx(1.077, abs=1e-5)
    assert federation.trained == ["0", "1", "3", "4"]  # the attackers once for all


def test_the_request_of_the_first_round_says_what_a_server_says_in_it() -> None:
    changes = {
        "strategy": "fedprox",
        "proximal-mu": 0.5,
        "adaptive-mu": True,
        "lr-warmup-rounds": 4,
        "model": "logistic",
    }
    config = RunConfig.from_run_config({**changes, "attack": "stale"})
    request = attacked_client.first_request(config)("3")
    settings = wire.settings_of(request)
    assert dict(settings) == {
        "client": "3", "round": 1, "seed": child_seed(0, 1, "3", "train"), "share": 1.0,
        "learning-rate": 0.2 / 5, "proximal-mu": 0.5,
    }  # fmt: skip
    arrays = wire.read_weights(wire.arrays_of(request, wire.ARRAYS)).arrays
    assert all(
        np.array_equal(*pair)
        for pair in zip(arrays, local_task(config, data_spec(config)).build_model().get_weights(), strict=True)
    )


def test_colluders_are_trained_once_a_process_and_round_and_together() -> None:
    federation = Toy(ALittleIsEnough(1.0))
    ask(federation, SEEDS)
    assert federation.trained == ["0", "1", "4", "3"]
    assert federation.together == [["1", "3", "4"], ["4"], [], ["4"]]
    ask(federation, {**SEEDS, "1": 250})  # another round: other seeds
    assert federation.trained[4:] == ["0", "1", "4", "3"]


def test_partial_work_is_what_the_others_count_on_too() -> None:
    found = ask(Toy(Collusion(1.0)), SEEDS, shares=[1.0, 1.0, 1.0, 0.5])
    assert value(found["1"]) == value(found["4"]) == pytest.approx(-(1.2 + 1.1) / 2, abs=1e-5)


def test_what_is_beside_the_weights_reaches_the_client_itself_alone() -> None:
    federation = Toy(Collusion(1.0))
    config = ConfigRecord({"clients": ["1", "4"], "seeds": [200, 600], "round": 3})
    beside = {"control": wire.array_record({"vector": np.zeros(toy.SIZE, np.float32)})}
    message = toy.message_with(RecordDict({"arrays": toy.start_arrays(), "config": config, **beside}))
    list(federation.grid(1).send_and_receive([message]))
    assert federation.trained == ["1", "4", "1", "4"]
    assert federation.beside == [False, False, True, True]


def test_who_fails_is_no_colluder_and_is_rejected_with_its_own_reason() -> None:
    found = ask(Toy(Collusion(1.0), failing=["4"]), SEEDS)
    assert set(found) == {"0", "1", "3"} and value(found["1"]) == pytest.approx(-1.2, abs=1e-5)
    federation = Toy(Collusion(1.0), failing=["1", "4"])
    _, records = run(federation.grid(), rounds=1)
    assert records[0].rejected == {"error": 2}


def test_without_attackers_in_the_round_requests_are_sent_as_they_are() -> None:
    federation = Toy(Collusion())
    config = ConfigRecord({"clients": ["0", "2"], "seeds": [1, 2], "round": 1})
    content = RecordDict({"arrays": toy.start_arrays(), "config": config})
    message = toy.message_with(content)
    list(federation.grid(1).push_messages([message]))
    assert message.content is content and "attack-cohort" not in config


def test_the_briefing_names_the_attackers_of_all_messages_of_a_round() -> None:
    requests = [
        ConfigRecord({"clients": ["5", "4"], "seeds": [50, 40], "shares": [0.5, 0.25], "committed": [7, 6]}),
        ConfigRecord({"clients": ["1", "0"], "seeds": [10, 0], "committed": [0, 9]}),
    ]
    told = briefing(requests, BAD)
    assert told["attack-cohort"] == 4
    assert (told["attack-clients"], told["attack-seeds"], told["attack-shares"]) == (["1", "4"], [10, 40], [1.0, 0.25])
    assert briefing(requests, ["9"]) == {}
    (own,) = [own for client, own in each_client(ConfigRecord({**requests[1], **told})) if client == "1"]
    asked = dict(each_client(asked_of_all(own)))
    assert list(asked) == ["1", "4"]
    assert asked["1"] == own  # so that what is trained ahead is what is asked in the client's own turn
    assert (asked["4"]["seed"], asked["4"]["share"], asked["4"][wire.COMMITTED_ROUND]) == (40, 0.25, 6)


@pytest.mark.parametrize("attack", [SignFlip(), ALittleIsEnough(1.0), Replay(), ModelReplacement()], ids=str)
def test_the_model_does_not_depend_on_packing_and_nodes(attack: Attack) -> None:
    models = [
        run(Toy(attack).grid(nodes), rounds=3, clients_per_message=size)[0]
        for nodes, size in ((1, 0), (2, 0), (3, 0), (2, 1), (1, 4))
    ]
    assert all(toy.same(models[0], model) for model in models[1:])


def test_attackers_whom_the_world_takes_out_are_no_colluders() -> None:
    """Client 4 needs 5 s for a round of 3 s, so that it is late; with partial work it does half of its steps."""
    given = conditions(devices=A_SECOND_FOR_TEN)
    late = Toy(Collusion(1.0))
    _, records = run(WorldGrid(late.grid(), given), rounds=1, round_deadline=3.0)
    assert set(late.trained) == {"0", "1", "2"} and records[0].rejected == {"late": 3}
    partial = Toy(Collusion(1.0))
    world = WorldGrid(partial.grid(), conditions(devices=A_SECOND_FOR_TEN, partial=True))
    _, records = run(world, rounds=1, round_deadline=3.0)
    assert records[0].accepted == toy.IDS


def test_fedbuff_meets_attackers_too() -> None:
    options = {"strategy": "fedbuff", "clients-per-round": 0, "buffer-size": 3, "concurrency": 4}
    models = []
    for nodes in (1, 3):
        grid = WorldGrid(Toy(Collusion()).grid(nodes), conditions(devices=A_SECOND_FOR_TEN))
        arrays, records = run(grid, rounds=4, options=options)
        models.append(arrays)
        assert len(records) == 4
    assert toy.same(*models)


def test_a_backdoor_is_brought_in_and_its_success_is_the_share_of_triggered_images(tmp_path: Path) -> None:
    changes = {
        **SMALL,
        "num-clients": 10,
        "clients-per-round": 0,
        "num-rounds": 4,
        "batch-size": 10,
        "partition": "iid",
    }
    config = RunConfig.from_run_config({**changes, "attack": "backdoor", "attack-target": 7, "runs-dir": str(tmp_path)})
    grid = BriefedGrid(InlineGrid.of(attacked_client.app, 1, config.to_run_config()), attackers_of(config))
    run = FederatedRun.of(config, probes=probes_of(config))
    run.run(grid)
    left = Left(run.directory)
    records = [record["central"] for record in left.records()]
    test = kept_data(data_spec(config)).central_test()
    assert isinstance(test, Examples)
    stamped = test.x.copy()
    stamped[:, 6:, 6:] = 1.0
    shown = left.model().predict(stamped[test.y != 7], verbose=0).argmax(axis=1)
    assert records[-1]["backdoor"] == pytest.approx((shown == 7).mean(), abs=1e-6)
    assert records[-1]["backdoor"] > 0.8 > 0.3 > records[0]["backdoor"]
    assert records[-1]["accuracy"] > 0.7  # on clean images it still works
    page = run.directory.report.read_text()
    assert "Backdoor success over rounds" in page
    assert "20 % of the clients attack (backdoor), those that attackers.json names." in page


ATTACKED: dict[str, Any] = {**SMALL, "clients-per-round": 0, "num-rounds": 2, "attackers": 0.5, "node-timeout": 30.0}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_attack_gives_one_model_on_every_engine_packed_anyhow(tmp_path: Path) -> None:
    """Also with drop-outs, partial work, and clients that begin at any time."""
    names = ("sign-flip", "gaussian", "stale", "label-flip", "backdoor", "alie", "ipm", "collusion")
    alike = [{**ATTACKED, "attack": name} for name in names]
    hard = {"dropout": 0.2, "example-seconds": 0.1, "compute-spread": 0.8, "round-deadline": 5.0}
    alike.append({**ATTACKED, "attack": "alie", "attack-scale": 1.0, **hard, "stragglers": "partial"})
    alike.append({**ATTACKED, "attack": "alie", "attack-scale": 1.0, **FEDBUFF, "clients-per-round": 3})
    alike.append({**ATTACKED, "attack": "alie", "attack-scale": 1.0, "strategy": "scaffold"})
    packed = [*alike, {**ATTACKED, "attackers": 0.2}]
    engines = [
        warm_runs(tmp_path / "two", "ray", packed),
        warm_runs(tmp_path / "one", "ray", [{**config, "clients-per-message": 1} for config in packed], 1),
        warm_runs(tmp_path / "inline", "inline", packed),
    ]
    runs = [[Left(RunDirectory(Path(run[0]))) for run in told[:-1]] for told in engines]
    digests = [[left.digest() for left in left_by_engine] for left_by_engine in runs]
    assert digests[0] == digests[1] == digests[2]
    assert len({*digests[0]}) == len(packed)
    told = runs[0][0].json("attackers.json")
    assert told["attack"] == "sign-flip" and len(told["clients"]) == 3
    assert not (runs[0][-1].directory.path / "attackers.json").exists()
    backdoor = runs[0][names.index("backdoor")].records()
    assert all(0 <= record["central"]["backdoor"] <= 1 for record in backdoor)
    assert "backdoor" not in json.dumps(runs[0][0].records())
