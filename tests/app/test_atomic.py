"""Atomic files: old or new content at any moment, nothing left behind, modes as asked for."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import atomic
from tasks.cache import whole_file

OLD, NEW = b"a" * 3_000_000, b"b" * 3_000_000
WRITER = """
import sys
from pathlib import Path
from app import atomic
path, size = Path(sys.argv[1]), 3_000_000
print("ready", flush=True)
while True:
    for letter in (b"a", b"b"):
        atomic.write_bytes(path, letter * size)
"""


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_content_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    atomic.write_text(path, "grün\n")
    assert path.read_bytes() == "grün\n".encode()
    atomic.write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("umask")
def test_modes_hold_also_when_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    atomic.write_bytes(path, b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    atomic.write_bytes(path, b"2", atomic.PRIVATE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    atomic.write_bytes(path, b"old")
    for failure in (ValueError, KeyboardInterrupt):
        with pytest.raises(failure), whole_file(path) as temporary:
            temporary.write_bytes(b"half")
            raise failure
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_body_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass
    assert path.read_bytes() == b"old"


def test_the_temporary_name_keeps_folder_and_suffix_and_is_hidden(tmp_path: Path) -> None:
    with whole_file(tmp_path / ("n" * 240 + ".keras")) as temporary:
        temporary.write_bytes(b"")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        assert temporary.name.startswith(".")
        assert len(temporary.name) <= 255


def test_file_and_folder_are_synced_in_the_right_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        done.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def watched_replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    atomic.write_text(tmp_path / "file", "text")
    assert done == ["sync file", "rename", "sync folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, b"old")
    real = os.open

    def full(name: Path, flags: int, mode: int = 0o777) -> int:
        return real("/dev/full", os.O_WRONLY) if flags & os.O_EXCL else real(name, flags, mode)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="No space left"):
        atomic.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("delay", [0.002, 0.01, 0.017, 0.025, 0.04])
def test_kill_9_in_mid_write_leaves_one_whole_content(tmp_path: Path, delay: float) -> None:
    path = tmp_path / "file"
    atomic.write_bytes(path, OLD)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() in (OLD, NEW)
