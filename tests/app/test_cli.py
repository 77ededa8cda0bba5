"""The ``fedkeras`` command: options, tables, exit codes, one sentence for a mistake, and a fast start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app import cli, flower_run
from app.config import RunConfig
from app.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.commands, list(arguments))


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        cwd=REPOSITORY, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_config_lists_every_key() -> None:
    result = invoke("config")
    assert result.exit_code == 0
    for key in RunConfig.key_names():
        assert f" {key} " in result.output
    assert "Local training" in result.output


def test_config_of_one_key() -> None:
    result = invoke("config", "batch-size")
    assert "at least 1" in result.output
    assert "num-rounds" not in result.output


def test_version() -> None:
    assert invoke("--version").output.startswith("fedkeras 0.")


def test_run_hands_everything_over_and_returns_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[flower_run.Request] = []

    def fake(request: flower_run.Request, show: Any) -> int:
        seen.append(request)
        show("a line")
        return 130

    monkeypatch.setattr(flower_run, "run", fake)
    result = invoke("run", "mine", "-c", "mnist-cnn", "-c", "seed=1", "--workers", "3", "--gpus", "0.5", "--verbose")
    assert (result.exit_code, result.output) == (130, "a line\n")
    assert seen == [flower_run.Request("mine", ("mnist-cnn", "seed=1"), 3, 0.5, True, folder=Path.cwd())]


def test_a_users_mistake_is_one_sentence_on_stderr_and_exit_code_2(tmp_path: Path) -> None:
    result = command("run", "-c", "num-rouns=3", FLWR_HOME=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr == "There is no key 'num-rouns'; did you mean 'num-rounds'?\n"
    assert result.stdout == ""


def test_config_of_an_unknown_key() -> None:
    with pytest.raises(UserError, match="did you mean 'batch-size'"):
        cli.commands(["config", "batch-sze"], standalone_mode=False)


def test_report_passes_directories_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = pytest.importorskip("app.report.build")
    seen: list[Any] = []
    monkeypatch.setattr(build, "write_report", lambda dirs, output: seen.append((dirs, output)) or tmp_path / "r.html")
    result = invoke("report", "a", "b", "-o", "out.html")
    assert seen == [([Path("a"), Path("b")], Path("out.html"))]
    assert "r.html" in result.output


def test_down_without_a_superlink(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    monkeypatch.setenv("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "1")
    assert invoke("down").output == "No SuperLink is running on port 1.\n"


def test_the_command_starts_without_tensorflow_or_flower() -> None:
    heavy = {"tensorflow", "keras", "flwr", "ray", "numpy"}
    program = f"import sys, app.cli, app.flower_run; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
