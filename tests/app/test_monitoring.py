"""Runs that are watched: their alerts in log and file, and Prometheus, fed by the app itself."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from prometheus_client.parser import text_string_to_metric_families

from app.alerts.rules import rules_of
from app.alerts.sink import AlertSink
from app.config import RunConfig
from app.errors import UserError
from app.monitoring import Monitoring
from app.prometheus import Metrics, Prometheus
from app.run_directory import RunDirectory
from simulation.inline import InlineGrid
from strategies import registry, wire
from strategies.describe import DESCRIBE, NodeDescription
from strategies.federated import FederatedStrategy
from strategies.population import ClientInfo
from strategies.records import RoundRecord
from tests.app.inline_runs import SMALL, latest, start
from tests.app.scripted_lines import COHORT, engine, events, record
from tests.strategies.toy_federation import app, local_arrays, run, start_arrays


def alerts_of(directory: RunDirectory) -> list[tuple[int, str, str]]:
    if not directory.alerts.exists():
        return []
    lines = map(json.loads, directory.alerts.read_text().splitlines())
    return [(line["round"], line["alert"], line["state"]) for line in lines]


def scraped(address: str) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus reads them."""
    with urllib.request.urlopen(address, timeout=5) as answer:
        text = answer.read().decode()
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# Runs of the app.


def test_a_budget_that_ends_a_run_is_an_alert_in_log_and_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    private = {"strategy": "dp-fedavg", "noise-multiplier": 3.0, "num-rounds": 50, "federated-evaluate-every": 0}
    with caplog.at_level(logging.INFO, logger="app.alerts.sink"):
        left = start(tmp_path, {**SMALL, **private, "budget-epsilon": 3.0, "budget-delta": 1e-2})
    last = left.records()[-1]
    assert 0 < last["round"] < 50
    told = alerts_of(left.directory)
    (fired,) = [number for number, alert, _ in told if alert == "budget"]
    spent = [record["privacy"]["epsilon"] / 3.0 for record in left.records()[1:]]
    assert fired == next(number for number, share in enumerate(spent, start=1) if share > 0.8)
    assert told[-1] == (last["round"], "budget-used-up", "firing")
    assert any("Alert after round" in message and "budget-used-up" in message for message in caplog.messages)


def test_a_full_disk_raises_one_alert_which_is_over_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.checkpoints import Checkpoints

    write = Checkpoints.write

    def refuses(self: Checkpoints, state: Any) -> None:
        if state.round in (2, 3):
            raise OSError(28, "No space left on device")
        write(self, state)

    monkeypatch.setattr(Checkpoints, "write", refuses)
    left = start(tmp_path, {**SMALL, "num-rounds": 6, "alert-duration": 0.0})
    assert alerts_of(left.directory) == [(3, "checkpoint", "firing"), (5, "checkpoint", "resolved")]


def test_a_resumed_run_goes_on_with_its_alerts(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record(n).to_json()) + "\n" for n in range(30)))
    first = AlertSink(engine(), tmp_path / "metrics.jsonl", tmp_path / "alerts.jsonl")
    first.round(record(30, accepted=COHORT[:5], rejected={"late": 5}))
    first.close()
    noted: list[str] = []
    second = AlertSink(
        engine(), tmp_path / "metrics.jsonl", tmp_path / "alerts.jsonl", [lambda event: noted.append(event.state)]
    )
    assert noted == ["firing"]  # for who listens since now
    second.round(record(31, accepted=COHORT[:5], rejected={"late": 5}))
    second.round(record(32))
    second.close()
    lines = list(map(json.loads, (tmp_path / "alerts.jsonl").read_text().splitlines()))
    assert [(line["round"], line["state"]) for line in lines] == [(30, "firing"), (32, "resolved")]
    assert set(lines[0]) == {"round", "alert", "subject", "state", "text", "time"}


def test_alerts_that_cannot_be_written_are_logged_and_end_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = AlertSink(engine(), tmp_path / "none", tmp_path / "no" / "such" / "folder")
    sink.round(record(0))
    sink.round(record(1, accepted=COHORT[:5], rejected={"late": 5}))
    sink.close()
    assert any("Alert after round 1, participation" in message for message in caplog.messages)
    assert any("could not be written" in message for message in caplog.messages)


# Prometheus.


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    sink = Prometheus(Metrics("20261121-a-run", 30), 0)
    yield sink
    sink.close()


