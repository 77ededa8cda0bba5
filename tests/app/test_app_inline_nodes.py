"""Nodes of a deployment with data of their own, in one process: what works, and the sentence for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import UserError
from strategies.errors import StrategyError
from tasks.errors import TaskError
from tests.app.inline_runs import SMALL, latest, start, write_digits

A, B, C = "hospital-a", "hospital-b", "hospital-c"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with three hospitals' digits and held-out ones for the server."""
    write_digits(tmp_path / "a.npz", slice(0, 300))
    write_digits(tmp_path / "b.npz", slice(300, 700))
    write_digits(tmp_path / "c.npz", slice(700, 1200))
    write_digits(tmp_path / "held-out.npz", slice(1200, None))
    return tmp_path


def node(client: str, path: Path | str, **more: Any) -> dict[str, Any]:
    return {"client-id": client, "data-path": str(path), **more}


def config(files: Path, **changes: Any) -> dict[str, Any]:
    ours = {key: value for key, value in SMALL.items() if key != "num-clients"}
    held_out = {"dataset": f"npz:{files / 'held-out.npz'}", "partition": "natural", "clients-per-round": 0}
    return {**ours, **held_out, **{key.replace("_", "-"): value for key, value in changes.items()}}


def test_nodes_train_on_their_own_data(files: Path) -> None:
    nodes = {
        1: node(A, files / "a.npz", **{"device-class": "server", "region": "north"}),
        2: node(B, files / "b.npz", **{"device-class": "laptop", "region": "south"}),
    }
    left = start(files / "runs", config(files, num_rounds=8, local_epochs=3), nodes)
    population = left.json("population.json")
    assert population == {
        "clients": [A, B],
        "examples": [240, 320],  # without each one's own test part
        "device-classes": ["server", "laptop"],
        "regions": ["north", "south"],
        "label-counts": None,
    }
    records = left.records()
    assert [(record["accepted"], record["rejected"]) for record in records[1:]] == [(2, {})] * 8
    assert records[-1]["central"]["accuracy"] > 0.8
    assert records[-1]["federated"]["clients"] == 2


def test_nodes_may_swap_their_ids_at_flower(files: Path) -> None:
    """Flower draws node ids anew at every start: the model hangs on the clients' own names."""
    a, b = node(A, files / "a.npz"), node(B, files / "b.npz")
    first = start(files / "runs", config(files), {1: a, 2: b}).digest()
    assert start(files / "runs", config(files), {71: b, 904: a}).digest() == first


def test_one_node_can_host_several_clients_of_a_file(files: Path) -> None:
    write_digits(files / "both.npz", slice(0, 700), client=np.repeat([A, B], [300, 400]))
    hosted = start(files / "runs", config(files), {1: node(f"{A}, {B}", files / "both.npz")})
    assert hosted.json("population.json")["clients"] == [A, B]
    assert hosted.records()[1]["accepted"] == 2


def test_a_node_without_client_id_hosts_every_client_of_its_file(files: Path) -> None:
    write_digits(files / "both.npz", slice(0, 700), client=np.repeat([A, B], [300, 400]))
    left = start(files / "runs", config(files), {1: {"data-path": str(files / "both.npz")}})
    assert left.json("population.json")["clients"] == [A, B]


def test_a_node_can_name_clients_of_the_servers_data_set(tmp_path: Path) -> None:
    left = start(tmp_path, {**SMALL, "clients-per-round": 0}, {1: {"client-id": "2, 4"}, 2: {"client-id": "0"}})
    assert left.json("population.json")["clients"] == ["0", "2", "4"]
    assert left.records()[1]["accepted"] == 3


def refused(files: Path, nodes: dict[int, dict[str, Any]], **changes: Any) -> str:
    """Run what cannot go well, and return the sentence, which the run directory must hold too."""
    with pytest.raises((UserError, TaskError, StrategyError)) as caught:
        start(files / "runs", config(files, **changes), nodes)
    status = latest(files / "runs").json("status.json")
    assert (status["state"], status["message"]) == ("failed", str(caught.value))
    assert "\n" not in status["message"]
    return str(caught.value)


def test_a_node_that_does_not_say_who_it_is(files: Path) -> None:
    sentence = refused(files, {1: node(A, files / "a.npz"), 2: {}}, min_nodes=2)
    assert "does not say which client it is" in sentence
    assert "--node-config" in sentence


def test_a_missing_data_path(files: Path) -> None:
    sentence = refused(files, {1: node(A, files / "elsewhere.npz")})
    assert f"'data-path' is '{files / 'elsewhere.npz'}', where there is nothing" in sentence
    assert f"client-id '{A}'" in sentence


