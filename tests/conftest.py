"""Fixtures shared by all tests: where the real data lies, and homes that no test shares with another."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

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


LONGEST = (
    "end_to_end/test_papers.py",
    "end_to_end/test_readme.py",
    "end_to_end/test_deploy",
    "simulation/test_every_strategy.py",
    "simulation/test_every_codec.py",
    "simulation/test_simulate.py",
    "simulation/test_audit.py",
    "simulation/test_adversaries_runs.py",
    "end_to_end",
    "tasks/test_training.py",
    "tasks/test_together.py",
    "tasks/test_private_training.py",
    "tasks/test_terms.py",
    "simulation",
    "app",
    "tasks",
)
"""How the files begin that take long, the longest first: the processes that share them then end together."""

SHARING = {
    f"tests/simulation/test_{name}.py": "engines"
    for name in ("every_strategy", "every_codec", "simulate", "audit", "adversaries_runs")
} | {f"tests/simulation/test_{name}.py": "Ray here" for name in ("faults", "grid", "simulated_process")}
"""What files have in common that takes longer to start than their tests: one process gets all of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes."""

    def rank(item: pytest.Item) -> int:
        place = item.path.relative_to(REPOSITORY / "tests").as_posix()
        return next((at for at, begin in enumerate(LONGEST) if place.startswith(begin)), len(LONGEST))

    items.sort(key=rank)


class SharedEngines(LoadFileScheduling):
    """All tests of a file to one process, and all files that share an engine."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return SHARING.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SharedEngines | None:
    """Deal out the files so, but where another way is asked for on the command line."""
    return SharedEngines(config, log) if config.getvalue("dist") == "loadfile" else None
