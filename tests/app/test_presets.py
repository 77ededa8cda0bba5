"""The presets: each is a sound run config, says all that its name promises, and is described in a comment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from app.config import RunConfig
from app.overrides import merged_config
from app.world_keys import world_keys_set

REPOSITORY = Path(__file__).resolve().parents[2]
PRESETS = sorted((REPOSITORY / "presets").glob("*.toml"))
RUN_ALL = """
import json, sys
from pathlib import Path
from tests.app import inline_runs

for name, config in json.loads(sys.argv[2]).items():
    left = inline_runs.start(Path(sys.argv[1]), config)
    print(json.dumps([name, left.json("status.json")["state"], left.records()[-1]]), flush=True)
"""


def load(name: str) -> RunConfig:
    (file,) = [preset for preset in PRESETS if preset.stem == name]
    return RunConfig.from_run_config(tomllib.loads(file.read_text()))


def test_the_presets_are_those_that_people_ask_for() -> None:
    assert [file.stem for file in PRESETS] == [
        "cross-silo",
        "digits-linear",
        "fedavg-2nn",
        "fedavg-cnn",
        "few-bytes",
        "four-hospitals",
        "image-classification",
        "mlp-dropout",
        "mnist-cnn",
        "phones",
    ]


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_each_preset_is_sound_named_and_described(file: Path) -> None:
    config = RunConfig.from_run_config(tomllib.loads(file.read_text()))
    assert config.name == file.stem
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_each_preset_states_what_a_change_of_defaults_must_not_change(file: Path) -> None:
    stated = set(tomllib.loads(file.read_text()))
    needed = {"dataset", "partition", "model", "learning-rate", "batch-size", "num-rounds", "clients-per-round"}
    assert needed <= stated
    assert stated & {"local-epochs", "local-steps"}


def test_the_figures_that_presets_are_known_by() -> None:
    linear = load("digits-linear")
    assert (linear.model, linear.learning_rate, linear.server_learning_rate) == ("logistic", 0.02, 1.0)
    cnn = load("mnist-cnn")
    assert 60_000 // cnn.num_clients == 100
    assert (cnn.client_test_fraction, cnn.batch_size, cnn.learning_rate, cnn.num_rounds) == (0.0, 20, 0.02, 10)
    dropout = load("mlp-dropout")
    assert (dropout.batch_size, dropout.clients_per_round, dropout.num_rounds) == (32, 100, 50)
    assert load("image-classification").learning_rate == 0.1
    silo = load("cross-silo")
    assert (silo.client_optimizer, silo.learning_rate, silo.batch_size) == ("adam", 1e-4, 64)
    assert silo.local_epochs > 1
    hospitals = load("four-hospitals")
    assert (hospitals.batch_size, hospitals.learning_rate) == (4, 0.001)
    assert (hospitals.local_steps, hospitals.num_rounds) == (100, 15)
    phones = load("phones")
    assert (phones.over_selection, phones.clients_per_round, phones.round_deadline) == (1.3, 10, 60.0)
    for paper in (load("fedavg-2nn"), load("fedavg-cnn")):
        assert (paper.num_clients, paper.clients_per_round, paper.batch_size) == (100, 10, 10)


def test_the_hospitals_file_is_where_the_preset_looks_and_has_its_keys(shared_data: Path) -> None:
    np = pytest.importorskip("numpy")
    path, _, query = load("four-hospitals").dataset.removeprefix("npz:").partition("?")
    assert path.startswith("../shared/data/")
    with np.load(shared_data / path.removeprefix("../shared/data/")) as arrays:
        assert {pair.partition("=")[2] for pair in query.split("&")} <= set(arrays)


def shortened(config: RunConfig, data: Path) -> dict[str, Any]:
    """Return a preset as it is, but for how long it takes: one round, a cohort of two, few steps."""
    changes: dict[str, Any] = {"num-rounds": 1, "federated-evaluate-every": 0}
    if config.clients_per_round:
        changes["clients-per-round"] = 2
    if config.local_steps:
        changes["local-steps"] = 2
    else:
        changes["local-epochs"] = 1
    changes["dataset"] = config.dataset.replace("npz:../shared/data", f"npz:{data}")
    return {**config.to_run_config(), **changes}


@pytest.mark.slow
def test_each_preset_runs(shared_data: Path, keras_home: Path, tmp_path: Path) -> None:
    merged = {file.stem: merged_config([file.stem], REPOSITORY, tmp_path) for file in PRESETS}
    # Those with a simulated world need 'fedkeras simulate': tests/simulation/test_phones.py runs them.
    configs = {name: shortened(config, shared_data) for name, config in merged.items() if not world_keys_set(config)}
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, str(tmp_path), json.dumps(configs)],
        cwd=REPOSITORY, env={**os.environ, "KERAS_HOME": str(keras_home), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ended = {name: (state, record) for name, state, record in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, (list(ended), done.stderr[-3000:])
    assert list(ended) == list(configs)
    for name, (state, record) in ended.items():
        cohort = configs[name]["clients-per-round"] or 4  # four silos, four hospitals
        assert (name, state, record["round"], record["accepted"]) == (name, "completed", 1, cohort)
        assert record["central"] is not None, name
