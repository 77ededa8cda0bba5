"""Plain ``flwr run``, and what becomes of a second checkout's run on the SuperLink that the first one has started."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.app.inline_runs import REPOSITORY
from tests.end_to_end.conftest import Flower

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NOT_PART = (".git", ".venv", "__pycache__", "runs", "dist", "*.egg-info", ".*_cache", ".hypothesis")
SHORT = 'num-rounds=1 model="logistic" local-epochs=1 federated-evaluate-every=0'


def checkout(folder: Path) -> Path:
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns(*NOT_PART))
    return folder


def test_each_checkout_trains_its_own_code_or_nothing(flower: Flower, tmp_path: Path) -> None:
    first, second = checkout(tmp_path / "first"), checkout(tmp_path / "second")
    training = second / "tasks" / "training.py"
    training.write_text(training.read_text().replace('"""', '"""Changed. ', 1))

    ended = flower.flwr_run(first, f'{SHORT} runs-dir="{tmp_path / "first-runs"}"')
    assert flower.newest_run()["status"] == "finished:completed", ended.output
    assert "DeprecationWarning" not in ended.output

    ended = flower.flwr_run(second, f'{SHORT} runs-dir="{tmp_path / "second-runs"}"')
    failed = flower.newest_run()
    assert failed["status"] == "finished:failed", ended.output
    assert "runs other code" in ended.output
    assert f"from {first}" in ended.output
    assert "fedkeras down" in ended.output
    assert "fedkeras down" in failed["status-details"]

    command = (sys.executable, "-c", "from app.cli import main; main()", "run", "-c", SHORT)
    ended = flower.call(*command, cwd=second)
    assert ended.code == 2, ended.output
    assert f"it was started from {first}, whose 'app' folder would be trained" in ended.output.replace("\n", " ")
