"""How a run ends: its own outcome stands, and what was learnt until then is kept."""

from pathlib import Path

import pytest

import app.federated_run
from app.errors import UserError
from app.output import DEPLOYED
from strategies.errors import StrategyError
from strategies.records import RoundRecord
from tests.app.inline_runs import SMALL, latest, start


def broken(*_: object) -> None:
    raise RuntimeError("no fonts")


def end_in_round_2(record: RoundRecord) -> None:
    if record.round == 2:
        raise StrategyError("the true reason")


def test_a_report_that_fails_does_not_hide_how_the_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.federated_run, "write_report", broken)
    assert start(tmp_path / "a", SMALL, output=DEPLOYED).json("status.json")["state"] == "completed"
    with pytest.raises(StrategyError, match="the true reason"):
        start(tmp_path / "b", SMALL, observers=[end_in_round_2], output=DEPLOYED)


def test_a_run_that_ends_early_leaves_the_model_it_had(tmp_path: Path) -> None:
    whole = start(tmp_path / "whole", {**SMALL, "num-rounds": 2})
    with pytest.raises(StrategyError):
        start(tmp_path / "broken", {**SMALL, "num-rounds": 5}, observers=[end_in_round_2])
    left = latest(tmp_path / "broken")
    assert left.json("status.json") == {
        "state": "failed",
        "message": "the true reason",
        "rounds": 2,
        "resumed-after": [],
    }
    assert left.digest() == whole.digest()


def test_a_run_that_never_trained_leaves_no_model(tmp_path: Path) -> None:
    with pytest.raises((UserError, StrategyError)):
        start(tmp_path, {**SMALL, "min-nodes": 2})
    assert not latest(tmp_path).directory.model.exists()
