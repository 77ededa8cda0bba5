"""Where clients keep their states: in the run directory of a simulation, in a node's own folder otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, RecordDict

from app.client_states import client_states
from app.errors import UserError
from strategies.client_state import file_name
from tests.app.inline_runs import SMALL, simulated, start, write_digits

STATE = {"control": np.ones(3, np.float32)}


def on_node(**node: object) -> Context:
    return Context(1, 1, {key.replace("_", "-"): value for key, value in node.items()}, RecordDict(), {})  # type: ignore[misc]


def test_simulated_clients_keep_them_in_the_run_directory(tmp_path: Path) -> None:
    run = tmp_path / "20260101-000000-digits"
    run.mkdir()
    found = client_states(on_node(partition_id=0, num_partitions=2), str(run))
    assert found.folder == run / "client-states" and not found.durable


def test_a_run_directory_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which this machine does not see: set 'runs-dir' to a folder that all"):
        client_states(on_node(partition_id=0, num_partitions=2), str(tmp_path / "elsewhere"))


def test_a_deployed_node_keeps_them_in_its_own_folder_by_the_name_of_the_run(tmp_path: Path) -> None:
    nodes = (on_node(client_id="east", state_dir=str(tmp_path)), on_node(partition_id=0, state_dir=str(tmp_path)))
    for node in nodes:
        found = client_states(node, "/home/somebody/runs/20260101-000000-digits")
        assert found.folder == tmp_path / file_name("20260101-000000-digits") and found.durable
        found.save("east", 1, STATE)
    assert client_states(nodes[0], "/moved/20260101-000000-digits").load("east", 1, 2, STATE) is not STATE


def test_by_default_that_is_the_users_folder_for_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for home, expected in ((None, tmp_path / ".local" / "state"), (tmp_path / "xdg", tmp_path / "xdg")):
        if home is None:
            monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_STATE_HOME", str(home))
        folder = client_states(on_node(client_id="east"), "runs/a").folder
        assert folder == expected / "fedkeras" / file_name("a")


@pytest.mark.parametrize("run", ["..", "../..", "a/..", "/"])
def test_no_name_of_a_run_leads_out_of_the_folder(tmp_path: Path, run: str) -> None:
    folder = client_states(on_node(client_id="east", state_dir=str(tmp_path / "states")), run).folder
    assert folder.parent == tmp_path / "states"


def test_a_folder_that_is_no_path_is_a_sentence() -> None:
    with pytest.raises(UserError, match="The key 'state-dir' is"):
        client_states(on_node(client_id="east", state_dir="a\0b"), "runs/a")


def test_a_run_leaves_none_behind_when_it_is_completed(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(record: object) -> None:
        seen.append(len(list(tmp_path.glob("*/client-states/*/*.npz"))))

    left = start(tmp_path, {**SMALL, "strategy": "scaffold"}, 2, [look])
    assert seen == [0, 3, 6]
    assert not left.directory.client_states.exists()
    assert [record["accepted"] for record in left.records()] == [0, 3, 3]


def test_an_interrupted_run_keeps_them_to_be_gone_on_with(tmp_path: Path) -> None:
    def stop(record: object) -> None:
        if len(list(tmp_path.glob("*/client-states/*/*.npz"))) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, {**SMALL, "strategy": "scaffold"}, simulated(1), [stop])
    assert len(list(tmp_path.glob("*/client-states/*/1.npz"))) == 3


def test_deployed_nodes_keep_theirs_in_their_own_folders(tmp_path: Path) -> None:
    """What a round has committed is kept, and the one before it, and what the last round may yet commit."""
    for name, examples in (("east", slice(0, 200)), ("west", slice(200, 500)), ("held-out", slice(500, 800))):
        write_digits(tmp_path / f"{name}.npz", examples)
    nodes = {
        number: {"client-id": name, "data-path": str(tmp_path / f"{name}.npz"), "state-dir": str(tmp_path / name)}
        for number, name in enumerate(("east", "west"), 1)
    }
    ours = {key: value for key, value in SMALL.items() if key != "num-clients"}
    data = {"dataset": f"npz:{tmp_path / 'held-out.npz'}", "partition": "natural", "clients-per-round": 0}
    left = start(tmp_path, {**ours, **data, "num-rounds": 3, "strategy": "scaffold"}, nodes)
    assert [record["accepted"] for record in left.records()] == [0, 2, 2, 2]
    for name in ("east", "west"):
        own = tmp_path / name / file_name(left.directory.path.name) / file_name(name)
        generations = {int(path.stem): np.load(path)["control"] for path in own.glob("*.npz")}
        assert sorted(generations) == [1, 2, 3]
        assert len({control.tobytes() for control in generations.values()}) == 3
    assert not left.directory.client_states.exists()
