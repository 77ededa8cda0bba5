"""Fixtures shared by all tests: where the real data lies, and homes that no test shares with another."""

import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parents[1]

# Started in the background of a script, this process ignores Ctrl-C, and so would every command that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests start more than a hundred Python processes. Where no bytecode is kept, as is usual in containers, each of
# them compiles all that it imports: eight seconds for TensorFlow alone.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What fails, fails again in the next run; and how long an example takes only says how busy the machine is.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets (``../shared/data`` or ``$FEDKERAS_TEST_DATA``)."""
    folder = Path(os.environ.get("FEDKERAS_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FEDKERAS_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def keras_home(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the Keras cache with MNIST and Fashion-MNIST: Keras writes into it, so it cannot be the original."""
    home = tmp_path_factory.mktemp("keras-home")
    shutil.copytree(shared_data / "keras_cache", home, dirs_exist_ok=True)
    return home


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own cache folder, so that none depends on what another left there."""
    monkeypatch.setenv("FEDKERAS_CACHE", str(tmp_path_factory.mktemp("cache")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes: two processes share the files, and neither shall wait for the other."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def rank(item: pytest.Item) -> tuple[bool, int, bool]:
        """Runs of whole commands first, then other slow tests, then what compiles models."""
        return "end_to_end" not in item.path.parts, -slow[item.path], "tasks" not in item.path.parts

    items.sort(key=rank)
