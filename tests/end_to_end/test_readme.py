"""Every command and every snippet of the README and its pages, to the letter, in a fresh clone with an empty HOME.

The packages come from uv's cache, which whoever runs the tests with uv has filled, so that no network is needed.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import keras
import pytest

from tests.end_to_end.conftest import LONGEST_RUN, free_port, until_somebody_listens

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/one-command.md", "docs/research.md", "docs/deployment.md")
TEXT = "".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES)
FINISHED = re.compile(r"Finished (\d+) rounds: central accuracy ([\d.]+) %, run directory (\S+)")

pytestmark = pytest.mark.timeout(900)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines of the pages' shell blocks that hold this text."""
    return [line for block in blocks("sh") for line in block.splitlines() if text in line]


EXECUTED = (
    "pip install uv && uv run fedkeras run",
    "uv run pytest",
    "uv run fedkeras config",
    "uv run fedkeras run -c cross-silo",
    "uv run fedkeras report",
    "uv run fedkeras down",
    "export FLWR_",
    "export RAY_",
    "uv run fedkeras simulate",
    "uv run fedkeras privacy",
    "uv run fedkeras audit",
    "uv run fedkeras sweep digits",
    "uv run flwr run .",
    "uv run fedkeras run -c dataset=my_task:blobs",
    "uv run fedkeras demo-data",
    "uv run fedkeras deploy",
    "uv run flwr supernode register",
    "uv run fedkeras run mine",
)
"""How the commands begin that the tests below and .ci/run execute."""


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_readme_and_no_link_is_broken() -> None:
    """new-strategies.md is executed by a test of its own."""
    pages = (*PAGES, "docs/new-strategies.md", "benchmarks/README.md")
    assert {REPOSITORY / page for page in pages} >= set(REPOSITORY.glob("docs/*.md"))
    found = {page: re.findall(r"\]\(([^)\s]+)\)", (REPOSITORY / page).read_text(encoding="utf-8")) for page in pages}
    assert set(PAGES[1:]) <= set(found["README.md"])
    for page, link in ((page, link) for page, links in found.items() for link in links if "://" not in link):
        target, _, anchor = link.partition("#")
        file = ((REPOSITORY / page).parent / target).resolve() if target else REPOSITORY / page
        assert file.exists(), (page, link)
        assert not anchor or anchor in anchors(file), (page, link)


def test_every_command_of_the_pages_is_executed_somewhere() -> None:
    unknown = [line for line in commands("") if not line.startswith(EXECUTED)]
    assert unknown == []
    assert all(commands(start) for start in EXECUTED)


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    last = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert last == "uv run pytest"
    assert commands("uv run pytest")[0] == last


@pytest.mark.parametrize("block", [block for block in blocks("python") if "my_task.py" not in block])
def test_snippets_run_as_they_are(block: str) -> None:
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})


@dataclass
class Clone:
    """A fresh clone with its own home; what is started in it is stopped with it."""

    path: Path
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_RUN,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, command: str, log: str) -> None:
        file = (self.path.parent / log).open("wb")
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.path,
            env=self.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.processes.append(process)

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        self.processes.clear()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH: the README's commands begin with it")
    folder = tmp_path_factory.mktemp("readme")
    path, home = folder / "fedkeras", folder / "home"
    home.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, files):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, path / name)
    cache = subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("FLWR_", "VIRTUAL_ENV", "FEDKERAS_"))
    }
    outside = [folder for folder in kept["PATH"].split(os.pathsep) if Path(folder) != Path(sys.executable).parent]
    environment = {
        **kept,
        "PATH": os.pathsep.join(outside),
        "HOME": str(home),
        "UV_CACHE_DIR": cache,
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
    }
    fresh = Clone(path, environment)
    try:
        yield fresh
    finally:
        fresh.stop()
        subprocess.run(["bash", "-c", "uv run fedkeras down --force"], cwd=path, env=environment, check=False)


def finished(output: str) -> tuple[int, float, Path]:
    match = FINISHED.search(output)
    assert match, output
    return int(match[1]), float(match[2]), Path(match[3])


@pytest.mark.slow
def test_the_first_command_trains_digits(clone: Clone) -> None:
    rounds, accuracy, directory = finished(clone.run(commands("pip install uv")[0]))
    assert rounds == 30
    assert accuracy >= 95
    assert directory.parent == clone.path / "runs"
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == list(range(31))


@pytest.mark.slow
def test_a_preset_and_the_reports(clone: Clone) -> None:
    assert "num-clients" in clone.run(commands("fedkeras config")[0])
    rounds, _, directory = finished(clone.run(commands("-c cross-silo")[0]))
    assert rounds == 3
    (directory / "report.html").unlink()
    clone.run(commands("fedkeras report")[0])
    pages = [directory / "report.html", clone.path / "runs" / "report.html"]
    assert any(page.exists() for page in pages)