def test_what_prometheus_reads(prometheus: Prometheus) -> None:
    prometheus.round(record(0))
    for number, fault in ((1, {}), (2, {"accepted": COHORT[:7], "rejected": {"late": 1, "norm": 2}, "skipped": True})):
        told = {**fault, "bytes_down": 1000, "bytes_up": 10, "repeated": 2, "norms": (1.0, 2.0, 3.0)}
        prometheus.round(record(number, **told, seconds={"train": 0.5, "total": 0.75}))
    found = scraped(prometheus.address)
    assert found["fedkeras_round{}"] == 2
    assert found["fedkeras_rounds_skipped_total{}"] == 1
    assert found["fedkeras_participation_ratio{}"] == 0.7
    assert found["fedkeras_reporting_ratio{}"] == 0.9 and found["fedkeras_rejected_ratio{}"] == 0.2
    assert found["fedkeras_updates_total{}"] == 17
    assert found['fedkeras_rejected_total{"reason": "norm"}'] == 2 and found["fedkeras_repeated_total{}"] == 4
    assert found['fedkeras_bytes_total{"direction": "down"}'] == 2000
    assert found['fedkeras_phase_seconds{"phase": "train"}'] == 0.5 and found["fedkeras_round_seconds{}"] == 0.75
    assert found['fedkeras_accuracy_ratio{"set": "central"}'] == record(2).central["accuracy"]  # type: ignore[index]
    assert found["fedkeras_privacy_epsilon_left{}"] == pytest.approx(8 - 0.02)
    assert found['fedkeras_group_accepted{"group": "asia", "kind": "regions"}'] == 5
    assert found['fedkeras_update_norm{"quartile": "median"}'] == 2.0
    assert found['fedkeras_run_info{"run": "20261121-a-run"}'] == 1


def test_what_is_not_known_is_not_told_as_nought(prometheus: Prometheus) -> None:
    prometheus.round(RoundRecord(0))
    found = scraped(prometheus.address)
    for name in ("privacy_epsilon", "privacy_epsilon_left", "checkpoint_round", "accuracy_worst_tenth_ratio"):
        assert found[f"fedkeras_{name}{{}}"] != found[f"fedkeras_{name}{{}}"], name  # NaN
    assert not any(name.startswith(("fedkeras_loss", "fedkeras_accuracy_ratio")) for name in found)


def test_alerts_are_metrics_too(prometheus: Prometheus) -> None:
    watching, key = engine(), 'fedkeras_alert_active{"alert": "participation", "subject": ""}'
    for number, expected in ((1, None), (2, 1.0), (3, 0.0)):
        fault: dict[str, Any] = {"accepted": COHORT[:5], "rejected": {"late": 5}} if number == 2 else {}
        for event in watching.round(record(number, **fault).to_json()):
            prometheus.note(event)
        assert scraped(prometheus.address).get(key) == expected


def test_only_this_machine_can_scrape(prometheus: Prometheus) -> None:
    assert prometheus.address.startswith("http://127.0.0.1:")
    host = next((info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)), "127.0.0.1")
    if str(host).startswith("127."):
        host = "127.0.0.2"  # also of this machine, and not the address that is listened on
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(2)
        other.connect((host, int(prometheus.address.split(":")[2].split("/")[0])))


def test_a_port_that_is_taken_refuses_the_run_in_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"'prometheus-port' is {port}, but nothing can listen there .*or 0 to do"):
            start(tmp_path, {**SMALL, "prometheus-port": port})
    assert latest(tmp_path).json("status.json")["state"] == "failed"


