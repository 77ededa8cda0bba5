"""Connections of Flower's config.toml, and the look at a managed SuperLink that is running already."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import superlink
from app.errors import UserError
from app.superlink import Connection, check_running_superlink, find_connection, find_listener, stop_managed

SERVE = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
time.sleep(60)
"""

linux_only = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks into /proc, as Linux has it")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    (tmp_path / "flower").mkdir()
    return tmp_path / "flower"


@pytest.fixture
def free_port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
    monkeypatch.setenv("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", str(port))
    return port


class Started:
    """Processes that listen as a SuperLink would, in an environment and folder of the test's choice."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder, self.processes = port, folder, list[subprocess.Popen[str]]()

    def superlink(self, cwd: Path, *words: str, environment: dict[str, str] | None = None) -> int:
        program = self.folder / "flower-superlink"
        program.write_text(SERVE)
        chosen = {superlink.NO_INSTALLATION: "1"} if environment is None else environment
        kept = {name: os.environ[name] for name in superlink.INHERITED if name in os.environ}
        process = subprocess.Popen(
            [sys.executable, str(program), str(self.port), *(words or ("--simulation",))],
            cwd=cwd, env={"PATH": os.environ["PATH"], **kept, **chosen}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid


@pytest.fixture
def started(free_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    monkeypatch.setattr(superlink, "scripts", lambda: Path(sys.executable).parent)
    started = Started(free_port, tmp_path)
    yield started
    for process in started.processes:
        process.kill()
        process.wait()


def test_without_a_file_the_default_is_flowers_own(home: Path) -> None:
    assert find_connection(None) == Connection("local", managed=True)


def test_connections_of_the_file(home: Path) -> None:
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "mine"\n[superlink.mine]\naddress = "127.0.0.1:18000"\n'
        '[superlink.memory]\naddress = ":local-in-memory:"\n[superlink.old]\noptions.num-supernodes = 3\n'
    )
    assert find_connection(None) == Connection("mine", managed=False, address="127.0.0.1:18000")
    assert find_connection("memory").managed
    assert find_connection("old").managed
    assert superlink.managed_connection() == Connection("memory", managed=True)
    with pytest.raises(
        UserError, match=r"no SuperLink connection 'mnie' in .*which has mine, memory, old; did you mean"
    ):
        find_connection("mnie")


@pytest.mark.parametrize("content", ["[superlink", "[superlink]\n"])
def test_an_unusable_file_is_a_sentence(home: Path, content: str) -> None:
    (home / "config.toml").write_text(content)
    with pytest.raises(UserError, match=r"config.toml"):
        find_connection(None)


@linux_only
def test_nobody_listens(free_port: int, tmp_path: Path) -> None:
    assert find_listener(free_port) is None
    check_running_superlink(tmp_path)
    assert stop_managed([]) is None


@linux_only
def test_a_fit_superlink_is_used(started: Started, tmp_path: Path) -> None:
    pid = started.superlink(tmp_path)
    listener = find_listener(started.port)
    assert listener is not None
    assert (listener.pid, listener.folder, listener.is_superlink) == (pid, tmp_path, True)
    check_running_superlink(tmp_path / "project")


@linux_only
def test_one_that_would_install_dependencies_is_refused(started: Started, tmp_path: Path) -> None:
    pid = started.superlink(tmp_path, environment={"SOME": "thing"})
    with pytest.raises(UserError, match=rf"process {pid}, .*without {superlink.NO_INSTALLATION}=1.*'fedkeras down'"):
        check_running_superlink(tmp_path)


@linux_only
def test_one_from_a_folder_with_other_code_is_refused(started: Started, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "tasks").mkdir(parents=True)
    started.superlink(other)
    check_running_superlink(other)  # the project itself, as `flwr run .` starts it
    with pytest.raises(UserError, match="whose 'tasks' folder would be trained instead"):
        check_running_superlink(tmp_path / "project")


@linux_only
def test_one_whose_folder_is_gone_is_refused(started: Started, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    started.superlink(gone)
    gone.rmdir()
    with pytest.raises(UserError, match="the directory that it was started from is gone"):
        check_running_superlink(tmp_path)


@linux_only
def test_one_of_another_python_is_refused(started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started.superlink(tmp_path)
    monkeypatch.setattr(superlink, "scripts", lambda: tmp_path)
    with pytest.raises(UserError, match="belongs to another Python environment"):
        check_running_superlink(tmp_path)


@linux_only
@pytest.mark.parametrize("name", ["KERAS_HOME", "FEDKERAS_CACHE", "HF_DATASETS_CACHE", "TF_ENABLE_ONEDNN_OPTS"])
def test_one_that_keeps_to_other_variables_is_refused(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    started.superlink(tmp_path)
    monkeypatch.setenv(name, "/elsewhere")
    with pytest.raises(UserError, match=rf"{name}='.*' and would keep to it"):
        check_running_superlink(tmp_path)


@linux_only
def test_a_descriptor_that_is_closed_meanwhile_hides_nobody(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = started.superlink(tmp_path)
    iterdir = Path.iterdir

    def with_closed(folder: Path) -> Iterator[Path]:
        if folder.name == "fd":
            yield folder / "999999"
        yield from iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", with_closed)
    listener = find_listener(started.port)
    assert listener is not None
    assert listener.pid == pid


@pytest.mark.parametrize("text", ["abc", "", "0", "70000", "-1", "9" * 5000])
def test_a_port_that_is_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", text)
    with pytest.raises(UserError, match=r"^FLWR_LOCAL_SUPERLINK_HTTP_API_PORT is '.*', but must be a port"):
        superlink.port()


@linux_only
def test_another_program_on_the_port_is_named_and_left_alone(started: Started, tmp_path: Path) -> None:
    pid = started.superlink(tmp_path, "--something-else")
    with pytest.raises(UserError, match=f"Port {started.port} is taken by process {pid}"):
        check_running_superlink(tmp_path)
    with pytest.raises(UserError, match="left alone"):
        stop_managed([])
    os.kill(pid, 0)


@linux_only
def test_down_stops_it_unless_a_run_is_unfinished(started: Started, tmp_path: Path) -> None:
    pid = started.superlink(tmp_path)
    with pytest.raises(UserError, match=r"Run 42 has not ended: .*--force"):
        stop_managed(["42"])
    os.kill(pid, 0)
    assert stop_managed([]) == pid
    assert started.processes[0].wait() == -signal.SIGTERM
