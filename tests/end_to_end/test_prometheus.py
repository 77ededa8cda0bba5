"""A real Prometheus with the files of ``deploy/`` scrapes a real run: rules fire and clear.

Of the shipped config the copy here changes the port and the intervals, and of the rules nothing but how long a run must
be gone (``for``), so that the test lasts seconds.
"""

from __future__ import annotations

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strategies.records import RoundRecord
from tests.app.inline_runs import SMALL, start
from tests.app.test_prometheus_files import DEPLOY, expressions, rules
from tests.end_to_end.conftest import free_port, installed, until_somebody_listens

LONGEST_WAIT = 60.0  # s; a tenth of it on a quiet machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs, and the port that it scrapes."""

    address: str
    scraped: int

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of an answer of its API; an error of it ends the test."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def value(self, name: str) -> float | None:
        found = self.ask("query", query=name)["result"]
        return float(found[0]["value"][1]) if found else None


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LONGEST_WAIT
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.2)
    return False


def copied(folder: Path, scraped: int) -> Path:
    """Write the shipped files for this port, with seconds in place of minutes."""
    changes = {
        "prometheus.yml": {"15s": "1s", "127.0.0.1:9464": f"127.0.0.1:{scraped}"},
        "rules.yml": {"for: 1m": "for: 1s"},
    }
    for name, replaced in changes.items():
        text = (DEPLOY / "prometheus" / name).read_text(encoding="utf-8")
        for shipped, here in replaced.items():
            assert shipped in text
            text = text.replace(shipped, here)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "prometheus.yml"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    program, port, scraped = installed("prometheus"), free_port(), free_port()
    where = (f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path / 'stored'}")
    with (tmp_path / "prometheus.log").open("wb") as log:
        command = [program, f"--config.file={copied(tmp_path, scraped)}", *where]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
        try:
            until_somebody_listens(port)
            yield Prometheus(f"127.0.0.1:{port}", scraped)
        finally:
            process.terminate()
            process.wait(LONGEST_WAIT)


class KilledError(Exception):
    """Ends a run in mid-course, as nothing of ours does."""


def test_rules_fire_while_a_run_is_at_fault_and_when_it_is_gone(prometheus: Prometheus, tmp_path: Path) -> None:
    """All updates of the run are longer than it allows; and it ends two rounds early."""
    seen: list[set[str]] = []

    def watch(record: RoundRecord) -> None:
        assert until(lambda: prometheus.value("fedkeras_round") == record.round)
        if record.round == 1:
            assert until(lambda: prometheus.firing() != set())
            assert {rule["health"] for rule in evaluated(prometheus)} == {"ok"}
            assert prometheus.value("fedkeras_rejected_ratio") == 1
            for expression in expressions():
                prometheus.ask("query", query=expression.replace("$__rate_interval", "1m"))
        seen.append(prometheus.firing())
        if record.round == 2:
            raise KilledError

    config = {**SMALL, "prometheus-port": prometheus.scraped, "num-rounds": 4, "max-update-norm": 1e-9}
    with pytest.raises(KilledError):
        start(tmp_path / "runs", config, observers=[watch])
    assert seen == [set(), {"FedkerasRejected"}, {"FedkerasRejected"}]
    assert until(lambda: prometheus.firing() == {"FedkerasGone"})


def evaluated(prometheus: Prometheus) -> list[dict[str, Any]]:
    """All rules of the file, as Prometheus has evaluated them."""
    found = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in found] == list(rules())
    return found
