"""Whole simulated runs: the real app on Ray and inline gives one model; exit codes of the command; one warm engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.errors import UserError
from app.run_directory import RunDirectory
from simulation import cli, command
from simulation.simulate import data_bytes
from tests.app.inline_runs import SMALL, Left, latest
from tests.simulation.engines import FEDBUFF, warm_runs

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_and_inline_give_one_model_packed_anyhow_on_one_warm_engine(tmp_path: Path) -> None:
    model = {**SMALL, "model": "cnn-small", "node-timeout": 30.0}
    alone = {"clients-per-message": 1}
    configs = [model, {**model, **alone}, {**model, **FEDBUFF}, {**model, **FEDBUFF, **alone}, {**model, "seed": 1}]
    engines = [
        warm_runs(tmp_path / "two", "ray", configs),
        warm_runs(tmp_path / "inline", "inline", configs),
    ]
    digests = [[Left(RunDirectory(Path(run[0]))).digest() for run in told[:-1]] for told in engines]
    assert digests[0] == digests[1]
    fedavg, fedavg_alone, fedbuff, fedbuff_alone, other_seed = digests[0]
    assert fedavg == fedavg_alone and fedbuff == fedbuff_alone
    assert len({fedavg, fedbuff, other_seed}) == 3
    assert [run[1:] for run in engines[0][:-1]] == [[[0, 1, 2], 2]] * 2 + [[[0, 1, 2, 3, 4], 4]] * 2 + [[[0, 1, 2], 2]]
    ages = [record["staleness"]["largest"] for record in Left(RunDirectory(Path(engines[0][2][0]))).records()[1:]]
    assert max(ages) > 0
    assert [told[-1] for told in engines] == ["that will do"] * 2
    stopped = latest_failed(tmp_path / "two")
    assert (stopped["message"], stopped["rounds"]) == ("that will do", 1)


def latest_failed(folder: Path) -> dict[str, Any]:
    states = [json.loads(file.read_text()) for file in folder.glob("*/status.json")]
    (failed,) = [state for state in states if state["state"] == "failed"]
    return dict(failed)


def simulate(folder: Path, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    program = "from simulation.cli import main; main()"
    settings = [f"-c{key}={value}" for key, value in {**SMALL, "node-timeout": 30.0, "runs-dir": folder}.items()]
    command = [sys.executable, "-c", program, "simulate", *settings, *arguments]
    return subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_ctrl_c_ends_a_run_with_its_directory_closed_and_its_workers_gone(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    process = simulate(folder, "-c", "num-rounds=100000", "--workers", "1")
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert latest(folder).json("status.json")["state"] == "interrupted"
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_failed_run_says_so_in_a_sentence_and_exits_1(tmp_path: Path) -> None:
    arguments = ("--engine", "inline", "-c", "max-update-norm=1e-9", "-c", "max-skipped-rounds=1")
    process = simulate(tmp_path / "runs", *arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert "'max-skipped-rounds'" in output and "Traceback" not in output


def test_the_command_hands_everything_over(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[command.Request] = []
    monkeypatch.setattr(command, "run", lambda request: seen.append(request) or 130)
    arguments = ["simulate", "-c", "seed=1", "--workers", "3", "--gpus", "0.5", "--ray-address", "a:1", "--verbose"]
    result = CliRunner().invoke(cli.commands, arguments)
    assert result.exit_code == 130
    assert seen == [command.Request(("seed=1",), 3, 0.5, "ray", "a:1", True, folder=Path.cwd())]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (command.Request(("num-rouns=3",)), "did you mean 'num-rounds'"),
        (command.Request(engine="inline", workers=2), "--workers, --gpus and --ray-address are for --engine ray"),
        (command.Request(("dataset=npz:no-such.npz",)), "there is no"),
    ],
)
def test_mistakes_are_told_before_anything_starts(request_: command.Request, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        command.run(request_)


def test_only_a_data_set_that_is_a_file_has_a_size(tmp_path: Path) -> None:
    file = tmp_path / "own.npz"
    file.write_bytes(b"x" * 1234)
    assert data_bytes(f"npz:{file}") == data_bytes(f"npz:{file}?classes=10") == 1234
    assert data_bytes("digits") == data_bytes("npz:no-such.npz") == 0


def test_the_command_starts_without_ray_flower_or_tensorflow() -> None:
    heavy = {"tensorflow", "keras", "flwr", "ray", "numpy"}
    program = f"import sys, simulation.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
