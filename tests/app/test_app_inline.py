"""The app as a whole, in one process: what a run leaves, that it is reproducible, and how it ends early."""

from __future__ import annotations

import json
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app import server
from app.client import app as client_app
from app.config import RunConfig
from app.errors import RunPruned, RunRefused
from app.federated_run import run_name
from app.fingerprint import code_fingerprint, code_location
from app.output import DEPLOYED
from simulation.inline import InlineGrid
from strategies import wire
from strategies.describe import DESCRIBE, NodeDescription
from strategies.errors import StrategyError
from strategies.records import RoundRecord
from tasks.errors import TaskError
from tests.app.inline_runs import SMALL, Left, latest, one_thread_digests, simulated, start

DEFAULT_MODEL: dict[str, Any] = {"num-rounds": 2, "clients-per-round": 7, "federated-evaluate-every": 0}
"""The default run, model included, but short; 7 clients so that no number of nodes gets equal shares."""
TRAVEL = ("seconds", "bytes", "uplink")  # of a record: what depends on how clients travel


def ask(changes: dict[str, Any], kind: str, content: dict[str, ConfigRecord | Any]) -> Message:
    config = RunConfig.from_run_config(changes).to_run_config()
    grid = InlineGrid(client_app, simulated(1), config)
    (reply,) = grid.send_and_receive([Message(RecordDict(content), 1, kind)])
    return reply


def test_a_node_describes_its_clients_and_its_code() -> None:
    reply = ask(SMALL, DESCRIBE, {wire.CONFIG: ConfigRecord({})})
    description = NodeDescription.from_content(reply.content)
    assert [client.id for client in description.clients] == ["0", "1", "2", "3", "4", "5"]
    # 1797 digits; 20 % held out; of each client's share, 20 % its own test part
    assert sum(client.num_examples or 0 for client in description.clients) == pytest.approx(1797 * 0.8 * 0.8, abs=6)
    assert (description.fingerprint, description.location) == (code_fingerprint(), code_location())
    assert description.properties == {"input-shape": [8, 8, 1], "num-classes": 10, "simulated": True}
    assert description.problem == ""


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDKERAS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return start(tmp_path_factory.mktemp("runs"), SMALL, nodes=2, output=DEPLOYED)


def test_the_run_says_that_it_is_complete(left: Left) -> None:
    status = left.json("status.json")
    assert (status["state"], status["rounds"]) == ("completed", 2)
    assert str(left.directory.path) in status["message"]


def test_its_config_is_whole(left: Left) -> None:
    config = tomllib.loads(left.directory.config.read_text())
    assert RunConfig.from_run_config(config) == RunConfig.from_run_config(
        {**SMALL, "runs-dir": str(left.directory.path.parent)}
    )


def test_its_model_opens_and_has_the_accuracy_of_the_last_round(left: Left) -> None:
    model, data = left.model(), held_out_digits()
    hits = np.argmax(model.predict(data[0], verbose=0), axis=1) == data[1]
    last = left.records()[-1]["central"]
    assert hits.mean() == pytest.approx(last["accuracy"], abs=1e-6)
    assert last["accuracy"] > left.records()[0]["central"]["accuracy"] + 0.2


def held_out_digits() -> tuple[np.ndarray, np.ndarray]:
    from app.compose import data_spec
    from tasks.datasets import load_data

    test = load_data(data_spec(RunConfig.from_run_config(SMALL))).central_test()
    return test.x, test.y


def test_it_has_a_record_for_every_round(left: Left) -> None:
    records = left.records()
    assert [record["round"] for record in records] == [0, 1, 2]
    assert [record["selected"] for record in records] == [0, 3, 3]
    assert [record["accepted"] for record in records] == [0, 3, 3]
    assert [record["federated"] is None for record in records] == [True, True, False]
    assert all(record["rejected"] == {} and not record["skipped"] for record in records)
    assert records[1]["bytes"]["down"] > 0 < records[1]["bytes"]["up"]
    assert {"train", "aggregate", "evaluate-central", "total"} <= records[1]["seconds"].keys()
    assert records[2]["federated"]["clients"] == 6


def test_tensorboard_reads_its_events(left: Left) -> None:
    events = EventAccumulator(str(left.directory.tensorboard))
    events.Reload()
    scalars = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    central = [record["central"]["accuracy"] for record in left.records()]
    assert any(len(values) == 3 and np.allclose(values, central) for values in scalars.values())


def test_it_tells_who_could_be_asked_and_who_holds_what(left: Left) -> None:
    population = left.json("population.json")
    assert population["clients"] == ["0", "1", "2", "3", "4", "5"]
    assert [sum(row) for row in population["label-counts"]] == population["examples"]
    assert {len(row) for row in population["label-counts"]} == {10}


def test_it_tells_what_took_part(left: Left) -> None:
    versions = left.json("versions.json")
    assert versions["fingerprint"] == code_fingerprint()
    assert versions["location"] == code_location()
    assert {"flwr", "tensorflow", "keras", "numpy", "python"} <= versions.keys()


