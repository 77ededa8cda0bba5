"""What a page says of a run's health: alerts on a time line, who came, how diverse they were, and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.alerts.engine import Event
from app.alerts.sink import AlertSink
from app.report.health import MOST_ROWS, Span, norms_chart, spans, timeline_chart
from app.report.reading import read_run
from app.run_directory import RunDirectory
from app.sinks import JsonLines
from tests.app.scripted_lines import COHORT, Fault, engine, groups, record
from tests.app.test_report import flat, page_of

LOST: Fault = {"accepted": COHORT[:5], "rejected": {"late": 5}}


def watched_run(runs: Path, rounds: int, faults: Mapping[int, Fault]) -> RunDirectory:
    directory = RunDirectory.create(runs, "watched", datetime(2026, 11, 21, tzinfo=UTC))
    directory.write_config({"num-rounds": rounds, "alert-participation": 0.7, "alert-rejected": 0.2})
    metrics, alerts = JsonLines(directory.metrics), AlertSink(engine(), directory.metrics, directory.alerts)
    for number in range(rounds + 1):
        told = record(number, **{"bytes_down": 2_000_000 * bool(number), "norms": (1.0, 2.0), **faults.get(number, {})})
        metrics.round(told)
        alerts.round(told)
    metrics.close()
    alerts.close()
    directory.write_status("completed", "", rounds)
    return directory


def test_a_run_without_alerts_says_so(tmp_path: Path) -> None:
    page = page_of(watched_run(tmp_path, 30, {}))
    text = flat(page.text)
    assert "No alert has fired in 30 rounds." in text
    assert "firing at the end" not in text and not [alt for alt in page.alts if alt.startswith("Alerts over rounds")]


def test_alerts_stand_on_a_time_line_and_in_a_table(tmp_path: Path) -> None:
    faults = {**dict.fromkeys(range(10, 13), LOST), 30: {"diversity": groups(europe=5, asia=0)}}
    page = page_of(watched_run(tmp_path, 30, faults))
    text = flat(page.text)
    assert "Alerts have fired 2 times in 30 rounds" in text
    assert "round 10 to 13participation50.0 % of 10 selected clients sent an update" in text
    assert "from round 30 onabsent (regions/asia)" in text
    assert "Alerts that were firing at the end: absent (regions/asia)." in text
    (alt,) = (alt for alt in page.alts if alt.startswith("Alerts over rounds"))
    assert alt == "Alerts over rounds: participation round 10 to 13; absent (regions/asia) from round 30 on"


def test_health_over_rounds_is_drawn(tmp_path: Path) -> None:
    page = page_of(watched_run(tmp_path, 30, {20: LOST}))
    (turnout,) = (alt for alt in page.alts if alt.startswith("Clients asked"))
    assert "sent an update goes from 100.0 % to 100.0 % in 30 points" in turnout and "alert-participation" in turnout
    (diversity,) = (alt for alt in page.alts if alt.startswith("Groups in effect"))
    assert "regions goes from 2" in diversity
    (norms,) = (alt for alt in page.alts if alt.startswith("Norms of updates"))
    assert "median, and half of the updates goes from 1.5" in norms
    (sent,) = (alt for alt in page.alts if alt.startswith("Bytes per round"))
    assert "2.0 MB down to the clients and 0 B up" in sent
    assert "Communication" in flat(page.text)


def test_runs_of_an_older_version_have_no_such_figures(tmp_path: Path) -> None:
    directory = watched_run(tmp_path, 5, {})
    old = [line.replace('"offered":40,', "") for line in directory.metrics.read_text().splitlines()]
    old = [line[: line.index(',"diversity"')] + "}" for line in old]
    directory.metrics.write_text("\n".join(old) + "\n")
    run = read_run(directory.path)
    assert len(run.rounds) == 6 and run.notes == read_run(directory.path).notes
    assert norms_chart("x", run) is None
    assert "No alert has fired in 5 rounds." in flat(page_of(directory).text)


def test_lines_that_are_no_alerts_are_left_out_and_told(tmp_path: Path) -> None:
    directory = watched_run(tmp_path, 12, {10: LOST})
    with directory.alerts.open("a") as file:
        file.write('{"round":11,"alert":"x","subject":"","state":"maybe","text":""}\n{"round":')
    run = read_run(directory.path)
    assert [event.alert for event in run.alerts] == ["participation", "participation"]
    assert "Line 3 of alerts.jsonl cannot be read and is left out." in run.notes
    assert any("last line of alerts.jsonl is cut off" in note for note in run.notes)


def event(number: int, alert: str, state: str, subject: str = "") -> Event:
    return Event(number, alert, subject, state, f"{alert}.")  # type: ignore[arg-type]


def test_spans_by_hand() -> None:
    told = [
        event(3, "loss", "firing", "train"), event(4, "loss", "firing", "central"),
        event(5, "loss", "resolved", "train"),
        event(7, "loss", "firing", "train"), event(8, "rejected", "resolved"),
    ]  # fmt: skip
    assert spans(told) == [
        Span("loss (train)", 3, 5, "loss."),
        Span("loss (central)", 4, None, "loss."),
        Span("loss (train)", 7, None, "loss."),
    ]


@pytest.mark.parametrize("count", [1, MOST_ROWS, MOST_ROWS + 1, 500])
def test_the_time_line_has_room_for_the_latest_alerts(count: int) -> None:
    fired = [Span(f"absent (regions/place {k})", k, k + 1, "") for k in range(count)]
    chart = timeline_chart("x", fired, count + 1)
    assert chart is not None
    assert f"place {count - 1})" in chart.alt and chart.svg.count("place") == min(count, MOST_ROWS)
    assert bool(chart.caption) == (count > MOST_ROWS)
