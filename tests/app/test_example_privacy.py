"""DP-SGD in a run: what it has cost is counted by who was asked, told in every round, and left in a table."""

from __future__ import annotations

import csv
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import plain_json
from app.client import app as client_app
from app.compose import example_level
from app.config import RunConfig
from app.example_privacy import ExamplePrivacy, read_table
from app.federated_run import FederatedRun
from app.output import Output
from app.report.build import write_report
from simulation.inline import InlineGrid
from strategies.population import ClientInfo, Population
from strategies.privacy.example_level import ClientCost, ExampleLevel, summary
from strategies.privacy.participations import after, examples_of
from strategies.records import RoundRecord
from tests.app.inline_runs import SMALL, Left, latest, start

PRIVATE: dict[str, Any] = {**SMALL, "dp-sgd-clip": 1.0, "dp-sgd-noise-multiplier": 2.0, "dp-sgd-delta": 1e-4}


def run(runs_dir: Path, **changes: object) -> tuple[Left, list[RoundRecord]]:
    records: list[RoundRecord] = []
    keys = {key.replace("_", "-"): value for key, value in changes.items()}
    return start(runs_dir, {**PRIVATE, **keys}, observers=[records.append]), records


def table(left: Left) -> dict[str, dict[str, str]]:
    with left.directory.example_privacy.open(encoding="utf-8") as file:
        return {row["client"]: row for row in csv.DictReader(file)}


def test_each_client_pays_for_the_rounds_in_which_it_was_asked_and_each_round_tells_the_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    left, records = run(tmp_path, num_rounds=3)
    asked = [client for record in records for client in record.selected]
    level = level_of(PRIVATE)
    population = left.json("population.json")
    rows = table(left)
    for client, examples in zip(population["clients"], population["examples"], strict=True):
        expected = level.epsilons(examples, asked.count(client)).rdp
        row = rows[client]
        assert (int(row["examples"]), int(row["participations"])) == (examples, asked.count(client))
        assert float(row["epsilon"]) == pytest.approx(expected)
    found = read_table(left.directory.example_privacy)
    assert [cost.client for cost in found] == list(rows)
    assert found == sorted(found, key=lambda cost: -cost.epsilon)
    said = summary(found, 1e-4)
    assert said in caplog.text
    assert said.split("(")[0] in " ".join(write_report([left.directory.path]).read_text(encoding="utf-8").split())
    told = [line["example-privacy"] for line in left.records()]
    assert told[0] == {"epsilon": 0.0, "delta": 1e-4}
    epsilons = [one["epsilon"] for one in told]
    assert epsilons == sorted(epsilons) and epsilons[1] > 0
    assert epsilons[-1] == found[0].epsilon
    assert records[-1].example_privacy == told[-1]
    assert all(line["privacy"] is None for line in left.records())  # that is of whole clients


@pytest.mark.parametrize("strategy", ["dp-fedavg", "fedbuff"])
def test_beside_the_privacy_of_clients_and_without_rounds(tmp_path: Path, strategy: str) -> None:
    changes = {"buffer-size": 2} if strategy == "fedbuff" else {"noise-multiplier": 2.0}
    left, _ = run(tmp_path, strategy=strategy, **changes)
    rows = read_table(left.directory.example_privacy)
    times = sum(row.participations for row in rows)
    if strategy == "dp-fedavg":
        assert times == sum(line["selected"] for line in left.records())
        assert left.records()[-1]["privacy"]["epsilon"] > 0
    else:
        assert times >= sum(line["selected"] for line in left.records()) == 4


def test_no_noise_says_no_privacy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    left, records = run(tmp_path, dp_sgd_noise_multiplier=0.0, num_rounds=1, clients_per_round=0)
    assert all(cost.epsilon == math.inf for cost in read_table(left.directory.example_privacy))
    assert "infinite (no privacy)" in caplog.text
    assert records[-1].example_privacy == {"epsilon": math.inf, "delta": 1e-4}


def test_without_it_there_is_nothing_to_tell(tmp_path: Path) -> None:
    left = start(tmp_path, SMALL)
    assert not left.directory.example_privacy.exists()
    assert all(line["example-privacy"] is None for line in left.records())


