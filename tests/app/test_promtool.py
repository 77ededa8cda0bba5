"""Prometheus' own tool on the files in ``deploy/``: it accepts them, and its engine fires the rules when a run does."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.prometheus import Metrics
from tests.app.promql import Labels
from tests.app.scripted_lines import engine, record
from tests.app.test_alerts import FAULTS
from tests.app.test_prometheus_files import DEPLOY, NAMES, RULES, TARGET, samples

TOOL = shutil.which("promtool")
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'
Scrape = dict[tuple[str, Labels], float]

pytestmark = pytest.mark.skipif(
    TOOL is None, reason="no promtool: .ci/debian-packages installs it on a Debian, as root"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([str(TOOL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_accepts_rules_and_config() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_it_can_read_every_panel_of_the_dashboard(tmp_path: Path) -> None:
    """As rules that record them: promtool has no other way to look at an expression."""

    def check_all(expressions: Sequence[str]) -> None:
        rules = [{"record": f"panel:{place}", "expr": text} for place, text in enumerate(expressions)]
        file = tmp_path / "panels.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
        promtool("check", "rules", file)

    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    shown = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]
    check_all(shown)
    with pytest.raises(AssertionError, match="parse error"):
        check_all([*shown, "rate(fedkeras_round)"])


def series(scrapes: Sequence[Scrape]) -> list[dict[str, str]]:
    """What was scraped each minute, as promtool reads it; what is not there any more is stale."""
    found = []
    for name, labels in sorted({key for scrape in scrapes for key in scrape}):
        values: list[str] = []
        for scrape in scrapes:
            gone = "stale" if values and values[-1] not in ("_", "stale") else "_"
            values.append(written(scrape[name, labels]) if (name, labels) in scrape else gone)
        labelled = ",".join(f'{label}="{value}"' for label, value in labels)
        found.append({"series": f"{name}{{{labelled}}}", "values": " ".join(values)})
    return found


def written(value: float) -> str:
    return repr(value) if math.isfinite(value) else str(value).replace("inf", "Inf").replace("nan", "NaN")


def expected(firing: dict[int, set[str]]) -> list[dict[str, Any]]:
    """The rules that fire by the minute, and no others."""
    return [
        {
            "expr": FIRING,
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(names)],
        }
        for minute, names in firing.items()
    ]


def check(folder: Path, *cases: tuple[Sequence[Scrape], dict[int, set[str]]]) -> None:
    tests = [
        {"interval": "1m", "input_series": series(scrapes), "promql_expr_test": expected(firing)}
        for scrapes, firing in cases
    ]
    file = folder / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)


def with_fault(fault: dict[str, Any]) -> list[Scrape]:
    """Thirty-three rounds, a minute each; the fault is in round 30."""
    metrics, watching, scrapes = Metrics("run", 60), engine(), []
    for number in range(33):
        told = record(number, **(fault if number == 30 else {}))
        metrics.take(told)
        metrics.set("round_finished_timestamp_seconds", 60.0 * number)
        for event in watching.round(told.to_json()):
            metrics.note(event)
        scrapes.append({**samples(metrics), ("up", TARGET): 1.0})
    return scrapes


def test_each_fault_fires_its_rule_alone_and_clears_it(tmp_path: Path) -> None:
    cases = []
    for alert, _, fault in FAULTS:
        fires: dict[int, set[str]] = {29: set(), 30: {NAMES[alert]}, 31: set(), 32: set()}
        cases.append((with_fault(dict(fault)), fires))
    check(tmp_path, *cases)


def test_a_run_that_is_gone_or_stands_still(tmp_path: Path) -> None:
    metrics = Metrics("run", 60)
    metrics.take(record(30))
    metrics.set("round_finished_timestamp_seconds", 0.0)
    alive: Scrape = {**samples(metrics), ("up", TARGET): 1.0}
    gone: Scrape = {("up", TARGET): 0.0}
    metrics.take(record(60))
    ended: Scrape = {**samples(metrics), ("up", TARGET): 1.0}
    check(
        tmp_path,
        ([alive] * 3 + [gone] * 4, {2: set(), 3: set(), 4: {"FedkerasGone"}, 6: {"FedkerasGone"}}),
        ([alive] * 63, {60: set(), 61: {"FedkerasStandstill"}}),
        ([alive, ended, *[gone] * 5], {6: set()}),
    )


def test_it_would_tell_of_a_rule_that_does_not_fire(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="FedkerasGone"):
        check(tmp_path, ([{("up", TARGET): 1.0}] * 3, {2: {"FedkerasGone"}}))