@pytest.mark.slow
def test_simulations(clone: Clone) -> None:
    plain, phones, buffered, attacked, _ = commands("fedkeras simulate")
    rounds, accuracy, directory = finished(clone.run(plain))
    assert rounds == 20
    assert accuracy > 80
    assert (directory / "model.keras").exists()
    for command, strategy in ((phones, "fedavg"), (buffered, "fedbuff")):
        rounds, _, directory = finished(clone.run(command))
        assert rounds == 10
        assert f'strategy = "{strategy}"' in (directory / "config.toml").read_text()
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
        clock = [line["simulated-seconds"] for line in lines]
        assert clock == sorted(clock) and clock[-1] > clock[0] == 0
    rounds, accuracy, directory = finished(clone.run(attacked))
    assert rounds == 10 and accuracy > 50
    assert len(json.loads((directory / "attackers.json").read_text())["clients"]) == 10


@pytest.mark.slow
def test_differential_privacy(clone: Clone) -> None:
    """The run costs what the command says of its config."""
    assert "Smallest noise for epsilon 10: -c noise-multiplier=" in clone.run(commands("fedkeras privacy")[0])
    private = commands("fedkeras simulate")[-1]
    beforehand = clone.run(private.replace("simulate", "privacy"))
    rounds, _, directory = finished(clone.run(private))
    last = json.loads((directory / "metrics.jsonl").read_text().splitlines()[-1])
    epsilon = next(line.split("│")[4] for line in beforehand.splitlines() if line.startswith(f"│ {rounds} "))
    assert last["privacy"]["epsilon"] == pytest.approx(float(epsilon), rel=1e-3)


@pytest.mark.slow
def test_an_audit(clone: Clone) -> None:
    output = clone.run(commands("fedkeras audit")[0])
    rounds, _, directory = finished(output)
    told = json.loads((directory / "audit.json").read_text())
    assert rounds == 10 and told["canaries"] == 200 and told["meaning"] in " ".join(output.split())
    assert 0 < told["final-model"]["bound"] < told["promised"]["rdp"]


@pytest.mark.slow
def test_the_sweep(clone: Clone) -> None:
    output = clone.run(commands("fedkeras sweep")[0])
    folder = clone.path / "runs" / "digits-sweep"
    assert "Best: learning-rate" in output
    assert {"report.html", "results.csv", "best.toml"} <= {file.name for file in folder.iterdir()}


@pytest.mark.slow
def test_plain_flwr_run(clone: Clone) -> None:
    block = next(block for block in blocks("sh") if "uv run flwr run ." in block)
    rounds, _, _ = finished(clone.run(block))
    assert rounds == 3


@pytest.mark.slow
def test_a_task_of_ones_own(clone: Clone) -> None:
    code = next(block for block in blocks("python") if "my_task.py" in block)
    (clone.path / "my_task.py").write_text(code, encoding="utf-8")
    rounds, accuracy, _ = finished(clone.run(commands("my_task:blobs")[0]))
    assert rounds == 5
    assert accuracy > 70
    assert "Stopped" in clone.run(commands("fedkeras down")[0])


def intruder(clone: Clone, init: str, node: str) -> str:
    """The command of a node with a key that nobody has registered."""
    clone.run(re.sub("--node .*", "--node intruder", init))
    return re.sub(r"--port \d+", f"--port {free_port()}", node.replace("nodes/east", "nodes/intruder"))


@pytest.mark.slow
def test_the_deployment_page(clone: Clone) -> None:
    clone.run(commands("fedkeras demo-data")[0])
    ports = {str(number): str(free_port()) for number in (18000, 18001, 18002)}

    def moved(text: str) -> str:
        """The same on ports that are free here: the README's own may be taken."""
        return re.sub(r"\b1800[012]\b", lambda match: ports[match[0]], text)

    clone.environment |= {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    init, superlink, connect, *nodes = map(moved, commands("fedkeras deploy"))
    clone.run(init)
    clone.start(superlink, "superlink.log")
    try:
        until_somebody_listens(int(ports["18000"]))  # a person takes longer to type the next command
        for command in (connect, *commands("flwr supernode register")):
            clone.run(command)
        for number, line in enumerate([*nodes, intruder(clone, init, nodes[0])]):
            clone.start(line, f"supernode-{number}.log")
        rounds, _, directory = finished(clone.run(commands("fedkeras run mine")[0]))
    finally:
        clone.stop()
    assert rounds == 2
    population = json.loads((directory / "population.json").read_text())
    assert population["clients"] == ["east", "west"]
    assert population["device-classes"] == ["server", "server"]
    assert population["regions"] == ["east", "west"]
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert [(line["accepted"], line["rejected"]) for line in lines[1:]] == [(2, {}), (2, {})]
    assert lines[-1]["central"]["accuracy"] > 0.8
    assert json.loads((directory / "status.json").read_text())["state"] == "completed"
    assert keras.models.load_model(directory / "model.keras").count_params() > 0
