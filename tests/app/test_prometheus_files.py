"""What is in ``deploy/`` for Prometheus and Grafana loads, names what a run exports, and fires when a run does."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.alerts.rules import USED_UP, rules_of
from app.prometheus import SETS, Metrics
from strategies.records import RoundRecord
from tests.app import promql
from tests.app.promql import Binary, Call, Number, Selector, parse, selectors
from tests.app.scripted_lines import engine, record
from tests.app.test_alerts import FAULTS

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
TARGET = (("instance", "127.0.0.1:9464"), ("job", "fedkeras"))
RATE = "[$__rate_interval]"

NAMES = {
    "participation": "FedkerasParticipation", "rejected": "FedkerasRejected", "stagnation": "FedkerasStagnation",
    "budget": "FedkerasBudget", USED_UP: "FedkerasBudgetUsedUp", "duration": "FedkerasRoundDuration",
    "loss": "FedkerasLoss", "checkpoint": "FedkerasCheckpoint", "absent": "FedkerasAbsent",
    "certificate": "FedkerasCertificate",
}  # fmt: skip


def groups() -> list[dict[str, Any]]:
    return yaml.safe_load(RULES.read_text())["groups"]  # type: ignore[no-any-return]


def rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in groups() for rule in group["rules"]}


def expressions() -> list[str]:
    panels = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())["panels"]
    shown = [target["expr"].replace("$instance", "here") for panel in panels for target in panel["targets"]]
    return [rule["expr"] for rule in rules().values()] + shown


def samples(metrics: Metrics) -> dict[tuple[str, promql.Labels], float]:
    """What Prometheus stores of a scrape: a sample by name and labels, with those of the target."""
    return {
        (sample.name, tuple(sorted({*sample.labels.items(), *TARGET}))): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def firing(*scrapes: tuple[float, dict[tuple[str, promql.Labels], float]]) -> set[str]:
    return {name for name, rule in rules().items() if promql.evaluate(parse(rule["expr"]), scrapes)}


def exported() -> dict[str, set[str]]:
    """The labels of everything a run can export, by name: of a run in which everything happens."""
    metrics, watching = Metrics("run", 60), engine()
    metrics.take(
        record(1, rejected={"late": 1}, example_privacy={"epsilon": 1.0}, norms=(1.0, 2.0), simulated_seconds=1)
    )
    for event in watching.fire(USED_UP, ""):
        metrics.note(event)
    return {name: {label for label, _ in labels} for name, labels in samples(metrics)}


def test_there_is_a_rule_for_each_of_ours() -> None:
    assert set(NAMES) == {rule.name for rule in rules_of(dict)}
    assert [group["name"] for group in groups()] == ["fedkeras", "fedkeras-run"]
    assert [rule["alert"] for rule in groups()[0]["rules"]] == list(NAMES.values())


@pytest.mark.parametrize("rule", rules().values(), ids=rules())
def test_a_rule_has_what_prometheus_wants_and_nothing_else(rule: dict[str, Any]) -> None:
    assert {"alert", "expr", "labels", "annotations"} <= set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert set(rule["annotations"]) == {"summary"}
    assert rule["annotations"]["summary"].count("{{") == rule["annotations"]["summary"].count("}}")


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_reads_what_a_run_exports(expression: str) -> None:
    known = exported() | {"up": {"job", "instance"}}
    for selector in selectors(parse(expression)):
        assert selector.name in known, selector.name
        labels = dict(selector.labels)
        assert set(labels) <= known[selector.name], selector
        assert labels.get("alert", USED_UP) in NAMES and labels.get("set", "train") in SETS


def test_prometheus_looks_at_the_loopback_and_finds_the_rules() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert all((DEPLOY / "prometheus" / file).is_file() for file in config["rule_files"])
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "fedkeras"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]


# Rules that fire.


def test_a_good_run_raises_no_rule() -> None:
    metrics, watching = Metrics("run", 60), engine()
    assert firing((0.0, samples(metrics))) == set()
    for number in range(60):
        assert watching.round(record(number).to_json()) == []
        metrics.take(record(number))
        metrics.set("round_finished_timestamp_seconds", 60.0 * number)
        assert firing((60.0 * number, samples(metrics))) == set()


@pytest.mark.parametrize(("alert", "subject", "fault"), FAULTS)
def test_each_fault_raises_its_rule_alone_and_clears_it(alert: str, subject: str, fault: dict[str, Any]) -> None:
    metrics, watching = Metrics("run", 60), engine()
    seen = {}
    for number in range(33):
        told = record(number, **(fault if number == 30 else {}))
        metrics.take(told)
        metrics.set("round_finished_timestamp_seconds", number)
        for event in watching.round(told.to_json()):
            metrics.note(event)
        if number > 28:
            seen[number] = firing((float(number), samples(metrics)))
    assert seen == {29: set(), 30: {NAMES[alert]}, 31: set(), 32: set()}


def test_what_a_run_finds_itself_is_passed_on() -> None:
    metrics, watching = Metrics("run", 60), engine(days_left=lambda: {"server.pem": 3.0})
    metrics.take(RoundRecord(0))
    metrics.set("round_finished_timestamp_seconds", 0)
    for event in [*watching.round(record(0).to_json()), *watching.fire(USED_UP, "")]:
        metrics.note(event)
    assert firing((0.0, samples(metrics))) == {"FedkerasCertificate", "FedkerasBudgetUsedUp"}


def test_a_run_at_a_standstill_and_one_that_is_gone() -> None:
    metrics = Metrics("run", 60)
    metrics.take(record(30))
    metrics.set("round_finished_timestamp_seconds", 1000.0)
    alive = {**samples(metrics), ("up", TARGET): 1.0}
    gone = {("up", TARGET): 0.0}
    assert firing((4000.0, alive)) == set()
    assert firing((4700.0, alive)) == {"FedkerasStandstill"}
    assert firing((2000.0, alive), (2060.0, gone)) == {"FedkerasGone"}
    metrics.take(record(60))
    assert firing((2000.0, {**samples(metrics), ("up", TARGET): 1.0}), (2060.0, gone)) == set()  # it had ended


# The dashboard.


def test_the_dashboard_has_panels_that_neither_overlap_nor_share_an_id() -> None:
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) > 10
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_the_dashboard_takes_whichever_prometheus_there_is() -> None:
    board = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance"]
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {"${datasource}"}
    assert board["uid"] and "id" not in board  # an id would be that of another Grafana's database


# The parser of this test.


def test_the_parser_knows_precedence() -> None:
    assert parse("a + b * 2 > 0.5 or c") == Binary(
        "or",
        Binary(">", Binary("+", Selector("a"), Binary("*", Selector("b"), Number(2.0))), Number(0.5)),
        Selector("c"),
    )
    assert parse(f'sum(rate(a{{x="1"}}{RATE}))') == Call("sum", (Call("rate", (Selector("a", (("x", "1"),), RATE),)),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a >",
        "a b",
        "a{x=1}",
        'a{x="1"',
        "rate(a)",
        "unknown(a)",
        "(a",
        "a)",
        "a ?? b",
        "1.2.3",
        "a[5y]",
        'a{="1"}x',
    ],
)
def test_the_parser_refuses_what_it_does_not_know(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse(text)


def test_comparisons_filter_and_nothing_compares_with_nan() -> None:
    here: dict[tuple[str, promql.Labels], float] = {("a", (("x", "1"),)): 2.0, ("a", (("x", "2"),)): math.nan}
    assert promql.evaluate(parse("a > 1"), [(0.0, here)]) == {(("x", "1"),): 2.0}
    assert list(promql.evaluate(parse("a != a"), [(0.0, here)])) == [(("x", "2"),)]  # type: ignore[arg-type]