def test_a_client_that_is_not_in_the_data(files: Path) -> None:
    write_digits(files / "both.npz", slice(0, 700), client=np.repeat([A, B], [300, 400]))
    assert f"'client-id' is '{C}', but the data" in refused(files, {1: node(C, files / "both.npz")})


def test_two_nodes_with_one_name(files: Path) -> None:
    sentence = refused(files, {1: node(A, files / "a.npz"), 2: node(A, files / "b.npz")})
    assert f"Two nodes describe the client '{A}' differently (240 and 320 examples)" in sentence


def test_nodes_of_different_shapes(files: Path) -> None:
    np.savez(files / "flat.npz", x=np.zeros((50, 64), np.float32), y=np.arange(50) % 10)
    sentence = refused(files, {1: node(A, files / "a.npz"), 2: node(B, files / "flat.npz")})
    assert "The nodes disagree on 'input-shape': one says [8, 8, 1], another [64]." in sentence


def test_nodes_and_server_of_different_shapes(files: Path) -> None:
    np.savez(files / "flat.npz", x=np.zeros((50, 64), np.float32), y=np.arange(50) % 10)
    sentence = refused(files, {1: node(A, files / "flat.npz")})
    assert "The nodes' examples have the shape [64], but the server's data set" in sentence
    assert "[8, 8, 1]: set 'dataset'" in sentence


def test_a_node_with_more_classes_than_the_server(files: Path) -> None:
    np.savez(files / "more.npz", x=np.zeros((50, 8, 8, 1), np.float32), y=np.arange(50) % 12)
    sentence = refused(files, {1: node(A, files / "more.npz")})
    assert "The nodes' data have 12 classes, but the server's data set" in sentence


def test_a_corrupt_file_on_a_node(files: Path) -> None:
    whole = (files / "a.npz").read_bytes()
    (files / "a.npz").write_bytes(whole[: len(whole) // 2])
    sentence = refused(files, {1: node(A, files / "a.npz"), 2: node(B, files / "b.npz")}, min_nodes=2)
    assert sentence.startswith("A node cannot take part: ")
    assert str(files / "a.npz") in sentence


def test_a_corrupt_file_on_the_server(files: Path) -> None:
    (files / "held-out.npz").write_bytes(b"PK\x03\x04 and then nothing")
    assert "held-out.npz" in refused(files, {1: node(A, files / "a.npz")})


def test_labels_out_of_range_for_the_model(files: Path) -> None:
    model = "tests.app.inline_models:three_classes"
    assert "for labels of 10 classes it must be (10,)" in refused(files, {1: node(A, files / "a.npz")}, model=model)


def test_a_client_without_training_data(files: Path) -> None:
    write_digits(files / "only-tests.npz", slice(0, 100), test=np.ones(100, bool))
    sentence = refused(files, {1: node(A, files / "only-tests.npz"), 2: node(B, files / "b.npz")}, min_nodes=2)
    assert "only-tests.npz" in sentence


def test_a_client_without_any_data(files: Path) -> None:
    write_digits(files / "empty.npz", slice(0, 0))
    sentence = refused(files, {1: node(A, files / "empty.npz"), 2: node(B, files / "b.npz")}, min_nodes=2)
    assert "empty.npz" in sentence


def test_a_client_whose_examples_are_all_held_out_only_evaluates_centrally(files: Path) -> None:
    client, test = np.repeat([A, B], [100, 200]), np.repeat([True, False], [100, 200])
    write_digits(files / "mask.npz", slice(0, 300), client=client, test=test)
    left = start(files / "runs", config(files), {1: {"data-path": str(files / "mask.npz")}})
    assert left.json("population.json")["clients"] == [B]


def test_fewer_nodes_than_asked_for(files: Path) -> None:
    sentence = refused(files, {1: node(A, files / "a.npz")}, min_nodes=2)
    assert "Only 1 of the 2 nodes asked for ('min-nodes') had connected after 0.5 s" in sentence


def test_a_cohort_larger_than_the_nodes_clients(files: Path) -> None:
    sentence = refused(files, {1: node(A, files / "a.npz")}, clients_per_round=3)
    assert "clients-per-round" in sentence


def test_data_that_breaks_only_in_training_is_that_clients_rejection(files: Path) -> None:
    """What a node's description cannot show is rejected in the round, and the others go on."""
    write_digits(files / "huge.npz", slice(0, 300))
    with np.load(files / "huge.npz") as arrays:
        np.savez(files / "huge.npz", x=arrays["x"] * np.float32(1e30), y=arrays["y"])
    nodes = {1: node(A, files / "huge.npz"), 2: node(B, files / "b.npz")}
    records = start(files / "runs", config(files), nodes).records()
    assert [record["accepted"] for record in records[1:]] == [1, 1]
    assert all(sum(record["rejected"].values()) == 1 for record in records[1:])