def test_a_table_that_cannot_be_read_is_said_on_the_page(tmp_path: Path) -> None:
    left, _ = run(tmp_path, num_rounds=1)
    left.directory.example_privacy.write_text("client,examples\na,many\n", encoding="utf-8")
    page = write_report([left.directory.path]).read_text(encoding="utf-8")
    assert "cannot be read from example-privacy.csv" in page


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "a process for each round"])
def test_who_comes_back_with_more_examples_has_paid_for_the_rounds_before_by_those_it_had(restarts: bool) -> None:
    level = level_of(PRIVATE)
    census, ledger = FakeCensus(), dict[str, Any]()
    watched = ExamplePrivacy(level, census, lambda: ledger)  # type: ignore[arg-type]

    def asked(examples: int) -> float:
        nonlocal ledger, watched
        census.people = Population([ClientInfo("a", examples)], [1])
        if restarts:
            watched = ExamplePrivacy(level, census, lambda: ledger)  # type: ignore[arg-type]
        ledger = dict(after(ledger, examples_of(census.people, ["a"])))
        told = watched.told(RoundRecord(1, ("a",))).example_privacy
        assert told is not None
        return told["epsilon"]

    first = asked(40)
    assert first == level.epsilon({40: 1})
    assert asked(4000) == level.epsilon({40: 1, 4000: 1}) > first
    assert asked(40) == level.epsilon({40: 2, 4000: 1})


def test_who_does_not_say_how_many_examples_it_has_is_promised_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    level = level_of(PRIVATE)
    census = FakeCensus(Population([ClientInfo("a", None), ClientInfo("b", 400)], [1]))
    ledger = after({}, examples_of(census.people, ["a", "b"]))
    watched = ExamplePrivacy(level, census, lambda: ledger)  # type: ignore[arg-type]
    told = watched.told(RoundRecord(1, ("a", "b")))
    assert told.example_privacy == {"epsilon": math.inf, "delta": level.delta}
    assert json.loads(plain_json.dumps(told.to_json()))["example-privacy"]["epsilon"] == "Infinity"
    watched.write(tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv") == [
        ClientCost("a", None, 1, math.inf),
        ClientCost("b", 400, 1, level.epsilon({400: 1})),
    ]
    assert "infinite (no privacy)" in caplog.text and "(a: a number of examples that it keeps to itself" in caplog.text


def test_a_run_that_goes_on_with_other_data_has_paid_by_those_that_it_had(tmp_path: Path) -> None:
    """In a deployment, where the node's file has grown tenfold while the server was down."""
    few, many = (own_file(tmp_path / f"{examples}", examples) for examples in (50, 500))  # less a fifth
    left = deployed(tmp_path, few, {"num-rounds": 2})
    deployed(tmp_path, many, {"num-rounds": 3, "resume": str(left.directory.path)})
    (row,) = read_table(left.directory.example_privacy)
    assert row == ClientCost("a", 400, 3, level_of(PRIVATE).epsilon({40: 2, 400: 1}))
    epsilons = [line["example-privacy"]["epsilon"] for line in left.records()]
    assert epsilons == sorted(epsilons) and epsilons[-1] == row.epsilon


def level_of(changes: dict[str, Any]) -> ExampleLevel:
    level = example_level(RunConfig.from_run_config(changes))
    assert level is not None
    return level


def own_file(folder: Path, examples: int) -> Path:
    """A node's own digits."""
    folder.mkdir()
    images = np.zeros((examples, 8, 8, 1), np.float32)
    np.savez(folder / "own.npz", x=images, y=np.arange(examples) % 10)
    return folder / "own.npz"


def deployed(folder: Path, file: Path, changes: dict[str, Any]) -> Left:
    config = RunConfig.from_run_config({**PRIVATE, "clients-per-round": 0, "runs-dir": str(folder / "runs"), **changes})
    nodes = {1: {"client-id": "a", "data-path": str(file)}}
    grid = InlineGrid(client_app, nodes, config.to_run_config())
    FederatedRun.of(config, output=Output(page=False)).run(grid)
    return latest(folder / "runs")


def test_examples_that_a_client_has_no_more_are_still_paid_for(tmp_path: Path) -> None:
    level = level_of(PRIVATE)
    ledger = after(after({}, {"a": 40}), {"a": 40})
    watched = ExamplePrivacy(level, FakeCensus(), lambda: ledger)  # type: ignore[arg-type]
    watched.write(tmp_path / "table.csv")
    assert read_table(tmp_path / "table.csv") == [ClientCost("a", 40, 2, level.epsilon({40: 2}))]


@dataclass
class FakeCensus:
    """Who is there, as the test says."""

    people: Population = field(default_factory=lambda: Population((), ()))

    def population(self) -> Population:
        return self.people
