"""MLflow as a sink, against a module with the part of its client's interface that we use.

MLflow itself is an extra that the tests do not install. The stand-in keeps its limits (100 parameters, 1000 metrics in
a request) and its shape (`MlflowClient`, `entities.Metric`, `entities.Param`), as of mlflow 3.17.
"""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.config import RunConfig
from app.errors import RunPruned, UserError
from app.mlflow_sink import EXPERIMENT, STATUS, MLflow
from app.run_directory import RunDirectory, RunState
from app.sinks import scalars
from strategies.records import RoundRecord
from tests.app.inline_runs import SMALL, latest, start
from tests.app.scripted_lines import record

STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")  # `mlflow.entities.RunStatus`


@dataclass
class Tracking:
    """What a server has got."""

    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    fails_in: int = -1
    hangs: threading.Event | None = None
    uris: list[str] = field(default_factory=list)


@dataclass
class Metric:
    key: str
    value: float
    timestamp: int
    step: int


@dataclass
class Param:
    key: str
    value: str


class Client:
    def __init__(self, server: Tracking, tracking_uri: str) -> None:
        self.server = server
        server.uris.append(tracking_uri)

    def get_experiment_by_name(self, name: str) -> Any:
        known = self.server.experiments.get(name)
        return None if known is None else types.SimpleNamespace(experiment_id=known)

    def create_experiment(self, name: str) -> str:
        return self.server.experiments.setdefault(name, "7")

    def search_runs(self, experiment_ids: list[str], filter_string: str, max_results: int) -> list[Any]:
        assert experiment_ids == ["7"]
        name = filter_string.removeprefix("tags.`fedkeras.run` = '").removesuffix("'")
        found = [key for key, run in self.server.runs.items() if run["tags"]["fedkeras.run"] == name]
        return [types.SimpleNamespace(info=types.SimpleNamespace(run_id=key)) for key in found[:max_results]]

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> Any:
        key = f"run-{len(self.server.runs)}"
        self.server.runs[key] = {"name": run_name, "tags": tags, "params": {}, "metrics": {}, "statuses": []}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=key))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(metrics) <= 1000 and len(params) <= 100
        if self.server.hangs is not None:
            self.server.hangs.wait()
        for param in params:
            assert isinstance(param.value, str)
            self.server.runs[run_id]["params"][param.key] = param.value
        for metric in metrics:
            if metric.step == self.server.fails_in:
                raise RuntimeError("the server is gone")
            self.server.runs[run_id]["metrics"].setdefault(metric.key, []).append((metric.step, metric.value))

    def update_run(self, run_id: str, status: str | None = None, name: str | None = None) -> None:
        assert status in STATUSES
        self.server.runs[run_id]["statuses"].append(status)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        assert status in STATUSES
        self.server.runs[run_id]["statuses"].append(status)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    tracking = Tracking()
    module, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    module.MlflowClient = lambda tracking_uri: Client(tracking, tracking_uri)  # type: ignore[attr-defined]
    entities.Metric, entities.Param = Metric, Param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.setenv(name, "1")
    yield tracking
    if tracking.hangs is not None:
        tracking.hangs.set()


def sent(numbers: range, config: dict[str, Any] | None = None, state: RunState = "completed") -> None:
    sink = MLflow("http://mlflow:5000", "20261121-run", config or {})
    for number in numbers:
        sink.round(record(number))
    sink.flush()
    sink.close()
    sink.ended(state)


def test_every_scalar_of_every_round_and_every_key(server: Tracking) -> None:
    config = RunConfig().to_run_config()
    sent(range(3), config)
    ((run),) = server.runs.values()
    assert server.uris == ["http://mlflow:5000"] and set(server.experiments) == {EXPERIMENT}
    assert run["params"] == {key: str(value) for key, value in config.items()} and run["name"] == "20261121-run"
    for number in range(3):
        for name, value in scalars(record(number)).items():
            assert (number, value) in run["metrics"][name]
    assert run["statuses"] == ["FINISHED"]


@pytest.mark.parametrize(
    ("state", "status"),
    [("completed", "FINISHED"), ("failed", "FAILED"), ("interrupted", "KILLED"), ("pruned", "KILLED")],
)
def test_it_ends_there_as_it_ended(server: Tracking, state: RunState, status: str) -> None:
    sent(range(3), state=state)
    ((run),) = server.runs.values()
    assert run["statuses"] == [status]