def test_its_report_and_client_scores_are_there(left: Left) -> None:
    HTMLParser().feed(left.directory.report.read_text())
    assert "<svg" in left.directory.report.read_text()
    (scores,) = [json.loads(line) for line in left.directory.clients.read_text().splitlines()]
    assert scores["round"] == 2


def test_nothing_half_written_stays(left: Left) -> None:
    assert sorted(file.name for file in left.directory.path.iterdir()) == [
        *(
            "checkpoints",
            "clients.jsonl",
            "config.toml",
            "metrics.jsonl",
            "model.keras",
            "population.json",
            "report.html",
        ),
        *("status.json", "tensorboard", "versions.json"),
    ]


@pytest.fixture(scope="module")
def default_digests(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int, int], str]:
    """Digests of models by (seed, nodes, clients per message), computed with one thread in one fresh process."""
    cases = [(0, 1, 0), (0, 1, 0), (0, 1, 1), (0, 2, 0), (0, 2, 2), (0, 3, 0), (0, 3, 1), (1, 2, 0)]
    runs = [({**DEFAULT_MODEL, "seed": seed, "clients-per-message": pack}, nodes) for seed, nodes, pack in cases]
    folder = tmp_path_factory.mktemp("one-thread")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDKERAS_CACHE", str(folder / "cache"))
        digests = one_thread_digests(folder / "runs", runs)
    assert digests[0] == digests[1], "the same run twice gave two models"
    return dict(zip(cases, digests, strict=True))


def test_nodes_and_packing_do_not_show_in_a_bit_of_the_model(
    default_digests: dict[tuple[int, int, int], str],
) -> None:
    assert len({value for (seed, _, _), value in default_digests.items() if seed == 0}) == 1


def test_nor_in_what_the_rounds_tell_but_for_times_and_bytes(tmp_path: Path) -> None:
    def told(nodes: int, per_message: int) -> list[dict[str, Any]]:
        left = start(tmp_path, {**SMALL, "clients-per-message": per_message}, nodes)
        return [{key: value for key, value in line.items() if key not in TRAVEL} for line in left.records()]

    packed = told(1, 0)
    assert packed[1]["update-norms"]["updates"] == 3
    assert told(1, 1) == told(2, 0) == told(3, 2) == packed


def test_another_seed_is_another_model(default_digests: dict[tuple[int, int, int], str]) -> None:
    assert default_digests[1, 2, 0] != default_digests[0, 2, 0]


def test_records_tell_the_learning_rate_of_each_round(tmp_path: Path) -> None:
    schedule = {"lr-warmup-rounds": 2, "lr-decay": "exponential", "lr-decay-rate": 0.5, "learning-rate": 0.2}
    records = start(tmp_path, {**SMALL, **schedule, "num-rounds": 4}).records()
    assert [record["learning-rate"] for record in records] == [None, *map(pytest.approx, (0.2 / 3, 0.4 / 3, 0.2, 0.1))]


@pytest.mark.parametrize(
    "training",
    [{"local-steps": 7}, {"local-steps": 7, "full-training-examples": 100_000}, {"full-training-examples": 100_000}],
    ids=["steps", "few steps", "one epoch"],
)
def test_keys_of_local_training_reach_the_clients(training: dict[str, int], tmp_path: Path) -> None:
    usual = {key: value for key, value in SMALL.items() if key != "local-epochs"}
    changed = start(tmp_path, {**usual, **training}).digest()
    assert changed != start(tmp_path, usual).digest()


def test_evaluations_can_be_rare_or_off(tmp_path: Path) -> None:
    left = start(tmp_path, {**SMALL, "num-rounds": 3, "evaluate-every": 2, "federated-evaluate-every": 0})
    assert [record["central"] is not None for record in left.records()] == [True, False, True, True]
    assert all(record["federated"] is None for record in left.records())
    assert not start(tmp_path, {**SMALL, "evaluate-every": 0}).records()[-1]["central"]


def test_an_interrupted_run_leaves_a_readable_directory(tmp_path: Path) -> None:
    def press_control_c(record: RoundRecord) -> None:
        if record.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, SMALL, observers=[press_control_c], output=DEPLOYED)
    left = latest(tmp_path)
    assert (left.json("status.json")["state"], left.json("status.json")["rounds"]) == ("interrupted", 1)
    assert [record["round"] for record in left.records()] == [0, 1]
    assert "<svg" in left.directory.report.read_text()
    assert left.model().count_params() > 0  # what round 1 had made of it
    assert not list(left.directory.path.glob("*.tmp"))


def test_a_run_that_others_have_beaten_has_not_failed(tmp_path: Path) -> None:
    def prune(record: RoundRecord) -> None:
        if record.round == 1:
            raise RunPruned("Stopped after round 1.")

    with pytest.raises(RunPruned):
        start(tmp_path, SMALL, observers=[prune])
    status = latest(tmp_path).json("status.json")
    assert (status["state"], status["message"], status["rounds"]) == ("pruned", "Stopped after round 1.", 1)


