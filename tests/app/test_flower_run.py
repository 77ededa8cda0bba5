"""``fedkeras run`` against a fake ``flwr``: command lines, environment, what is shown, exit codes of all ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from app import flower_commands, flower_run, machine
from app.config import RunConfig
from app.errors import UserError
from app.flower_run import Request, federation_arguments, worker_count
from app.run_directory import RunDirectory
from app.superlink import Connection
from tests.app import flower_logs

REPOSITORY = Path(__file__).resolve().parents[2]
LOCAL = Connection("local", managed=True)
REMOTE = Connection("mine", managed=False)


class Fake:
    """The fake ``flwr``: how it shall end, and how it was called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.set(FAKE_DIR=str(folder), FAKE_STATUS="finished:completed")
        self.log(flower_logs.COMPLETED)

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def log(self, text: str) -> None:
        (self.folder / "log").write_text(text)
        self.set(FAKE_LOG=str(self.folder / "log"))

    def calls(self, command: str) -> list[dict[str, Any]]:
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for call in map(json.loads, lines) if call["command"] == command]

    def run(self, *overrides: str, **options: Any) -> tuple[int, list[str]]:
        shown: list[str] = []
        request = Request(overrides=overrides, folder=self.folder / "user", **options)
        return flower_run.run(request, shown.append), shown


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    (tmp_path / "bin").mkdir()
    (tmp_path / "user").mkdir()
    script = tmp_path / "bin" / "flwr"
    script.write_text(f"#!{sys.executable}\n" + (REPOSITORY / "tests" / "app" / "fake_flwr.py").read_text())
    script.chmod(0o755)
    monkeypatch.setattr(flower_commands, "scripts", lambda: tmp_path / "bin")
    monkeypatch.setattr(flower_run, "STATUS_SECONDS", 0.0)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setenv("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "1")  # where nobody listens
    return Fake(tmp_path, monkeypatch)


def test_the_command_line_and_the_config(fake: Fake) -> None:
    code, _ = fake.run("seed=5", "dataset=grüße:laden", workers=3)
    assert code == 0
    (call,) = fake.calls("run")
    project, connection, option, file, *rest = call["arguments"]
    assert (project, connection, option) == (str(REPOSITORY), "local", "--run-config")
    assert rest[:2] == ["--stream", "--federation-config"]
    assert not Path(file).exists()
    runs_dir = str(fake.folder / "user" / "runs")
    expected = RunConfig.from_run_config({"seed": 5, "dataset": "grüße:laden", "runs-dir": runs_dir})
    assert call["config"] == expected.to_run_config()


def test_flower_starts_in_an_empty_folder_with_our_environment(fake: Fake) -> None:
    fake.set(TF_CPP_MIN_LOG_LEVEL="0", FLWR_TELEMETRY_ENABLED="1")
    fake.run()
    (call,) = fake.calls("run")
    folder, environment = Path(call["folder"]), call["environment"]
    assert folder.parent == fake.folder / "flower"
    assert list(folder.iterdir()) == []
    assert environment["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0" and environment["RAY_ADDRESS"] == "local"
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert environment["TF_CPP_MIN_LOG_LEVEL"] == "0"  # the user's choice
    assert environment["PATH"].startswith(str(fake.folder / "bin"))
    assert environment["FAKE_DIR"] == str(fake.folder)


def test_a_completed_run_is_0_and_shows_our_lines(fake: Fake) -> None:
    code, shown = fake.run()
    assert code == 0
    assert shown[0].startswith("Starting on ")
    assert shown[1:] == [
        "Run directory: /tmp/runs/20261121-090733-digits",
        "round 1/2 | central accuracy 61.0 % | 10/10 clients",
        "WARNING: 2 clients have no test part",
        "round 2/2 | central accuracy 72.5 % | 10/10 clients",
    ]
    assert fake.calls("ls")[0]["arguments"] == ["local", "--run-id", "42", "--format", "json"]


def test_verbose_shows_everything(fake: Fake) -> None:
    _, shown = fake.run(verbose=True)
    assert shown[1:] == flower_logs.COMPLETED.splitlines()


def test_a_failed_run_is_1_although_flower_says_0(fake: Fake) -> None:
    fake.log(flower_logs.CRASHED)
    fake.set(FAKE_STATUS="finished:failed", FAKE_DETAILS="Simulation failed with exception: division by zero")
    code, shown = fake.run()
    assert code == 1
    assert shown[-1] == "The run failed: division by zero"
    assert "ZeroDivisionError: division by zero" in shown


def test_a_refused_run_says_its_sentence_once(fake: Fake) -> None:
    fake.log(flower_logs.REFUSED)
    fake.set(FAKE_STATUS="finished:failed", FAKE_DETAILS="Simulation failed with exception: Labels must be below 10.")
    code, shown = fake.run()
    assert code == 1
    assert shown[-2:] == ["ERROR: Labels must be below 10.", "The run failed."]
    assert not any("Traceback" in line for line in shown)


def test_a_stopped_run_is_1(fake: Fake) -> None:
    fake.set(FAKE_STATUS="finished:stopped")
    code, shown = fake.run()
    assert (code, shown[-1]) == (1, "The run was stopped.")


def test_a_run_that_did_not_start_is_1(fake: Fake) -> None:
    fake.log(flower_logs.UNKNOWN_CONNECTION)
    fake.set(FAKE_EXIT="1")
    code, shown = fake.run()
    assert code == 1
    assert shown[-2].startswith("ERROR: An unexpected error occurred")
    assert shown[-1] == "The run did not start: 'flwr run' ended with exit code 1 (see above)."
    assert fake.calls("ls") == []


@pytest.mark.parametrize(("status", "told"), [("running", "running"), ("unreachable", "unknown")])
def test_a_log_that_breaks_off_is_1_and_says_where_to_look(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, status: str, told: str
) -> None:
    monkeypatch.setattr(flower_run, "STATUS_TRIES", 2)
    fake.set(FAKE_STATUS=status)
    code, shown = fake.run()
    assert code == 1
    assert shown[-1] == f"The log broke off, but run 42 has not ended ({told}): see 'flwr log 42 local'."
    assert len(fake.calls("ls")) == 2


def test_a_run_that_outlives_its_superlink_is_followed_again(fake: Fake) -> None:
    """Flower then tells the log from its beginning; it is shown once, to the end."""
    _, whole = fake.run()
    fake.set(FAKE_BREAK="WARNING 2 clients")
    (fake.folder / "statuses").write_text("running\nfinished:completed\n")
    code, shown = fake.run()
    assert code == 0
    broken = [
        "ERROR: Connection to the SuperLink is unavailable.",
        "The log broke off, but the run goes on, and is followed again.",
    ]
    assert shown == [*whole[:3], *broken, *whole[3:]]
    assert fake.calls("log")[0]["arguments"] == ["42", "local"]


def test_a_superlink_that_does_not_come_back_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_run, "STATUS_TRIES", 2)
    fake.set(FAKE_BREAK="WARNING 2 clients", FAKE_STATUS="unreachable")
    code, shown = fake.run()
    assert code == 1 and fake.calls("log") == []
    assert len(fake.calls("ls")) == 2  # it is waited for once
    assert shown[-1] == "The log broke off, but run 42 has not ended (unknown): see 'flwr log 42 local'."


def test_a_log_that_breaks_off_again_and_again_is_followed_while_there_are_new_lines(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_run, "FRUITLESS_BREAKS", 3)
    _, whole = fake.run()
    fake.set(FAKE_BREAK="WARNING 2 clients", FAKE_STATUS="running")
    (fake.folder / "breaks").write_text("WARNING 2 clients\n" * 2 + "INFO round 2/2\n")
    code, shown = fake.run()
    assert code == 1
    assert len(fake.calls("log")) == 2 + 1 + 3  # fruitless, with a new line, fruitless
    assert [line for line in shown if line in whole] == whole[:4]
    assert shown[-2:] == [
        "The log broke off 3 times without a new line, and is not followed any more.",
        "The log broke off, but run 42 has not ended (running): see 'flwr log 42 local'.",
    ]


def test_a_run_whose_server_was_killed_says_how_to_go_on(fake: Fake) -> None:
    fake.set(FAKE_STATUS="finished:failed", FAKE_DETAILS="No heartbeat received from the task")
    code, shown = fake.run()
    assert code == 1
    assert shown[-2] == "The run failed: No heartbeat received from the task"
    where = "/tmp/runs/20261121-090733-digits"
    assert shown[-1] == f"The server's process is gone. Go on with 'fedkeras run local -c resume={where}'."


def test_a_warning_before_flowers_answer_changes_nothing(fake: Fake) -> None:
    fake.set(FAKE_WARNING="FutureWarning: something {old}")
    assert fake.run()[0] == 0
    assert len(fake.calls("ls")) == 1


def test_what_flower_complains_of_is_kept(fake: Fake) -> None:
    fake.set(FAKE_WARNING="no space left", FAKE_STATUS="broken")
    assert flower_commands.run_status("42", "local") == ("unknown", "no space left")


@pytest.mark.parametrize(
    ("overrides", "options"),
    [
        (("num-rouns=3",), {}),
        (("missing.toml",), {}),
        (("dataset=npz:missing.npz",), {}),
        (("dataset=npz:~no-such-user/x.npz",), {}),
        (("runs-dir=~no-such-user/x",), {}),
        (("x" * 5000,), {}),
        ((), {"connection": "nowhere"}),
        (("min-nodes=5",), {"workers": 4}),
        (("resume=runs/gone",), {}),
        (("dropout=0.1",), {}),  # of the simulated world, which only `fedkeras simulate` has
    ],
)
def test_mistakes_are_told_before_flower_is_started(
    fake: Fake, overrides: tuple[str, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        fake.run(*overrides, **options)
    assert fake.calls("run") == []


def test_paths_stay_as_they_are_for_a_superlink_elsewhere(fake: Fake) -> None:
    (fake.folder / "flower").mkdir()
    (fake.folder / "flower" / "config.toml").write_text(
        '[superlink]\n[superlink.mine]\naddress = "10.0.0.1:9093"\n', encoding="utf-8"
    )
    code, shown = fake.run("dataset=npz:on-the-node.npz", connection="mine")
    assert code == 0
    assert shown[0].startswith("Starting on SuperLink 'mine'")
    (call,) = fake.calls("run")
    assert call["config"]["dataset"] == "npz:on-the-node.npz"
    assert call["config"]["runs-dir"] == "runs"
    assert "--federation-config" not in call["arguments"]


def interrupted_run(fake: Fake, log: str, last: str) -> tuple[int, str]:
    """Run in a process of its own, as a terminal does, and send Ctrl-C once it shows a line that starts so."""
    fake.log(log)
    fake.set(FAKE_HANG="1", FAKE_STATUS="finished:stopped")
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from app import flower_commands, flower_run
        flower_commands.scripts = lambda: Path(sys.argv[1])
        request = flower_run.Request(folder=Path(sys.argv[2]))
        sys.exit(flower_run.run(request, lambda line: print(line, flush=True)))
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(fake.folder / "bin"), str(fake.folder / "user")],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    before = []
    for line in process.stdout:
        before.append(line)
        if line.startswith(last):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    return process.returncode, "".join(before) + output


def test_ctrl_c_stops_the_run_and_says_where_it_was_recorded(fake: Fake) -> None:
    code, output = interrupted_run(fake, flower_logs.START, "Run directory:")
    assert code == 130
    assert fake.calls("stop")[0]["arguments"] == ["42", "local"]
    assert output.splitlines()[-1] == "Interrupted; what was recorded is in /tmp/runs/20261121-090733-digits"


def test_ctrl_c_before_the_run_has_an_id(fake: Fake) -> None:
    code, output = interrupted_run(fake, "WARNING still waiting\n", "WARNING")
    assert code == 130
    assert fake.calls("stop") == []
    assert output.splitlines()[-1] == "Interrupted before any round."


def test_an_interrupted_run_may_finish_its_report(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.write_status("running")
    directory.metrics.touch()

    def close() -> None:
        directory.write_status("interrupted")
        directory.report.touch()

    threading.Timer(0.5, close).start()
    flower_run._wait_until_closed(directory)
    assert directory.is_closed()


def test_nobody_waits_for_a_directory_elsewhere_nor_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flower_run._wait_until_closed(RunDirectory(tmp_path / "on-the-server"))
    RunDirectory(tmp_path).write_status("running")
    monkeypatch.setattr(flower_run, "CLOSING_SECONDS", 0.3)
    start = time.monotonic()
    flower_run._wait_until_closed(RunDirectory(tmp_path))
    assert time.monotonic() - start == pytest.approx(0.4, abs=0.3)


def settings(request: Request, config: RunConfig) -> dict[str, str]:
    option, text = federation_arguments(request, config, LOCAL)
    assert option == "--federation-config"
    return dict(pair.split("=") for pair in text.split())


def test_a_simulation_has_a_node_and_a_core_for_each_worker() -> None:
    assert settings(Request(workers=4), RunConfig()) == {
        "num-supernodes": "4",
        "client-resources-num-cpus": "1",
        "client-resources-num-gpus": "0.0",
        "init-args-num-cpus": "4",
        "init-args-log-to-driver": "false",
    }


def test_gpus_are_shared_and_verbose_brings_the_workers_log() -> None:
    given = settings(Request(workers=4, gpus=1.0, verbose=True), RunConfig())
    assert given["client-resources-num-gpus"] == "0.25"
    assert given["init-args-log-to-driver"] == "true"


def test_flower_knows_all_settings() -> None:
    protocol = pytest.importorskip("flwr.proto.federation_config_pb2")
    fields = {field.name.replace("_", "-") for field in protocol.SimulationConfig.DESCRIPTOR.fields}
    assert set(settings(Request(), RunConfig())) <= fields


@pytest.mark.parametrize("request_", [Request(workers=2), Request(gpus=1)])
def test_workers_are_for_simulations(request_: Request) -> None:
    assert federation_arguments(Request(), RunConfig(), REMOTE) == []
    with pytest.raises(UserError, match="--workers and --gpus are for simulations on this machine, but 'mine'"):
        federation_arguments(request_, RunConfig(), REMOTE)


def test_no_more_workers_than_find_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_run, "usable_cores", lambda: 16)
    assert worker_count(Request(), RunConfig()) == 10
    assert worker_count(Request(), RunConfig(clients_per_round=0)) == 16
    assert worker_count(Request(), RunConfig(clients_per_round=3, min_nodes=5)) == 5
    assert worker_count(Request(workers=2), RunConfig()) == 2


def test_usable_cores_respect_a_containers_quota(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"
    granted = machine.usable_cores(tmp_path / "none")
    assert granted == len(os.sched_getaffinity(0))
    for text, cores in (("100000 100000", 1), ("50000 100000", 1), ("max 100000", granted), ("junk", granted)):
        quota.write_text(text)
        assert machine.usable_cores(quota) == min(cores, granted)


def test_without_a_flwr_command_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(flower_commands, "scripts", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="There is no 'flwr' command"):
        flower_commands.flwr()


def test_the_bundle_holds_the_app_and_no_junk() -> None:
    build = pytest.importorskip("flwr.cli.build")
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(build.build_fab_from_disk(REPOSITORY))) as bundle:
        names = bundle.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {"app", "strategies", "tasks", "simulation", "pyproject.toml", "README.md", "LICENSE"} <= top
    assert not top & {"tests", "benchmarks", "presets", ".gitignore", "runs", ".venv"}
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    packages = ("app/", "strategies/", "tasks/", "simulation/")
    assert {name for name in tracked.stdout.split() if name.startswith(packages)} <= set(names)
