"""The command: which file is meant, what it says while it runs, and a real sweep of a second per run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import commands
from app.errors import UserError
from simulation.sweep.command import carry_out, sweep, sweep_file
from simulation.sweep.plan import read_plan
from tests.simulation.sweep_runner import REPOSITORY, FakeRunner, plan_of

GRID = "[grid]\nlearning-rate = [0.01, 0.1]\n"


def test_a_file_or_a_ready_made_sweep_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep_file("digits", REPOSITORY) == REPOSITORY / "presets" / "sweeps" / "digits.toml"
    (tmp_path / "digits").write_text("")
    assert sweep_file("digits", REPOSITORY) == Path("digits")
    with pytest.raises(UserError, match="'digit' is neither a sweep file nor one of the ready-made sweeps digits"):
        sweep_file("digit", REPOSITORY)


def test_what_a_sweep_says_and_leaves(tmp_path: Path) -> None:
    plan, said = plan_of(tmp_path, GRID + "[sweep]\nseeds = 2\n"), list[str]()
    best = carry_out(plan, FakeRunner({0.01: lambda: UserError("No.")}), said.append)
    folder = tmp_path / "runs" / "lr"
    assert best is not None
    assert said == [
        f"2 configurations, 2 seeds; 0 runs known in {folder}",
        "1/2 | learning-rate=0.01 | seed 0 | failed | accuracy 38.9 % | No.",
        "2/2 | learning-rate=0.1 | seed 0 | completed | accuracy 86.7 %",
        "2/2 | learning-rate=0.1 | seed 1 | completed | accuracy 86.8 %",
        f"Report: {folder / 'report.html'}",
        f"Best: learning-rate 0.1. Run it again: fedkeras simulate -c {folder / 'best.toml'}",
    ]
    left = {path.name for path in folder.iterdir() if path.is_file()}
    assert left == {"best.toml", "report.html", "results.csv", "runs.csv", "sweep.json"}
    again = list[str]()
    carry_out(plan, FakeRunner(), again.append)
    assert again[0] == f"2 configurations, 2 seeds; 3 runs known in {folder}"
    assert again[1:] == said[1:]


def test_an_interrupted_sweep_leaves_a_report_of_what_there_is(tmp_path: Path) -> None:
    plan, said = plan_of(tmp_path, GRID), list[str]()

    def interrupt() -> BaseException:
        return KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, FakeRunner({0.1: interrupt}), said.append)
    assert "Interrupted. The same command goes on from here." in said
    page = (tmp_path / "runs" / "lr" / "report.html").read_text(encoding="utf-8")
    assert "1 of 2 configurations are still to run." in page
    assert carry_out(plan, FakeRunner(), said.append) is not None
    page = (tmp_path / "runs" / "lr" / "report.html").read_text(encoding="utf-8")
    assert "still to run" not in page


def test_a_sweep_without_any_result_says_so(tmp_path: Path) -> None:
    said = list[str]()
    runner = FakeRunner(dict.fromkeys((0.01, 0.1), lambda: UserError("No.")))
    assert carry_out(plan_of(tmp_path, GRID), runner, said.append) is None
    assert said[-1] == "No configuration was run to its end with a finite value: the report says why."


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    plan = plan_of(tmp_path, "[base]\nruns-dir = 'file/runs'\n" + GRID)
    with pytest.raises(UserError, match=r"cannot be made .* set 'runs-dir' in"):
        carry_out(plan, FakeRunner(), lambda line: None)


def test_a_mistake_in_the_file_is_told_before_anything_starts(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[grid]\nlearning-rate = [-1.0]\n")
    if "sweep" not in {command.name for command in commands.registered_commands}:
        commands.command(name="sweep")(sweep)
    done = CliRunner().invoke(commands, ["sweep", str(file)])
    assert isinstance(done.exception, UserError)
    assert "The key 'learning-rate' is -1.0" in str(done.exception)


def test_the_command_is_light_until_it_runs() -> None:
    heavy = "('optuna', 'ray', 'flwr', 'numpy', 'tensorflow')"
    code = f"import sys, simulation.sweep.command; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


REAL = """
[base]
model = "logistic"
num-clients = 6
clients-per-round = 3
num-rounds = 5
local-epochs = 1
batch-size = 20
node-timeout = 5.0
federated-evaluate-every = 0
[grid]
learning-rate = [0.3, 0.001, 0.1]
[sweep]
seeds = 2
halving = { min-rounds = 2, factor = 3 }
"""
RUN = """
import sys
from pathlib import Path
from simulation.sweep.command import _simulation, carry_out
from simulation.sweep.plan import read_plan
plan = read_plan(Path(sys.argv[1]), Path.cwd(), Path(sys.argv[1]).parent)
with _simulation(None, "inline", None) as runner:
    for time in range(2):
        carry_out(plan, runner, print)
"""


@pytest.mark.slow
def test_a_real_sweep_on_digits(tmp_path: Path) -> None:
    file = tmp_path / "real.toml"
    file.write_text(REAL)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(file)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "runs" / "real"
    assert read_plan(file, REPOSITORY, tmp_path).runs_dir == folder.parent
    runs: list[dict[str, Any]] = list(json.loads((folder / "sweep.json").read_text())["runs"].values())
    states = [run["state"] for run in runs]
    assert set(states) == {"completed", "pruned"}
    assert f"{len(runs)} runs known in {folder}" in done.stdout  # by the second time, which runs nothing
    assert len([path for path in folder.iterdir() if path.is_dir()]) == len(runs)
    for run in runs:
        records = (folder / run["directory"] / "metrics.jsonl").read_text().splitlines()
        assert len(records) == (6 if run["state"] == "completed" else 3)
    assert "learning-rate = 0.3" in (folder / "best.toml").read_text()