def test_a_run_that_breaks_says_so_in_its_directory(tmp_path: Path) -> None:
    def break_down(record: RoundRecord) -> None:
        if record.round == 1:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        start(tmp_path, SMALL, observers=[break_down], output=DEPLOYED)
    left = latest(tmp_path)
    assert left.json("status.json")["state"] == "failed"
    assert "No space left on device" in left.json("status.json")["message"]
    assert left.directory.report.exists()


def test_updates_that_diverge_are_rejected_and_too_many_end_the_run(tmp_path: Path) -> None:
    changes = {**SMALL, "model": "mlp", "learning-rate": 1000.0, "local-epochs": 20, "max-skipped-rounds": 2}
    with pytest.raises(StrategyError, match="2 skipped rounds in a row") as caught:
        start(tmp_path, {**changes, "num-rounds": 9}, output=DEPLOYED)
    assert "learning-rate" in str(caught.value)
    left = latest(tmp_path)
    assert [record["skipped"] for record in left.records()] == [False, True, True]
    rejected = [record["rejected"] for record in left.records()[1:]]
    assert [sum(counts.values()) for counts in rejected] == [3, 3]
    assert {"not-finite", "norm"} >= rejected[0].keys() | rejected[1].keys()
    assert left.json("status.json")["state"] == "failed"
    assert left.directory.report.exists()


def test_the_server_app_ends_a_users_mistake_as_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"dataset": f"npz:{tmp_path / 'missing.npz'}", "partition": "natural", "runs-dir": str(tmp_path / "runs")}
    run_config = RunConfig.from_run_config(config).to_run_config()
    with pytest.raises(RunRefused, match=r"missing\.npz"):
        server.app(InlineGrid(client_app, simulated(1), run_config), Context(1, 1, {}, RecordDict(), run_config))
    left = latest(tmp_path / "runs")
    assert "missing.npz" in left.json("status.json")["message"]
    assert left.json("status.json")["state"] == "failed"
    assert not left.directory.report.exists()


def test_the_server_app_has_no_simulated_world(tmp_path: Path) -> None:
    run_config = RunConfig.from_run_config({"dropout": 0.1, "runs-dir": str(tmp_path / "runs")}).to_run_config()
    with pytest.raises(RunRefused, match="fedkeras simulate"):
        server.app(InlineGrid(client_app, simulated(1), run_config), Context(1, 1, {}, RecordDict(), run_config))
    assert not (tmp_path / "runs").exists()


def test_fedbuff_steps_with_buffers(tmp_path: Path) -> None:
    buffered = {"strategy": "fedbuff", "buffer-size": 2, "concurrency": 4, "num-rounds": 3}
    left = start(tmp_path, {**SMALL, **buffered})
    records = left.records()
    assert [len(record["rejected"]) for record in records] == [0, 0, 0, 0]
    assert [record["accepted"] for record in records[1:]] == [2, 2, 2]


def test_a_client_that_the_node_does_not_host_is_that_clients_error() -> None:
    from app.compose import data_spec
    from app.local_task import local_task

    config = RunConfig.from_run_config(SMALL)
    model = local_task(config, data_spec(config)).build_model()
    arrays = wire.array_record({weight.path: weight.numpy() for weight in model.weights})
    request = {wire.ARRAYS: arrays, wire.CONFIG: ConfigRecord({"client": "77", "seed": 1, "learning-rate": 0.1})}
    reply = ask(SMALL, "train", request)
    assert reply.has_error()
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "asked for the client '77', which this node does not host" in reply.error.reason


def test_model_and_data_must_fit(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="model='cnn' needs images of at least 4x4"):
        start(tmp_path, {**SMALL, "dataset": "synthetic", "partition": "natural", "model": "cnn"})
    with pytest.raises(
        TaskError, match=r"puts out \(3,\) per example, and for labels of 10 classes it must be \(10,\)"
    ):
        start(tmp_path, {**SMALL, "model": "tests.app.inline_models:three_classes"})
    with pytest.raises(TaskError, match="failed with RuntimeError: out of ideas"):
        start(tmp_path, {**SMALL, "model": "tests.app.inline_models:broken"})
    assert "out of ideas" in latest(tmp_path).json("status.json")["message"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "digits-cnn-small"),
        ({"name": "mine"}, "mine"),
        ({"dataset": "npz:/data/east.npz?y=label&classes=3", "partition": "natural"}, "east-cnn-small"),
        ({"dataset": "tfrecord:silos/", "partition": "natural"}, "silos-cnn-small"),
        ({"dataset": "my_task:blobs", "model": "mlp"}, "my_task:blobs-mlp"),
    ],
)
def test_the_name_of_a_run(changes: dict[str, Any], name: str) -> None:
    assert run_name(RunConfig.from_run_config(changes)) == name
