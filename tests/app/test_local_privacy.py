"""Local privacy in the app as a whole: the same model however clients travel, no numbers of theirs, an honest end."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from app.client import client_noise
from app.config import RunConfig
from app.errors import ConfigError
from app.output import DEPLOYED
from app.simulated_process import simulated_here
from strategies.privacy.accounting import Release, epsilons
from tests.app.inline_runs import SMALL, start
from tests.strategies.toy_federation import message_with

LOCAL: dict[str, Any] = {**SMALL, "strategy": "local-dp", "noise-multiplier": 4.0, "clipping-norm": 0.01}


def test_packing_and_nodes_do_not_show_but_the_noise_does(tmp_path: Path) -> None:
    runs = [
        start(tmp_path, {**LOCAL, "clients-per-message": packed}, nodes).digest() for packed, nodes in ((0, 1), (1, 3))
    ]
    assert len(set(runs)) == 1
    assert start(tmp_path, {**LOCAL, "noise-multiplier": 0.0}).digest() not in runs


def test_nothing_but_the_cost_is_told(tmp_path: Path) -> None:
    records = start(tmp_path, {**LOCAL, "clients-per-round": 0}).records()[1:]
    assert [(record["accepted"], record["rejected"]) for record in records] == [(6, {})] * 2
    assert all("loss" not in record["train"] and record["federated"] is None for record in records)
    once, twice = (epsilons({Release("local", 1.0, 4.0): times}, 1e-5) for times in (1, 2))
    for record, expected in zip(records, (once, twice), strict=True):
        assert record["privacy"]["epsilon"] == expected.tightest
        assert record["privacy"]["update-noise-deviation"] == pytest.approx(0.04)
        assert record["privacy"]["noise-deviation"] == pytest.approx(0.04 / math.sqrt(6))


def test_without_noise_every_output_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    left = start(tmp_path, {**LOCAL, "noise-multiplier": 0.0, "num-rounds": 1}, output=DEPLOYED)
    assert left.records()[1]["privacy"]["epsilon"] == "Infinity"
    assert "No privacy: the key 'noise-multiplier' is 0" in caplog.text and "NO PRIVACY" in caplog.text
    assert "no privacy" in left.directory.report.read_text(encoding="utf-8").lower()


def test_the_budget_ends_the_run_before_a_client_is_asked_once_too_often(tmp_path: Path) -> None:
    twice = epsilons({Release("local", 1.0, 4.0): 2}, 1e-5).rdp
    changes = {**LOCAL, "clients-per-round": 0, "num-rounds": 9, "budget-epsilon": twice * 1.01}
    assert [record["round"] for record in start(tmp_path, changes).records()] == [0, 1, 2]


def test_a_robust_rule_sees_single_updates_with_their_noise(tmp_path: Path) -> None:
    changes = {**LOCAL, "strategy": "trimmed-mean", "privacy": "local-dp", "noise-multiplier": 0.1, "num-rounds": 1}
    (_, record) = start(tmp_path, changes).records()
    assert record["accepted"] == 3 and math.isfinite(record["privacy"]["epsilon"])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"allow-unprotected-metrics": True}, "'allow-unprotected-metrics' is True, but does nothing"),
        ({"max-update-norm": 5.0}, "'max-update-norm' is 5, but with local privacy noise makes updates long"),
    ],
)
def test_keys_that_make_no_sense_with_it(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        RunConfig.from_run_config({"strategy": "local-dp", **keys})


def test_a_deployed_client_s_noise_is_nobody_else_s_to_know() -> None:
    settings = {"seed": 3, "round": 2, "client": "0"}
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {})

    def drawn(**changes: Any) -> float:
        request: Message = message_with(RecordDict({"config": ConfigRecord({**settings, **changes})}))
        return float(client_noise(request, context).standard_normal())

    assert len({drawn() for _ in range(5)}) == 5
    with simulated_here():
        simulated = [drawn() for _ in range(5)]
        assert len(set(simulated)) == 1
        assert len({*simulated, drawn(seed=4), drawn(round=3), drawn(client="1")}) == 4
