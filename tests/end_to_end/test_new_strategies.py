"""The page on new strategies, to the letter: its files and lines in a copy of the code, its numbers, its commands."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "new-strategies.md").read_text(encoding="utf-8")
PACKAGES = ("app", "strategies", "tasks", "simulation")
MOST_LINES = 20


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with the page's files written and its lines inserted after those that it shows above them."""
    folder = tmp_path_factory.mktemp("new-strategies")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES, "pyproject.toml"],
        cwd=REPOSITORY, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, tracked.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((REPOSITORY / name).read_bytes())
    for block in blocks("python"):
        (folder / block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")
    registry = folder / "strategies" / "registry.py"
    for block in blocks("diff"):
        above, *added = block.splitlines()
        text = registry.read_text(encoding="utf-8")
        assert text.count(above[1:] + "\n") == 1, above
        lines = "".join(line.removeprefix("+") + "\n" for line in added)
        registry.write_text(text.replace(above[1:] + "\n", above[1:] + "\n" + lines), encoding="utf-8")
    return folder


def test_each_is_under_twenty_lines() -> None:
    for block in blocks("python"):
        assert len([line for line in block.splitlines()[1:] if line.strip()]) < MOST_LINES
    assert all(line.startswith("+") for block in blocks("diff") for line in block.splitlines()[1:])


def test_what_the_page_names_is_there() -> None:
    links = re.findall(r"\]\(\.\./([^)]+)\)", PAGE)
    assert links and all((REPOSITORY / link).exists() for link in links)


UPDATES = np.random.default_rng(3).normal(size=(5, 40)).astype(np.float32)
FOLD = """
import json, sys
import numpy as np
from strategies import registry
from strategies.updates import Update
updates = np.array(json.loads(sys.argv[1]), np.float32)
found = {}
for name, options in json.loads(sys.argv[2]).items():
    parts = registry.build(options.pop("strategy", "fedavg"), options)
    results = []
    for order in (range(len(updates)), reversed(range(len(updates)))):
        fold = parts.aggregator.start(updates.shape[1], parts.aggregator.init(updates.shape[1]))
        for place in order:
            fold.add(Update(str(place), updates[place], 10.0 + place))
        results.append(fold.result())
    assert results[0].dtype == np.float32 and np.array_equal(*results)
    server = type(parts.server_optimizer).__name__
    found[name] = [results[0].tolist(), server, parts.aggregator.shortfall(1), parts.takes_partial_sums]
print(json.dumps(found))
"""


def test_the_rules_are_what_their_papers_say(copy: Path) -> None:
    wanted = {
        "vote": {"aggregator": "majority-vote"},
        "exp": {"strategy": "fedexp"},
        "median": {"strategy": "median-adam"},
    }
    arguments = [json.dumps(UPDATES.tolist()), json.dumps(wanted)]
    done = subprocess.run(
        [sys.executable, "-c", FOLD, *arguments], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    votes = [sum(1 if value > 0 else -1 for value in column) for column in UPDATES.T.tolist()]
    assert found["vote"][0] == [1.0 if vote > 0 else -1.0 for vote in votes]
    exact = UPDATES.astype(np.float64)
    mean = exact.mean(axis=0)
    factor = max(1.0, (exact**2).sum() / (2 * 5 * ((mean**2).sum() + 1e-3)))
    assert factor > 1
    np.testing.assert_allclose(found["exp"][0], factor * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found["median"][0], np.median(UPDATES, axis=0))
    assert [rest for _, *rest in found.values()] == [
        ["ServerSGD", "", False], ["ServerSGD", "", False], ["FedAdam", "", False],
    ]  # fmt: skip


SIMULATE = "from simulation.cli import main; main()"
SHORT = ("--engine", "inline", "-c", "num-rounds=30", "-c", "federated-evaluate-every=0", "-c", "model=logistic")


@pytest.mark.slow
@pytest.mark.parametrize("command", [line for block in blocks("sh") for line in block.splitlines()])
def test_the_commands_train(copy: Path, command: str) -> None:
    _, *words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-c", SIMULATE, *words, *SHORT], cwd=copy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (accuracy,) = re.findall(r"Finished 30 rounds: central accuracy ([\d.]+) %", done.stdout + done.stderr)
    assert float(accuracy) > 60