def test_a_run_that_goes_on_is_the_same_run_there(server: Tracking) -> None:
    sent(range(3), state="interrupted")
    sent(range(3, 5))
    ((run),) = server.runs.values()
    assert [step for step, _ in run["metrics"]["central/loss"]] == [0, 1, 2, 3, 4]
    assert run["statuses"] == ["KILLED", "RUNNING", "FINISHED"]


class UnluckyError(Exception):
    """What nobody has foreseen."""


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (UnluckyError(), "FAILED"), (RunPruned("too bad"), "KILLED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_run_of_the_app_ends_there_as_in_its_status(
    server: Tracking, tmp_path: Path, error: BaseException | None, status: str
) -> None:
    def after(record: RoundRecord) -> None:
        if error is not None and record.round == 2:
            raise error

    with nullcontext() if error is None else pytest.raises(type(error)):
        start(tmp_path, {**SMALL, "mlflow-uri": "http://mlflow:5000"}, observers=[after])
    ((run),) = server.runs.values()
    assert run["statuses"] == [status] == [STATUS[latest(tmp_path).json("status.json")["state"]]]
    assert [step for step, _ in run["metrics"]["central/loss"]] == [0, 1, 2]


def test_what_fails_after_the_last_round_has_failed_there_too(
    server: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: RunDirectory, model: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunDirectory, "save_model", full)
    with pytest.raises(OSError, match="No space left"):
        start(tmp_path, {**SMALL, "mlflow-uri": "http://mlflow:5000"})
    ((run),) = server.runs.values()
    assert run["statuses"] == ["FAILED"]


def test_a_server_that_is_gone_ends_no_run(server: Tracking, caplog: pytest.LogCaptureFixture) -> None:
    server.fails_in = 1
    sent(range(5))
    ((run),) = server.runs.values()
    assert [step for step, _ in run["metrics"]["central/loss"]] == [0]
    assert caplog.messages == ["Nothing more is sent to MLflow: the server is gone"]


def test_a_server_that_hangs_delays_a_run_no_longer_than_its_patience(server: Tracking) -> None:
    server.hangs = threading.Event()
    sink = MLflow("http://mlflow", "run", {"seed": 0}, patience=0.05)
    for number in range(5):
        sink.round(record(number))
    began = time.monotonic()
    sink.ended("completed")
    assert time.monotonic() - began < 5  # it would wait for ever


def test_of_a_server_that_is_too_slow_no_more_rounds_are_kept_than_allowed(
    server: Tracking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.mlflow_sink.MOST_WAITING", 3)
    server.hangs = threading.Event()
    sink = MLflow("http://mlflow", "run", {"seed": 0})
    for number in range(5):
        sink.round(record(number))
    assert caplog.messages == [f"MLflow is too slow: round {number} was not sent." for number in (3, 4)]
    server.hangs.set()
    sink.ended("completed")
    ((run),) = server.runs.values()
    assert [step for step, _ in run["metrics"]["central/loss"]] == [0, 1, 2] and run["statuses"] == ["FINISHED"]


def ended_amid(sink: MLflow, steps: int) -> bool:
    """End the run before so many lines of Python have been run of telling a round, as a signal's handler would do."""
    left = steps

    def trace(frame: types.FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "line" and left >= 0:
            if left == 0:
                sink.ended("interrupted")
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        sink.round(record(0))
    finally:
        sys.settrace(before)
    return left < 0


def test_a_signal_may_end_the_run_at_every_moment_of_a_round(server: Tracking) -> None:
    def every_moment() -> None:
        steps = 0
        while ended_amid(MLflow("http://mlflow", f"run-{steps}", {}), steps):
            steps += 1

    thread = threading.Thread(target=every_moment, daemon=True)  # which a deadlock would hold for ever
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(server.runs) > 3 and all(run["statuses"] == ["KILLED"] for run in list(server.runs.values())[:-1])


def test_without_mlflow_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UserError, match="'mlflow-uri' is set, but MLflow is not installed: install the extra 'mlflow'"):
        MLflow("http://mlflow", "run", {})


@pytest.mark.parametrize("uri", ["http://me:T0K3N@mlflow", "https://T0K3N@mlflow:5000/x"])
def test_passwords_do_not_go_into_a_config_that_all_clients_get(server: Tracking, uri: str) -> None:
    with pytest.raises(UserError, match="every client would get to see") as caught:
        MLflow(uri, "run", {})
    assert "T0K3N" not in str(caught.value)