def test_what_cannot_be_opened_leaves_no_port_taken(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for other in ({"alert-webhook": str(tmp_path / "missing")}, {"mlflow-uri": "http://me:T0K3N@mlflow"}):
        with pytest.raises(UserError):
            Monitoring.of(RunConfig.from_run_config({"prometheus-port": port, **other}), RunDirectory(tmp_path))
    watching = Monitoring.of(RunConfig.from_run_config({"prometheus-port": port}), RunDirectory(tmp_path))
    for sink in watching.sinks:
        sink.close()


def test_a_run_is_scraped_while_it_lasts_and_gives_its_port_back(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seen: list[float] = []

    def scrape(record: RoundRecord) -> None:
        seen.append(scraped(f"http://127.0.0.1:{port}/metrics")["fedkeras_round{}"])

    left = start(tmp_path, {**SMALL, "prometheus-port": port}, observers=[scrape])
    assert seen == [0, 1, 2]
    assert alerts_of(left.directory) == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: of a connection that has ended
        again.bind(("127.0.0.1", port))


# What is imported.


def test_alerts_need_neither_tensorflow_nor_matplotlib_nor_prometheus() -> None:
    script = "import sys, app.monitoring;print(*({'tensorflow', 'matplotlib', 'prometheus_client'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_every_rule_has_a_name_of_its_own() -> None:
    names = [rule.name for rule in rules_of(dict)]
    assert len(set(names)) == len(names)


# Faults of real rounds, by clients and messages that misbehave in rounds 5 and 6 of 9.


def alerts_told(records: list[RoundRecord]) -> list[tuple[int, str, str, str]]:
    return events((record.to_json() for record in records), engine({"alert-duration": 0}))


class InRounds:
    """Counts its calls, so many in a round, and tells whether the present one is of a faulty round."""

    def __init__(self, calls_per_round: int) -> None:
        self._calls, self._per_round = 0, calls_per_round

    def __call__(self) -> bool:
        self._calls += 1
        return (self._calls - 1) // self._per_round + 1 in (5, 6)


def test_a_node_that_is_killed_in_mid_round() -> None:
    faulty = InRounds(2)  # replies, of two nodes with three clients each

    def tamper(reply: Message, clients: list[str]) -> Iterator[Message]:
        if faulty() and "0" in clients:
            reply.__dict__.update(_content=None, _error=Error(ErrorCode.NODE_UNAVAILABLE, ""))
        yield reply

    _, records = run(app(), rounds=9, tamper=tamper)
    assert alerts_told(records) == [(5, "participation", "", "firing"), (7, "participation", "", "resolved")]


def test_clients_that_send_what_is_not_finite() -> None:
    faulty = InRounds(2)  # calls, of the two clients

    def diverged(content: RecordDict) -> RecordDict | None:
        arrays = wire.array_record({name: values * np.float32("nan") for name, values in local_arrays("0").items()})
        return RecordDict({**content, "arrays": arrays}) if faulty() else None

    _, records = run(app(bad={"2": diverged, "3": diverged}), rounds=9)
    assert [record.rejected for record in records[4:7]] == [{}, {"not-finite": 2}, {"not-finite": 2}]
    assert alerts_told(records) == [(5, "rejected", "", "firing"), (7, "rejected", "", "resolved")]


class TwoRegions(InlineGrid):
    """Two nodes, each with the clients of one region, of which the second can be gone."""

    REGIONS: ClassVar[dict[int, tuple[str, str]]] = {1: ("europe", "0123"), 2: ("asia", "45")}
    gone = False

    def get_node_ids(self) -> list[int]:
        return [1] if self.gone else [1, 2]

    def _execute(self, message: Message) -> Message:
        if message.metadata.message_type != DESCRIBE:
            return super()._execute(message)
        region, clients = self.REGIONS[message.metadata.dst_node_id]
        infos = tuple(ClientInfo(client, 100, region=region) for client in clients)
        return Message(NodeDescription(infos).to_content(), reply_to=message)


def test_a_region_whose_node_is_gone_is_absent_until_it_is_back() -> None:
    grid, records = TwoRegions(app(), InlineGrid.of(app(), 2).node_configs), list[RoundRecord]()

    def after(record: RoundRecord) -> None:
        records.append(record)
        grid.gone = record.round in (4, 5)

    strategy = FederatedStrategy(registry.build("fedavg", {"clients-per-round": 0}), observers=[after])
    strategy.start(grid, start_arrays(), num_rounds=9)
    assert [len(record.accepted) for record in records[1:]] == [6, 6, 6, 6, 4, 4, 6, 6, 6]
    assert alerts_told(records) == [(5, "absent", "regions/asia", "firing"), (7, "absent", "regions/asia", "resolved")]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e9])
def test_a_model_that_diverges(loss: float) -> None:
    records = list[RoundRecord]()

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        return MetricRecord({"loss": loss if number in (5, 6) else 1 / (1 + number), "accuracy": number / 10})

    strategy = FederatedStrategy(registry.build("fedavg", {"clients-per-round": 0}), observers=[records.append])
    strategy.start(InlineGrid.of(app(), 2), start_arrays(), num_rounds=9, evaluate_fn=evaluate)
    assert alerts_told(records) == [(5, "loss", "central", "firing"), (7, "loss", "central", "resolved")]
