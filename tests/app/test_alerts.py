"""Alerts: each fires within a round of its cause, alone, and is over by itself; and none without a cause."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from app.alerts.certificates import days_left
from app.alerts.health import Health
from app.alerts.rules import USED_UP, Level, above, rules_of
from app.config import RunConfig
from tests.app.scripted_lines import COHORT, THRESHOLDS, Fault, engine, events, groups, lines, record, spending, told

NAN, INF = float("nan"), float("inf")
LOST_FOUR: Fault = {"accepted": COHORT[:6], "rejected": {"late": 3, "dropout": 1}}
REFUSED_THREE: Fault = {"accepted": COHORT[:7], "rejected": {"not-finite": 2, "error": 1}}


def central(**values: float) -> Fault:
    return {"central": values}


def test_five_hundred_good_rounds_raise_none() -> None:
    assert events(lines(500)) == []


FAULTS: list[tuple[str, str, Fault]] = [
    ("participation", "", LOST_FOUR),
    ("participation", "", {"accepted": (), "rejected": {"not-sent": 10}}),
    ("participation", "", {"selected": (), "accepted": (), "offered": 0, "diversity": groups(europe=1, asia=1)}),
    ("rejected", "", REFUSED_THREE),
    ("rejected", "", {"accepted": COHORT[:4], "rejected": {"malformed": 6}}),
    ("budget", "", {"privacy": spending(6.5)}),
    ("duration", "", {"seconds": {"train": 1.9, "total": 2.0}}),
    ("loss", "central", central(loss=NAN, accuracy=0.2)),
    ("loss", "central", central(loss=INF, accuracy=0.2)),
    ("loss", "central", central(loss=50.0, accuracy=0.2)),
    ("loss", "train", {"train": {"loss": 50.0}}),
    ("checkpoint", "", {"checkpoint": 20, "failed_checkpoints": 1}),
    ("checkpoint", "", {"checkpoint": None, "failed_checkpoints": 5}),
    ("absent", "regions/asia", {"diversity": groups(europe=5, asia=0)}),
    ("absent", "regions/asia", {"diversity": groups(europe=5)}),
]


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize(("alert", "subject", "fault"), FAULTS)
def test_each_fault_raises_its_alert_alone_in_its_round_and_clears_it_after(
    alert: str, subject: str, fault: Fault, rounds: int
) -> None:
    told = events(lines(60, {30 + extra: fault for extra in range(rounds)}))
    assert told == [(30, alert, subject, "firing"), (30 + rounds, alert, subject, "resolved")]


def test_learning_that_stands_still_fires_after_twenty_rounds_and_clears_with_a_better_accuracy() -> None:
    stuck = {number: central(loss=1.0, accuracy=0.1) for number in range(31, 56)}
    assert events(lines(60, stuck)) == [(50, "stagnation", "", "firing"), (56, "stagnation", "", "resolved")]


def test_a_perfect_accuracy_cannot_improve() -> None:
    assert events(lines(100, {number: central(loss=0.0, accuracy=1.0) for number in range(30, 101)})) == []


def test_a_budget_that_is_used_up_is_told_once_and_is_over_when_a_round_can_begin_again() -> None:
    watching = engine()
    assert events(lines(5), watching) == []
    assert [event.alert for event in watching.fire(USED_UP, "no round is left")] == [USED_UP]
    assert watching.fire(USED_UP, "no round is left") == []
    (over,) = watching.round(record(6).to_json())
    assert (over.alert, over.state) == (USED_UP, "resolved")
    off = engine({"alert-budget": 0})
    assert off.fire(USED_UP, "no round is left") == []


@pytest.mark.parametrize("rule", rules_of(lambda: {"server.pem": 3.0}), ids=lambda rule: rule.name)
def test_a_threshold_of_zero_turns_a_rule_off(rule: Any) -> None:
    faults = [fault for alert, _, fault in FAULTS if alert == rule.name]
    told = lines(60, dict(enumerate(faults, start=30)))
    told += [record(number, central={"loss": 0.1, "accuracy": 0.1}).to_json() for number in range(61, 90)]
    days = lambda: {"server.pem": 3.0}  # noqa: E731
    fired = {alert for _, alert, _, _ in events(told, engine(days_left=days))}
    assert rule.name in fired or rule.name == USED_UP
    off = {alert for _, alert, _, _ in events(told, engine({rule.key: 0}, days_left=days))}
    assert rule.name not in off


def test_every_threshold_is_a_key_and_every_key_a_threshold() -> None:
    assert {rule.key for rule in rules_of(dict)} == set(THRESHOLDS)


def test_participation_counts_who_sent_something_and_not_who_was_not_needed() -> None:
    assert events(lines(40, {30: {"accepted": COHORT[:5], "rejected": {"surplus": 5}}})) == []
    bound: Fault = {"accepted": COHORT[:7], "rejected": {"late": 3}}
    assert events(lines(40, {30: bound})) == []  # exactly 70 %
    assert ("participation", "firing") not in {(alert, state) for _, alert, _, state in events(
        lines(40, {30: {"accepted": COHORT[:5], "rejected": {"malformed": 5}}}))}  # fmt: skip


def test_replies_that_come_again_are_no_rejections() -> None:
    assert events(lines(40, {30: {"repeated": 40}})) == []


def test_what_hovers_around_a_threshold_fires_once() -> None:
    """Of 100 clients, 31 and 29 miss in turns: above 30 % and below it, but not below 27 %."""
    everybody = tuple(map(str, range(100)))

    def lost(count: int) -> Fault:
        return {"selected": everybody, "accepted": everybody[count:], "rejected": {"late": count}}

    faults = {number: lost(31 if number % 2 else 29) for number in range(31, 60)}
    assert events(lines(60, faults)) == [(31, "participation", "", "firing"), (60, "participation", "", "resolved")]


def test_nobody_drawn_by_chance_is_no_fault() -> None:
    empty: Fault = {"selected": (), "accepted": (), "skipped": True, "diversity": groups(europe=1, asia=1)}
    assert events(lines(40, {30: empty})) == []


def test_a_round_is_compared_with_rounds_of_the_same_work() -> None:
    """Evaluations are not work of every round; rounds of milliseconds are as long as the machine likes."""
    slow_evaluation = {"seconds": {"train": 0.1, "evaluate-federated": 30.0, "total": 30.2}}
    assert events(lines(40, dict.fromkeys(range(5, 41, 5), slow_evaluation))) == []
    hiccup = {"seconds": {"train": 0.1, "total": 1.1}}
    assert events(lines(40, {30: hiccup})) == []


def test_the_first_rounds_have_nothing_to_be_compared_with() -> None:
    assert events(lines(10, {1: {"seconds": {"total": 60.0}}})) == []
    assert events(lines(10, {3: {"seconds": {"total": 60.0}}})) == []


def test_rounds_that_stay_long_become_usual() -> None:
    long = {number: {"seconds": {"total": 60.0}} for number in range(60, 121)}
    (fired, over) = events(lines(120, long))
    assert fired == (60, "duration", "", "firing")
    assert over[1:] == ("duration", "", "resolved") and over[0] <= 60 + 26


def test_in_a_simulated_world_its_own_clock_counts() -> None:
    clock = {number: {"simulated_seconds": 100.0 * number, "seconds": {"total": 0.1}} for number in range(61)}
    late = {number: {"simulated_seconds": 100.0 * number + 250, "seconds": {"total": 0.1}} for number in range(40, 61)}
    assert events(lines(60, clock)) == []
    told = events(lines(60, {**clock, **late}))
    assert told == [(40, "duration", "", "firing"), (41, "duration", "", "resolved")]


def test_a_loss_that_is_worse_than_usual_but_better_than_at_first_is_no_explosion() -> None:
    assert events(lines(400, {390: central(loss=2.2, accuracy=0.8)})) == []


def test_a_loss_that_stays_exploded_stays_an_alert() -> None:
    exploded = {number: central(loss=1e6, accuracy=1 - 0.9 * 0.995**number) for number in range(30, 100)}
    assert events(lines(120, exploded)) == [(30, "loss", "central", "firing"), (100, "loss", "central", "resolved")]


def test_checkpoints_that_nobody_has_tried_to_write_are_not_missed() -> None:
    every_ten = lines(60, {n: {"checkpoint": (n - 1) // 10 * 10} for n in range(1, 61)})
    assert events(every_ten) == []
    assert events(lines(60, {n: {"checkpoint": None} for n in range(61)})) == []


def test_so_many_checkpoints_in_a_row_are_missed() -> None:
    failing = lines(60, {n: {"checkpoint": 30, "failed_checkpoints": (n - 31) // 10} for n in range(41, 55)})
    assert events(failing) == [(41, "checkpoint", "", "firing"), (55, "checkpoint", "", "resolved")]
    assert [told[0] for told in events(failing, engine({"alert-checkpoint": 2}))] == [51, 55]


@pytest.mark.parametrize(
    ("kept", "failed", "most", "fires"),
    [(6, 0, 1, False), (5, 1, 1, True), (None, 7, 1, True), (5, 1, 2, False), (4, 2, 2, True), (5, 1, 0, False)],
)
def test_the_checkpoint_of_the_last_round_shows_at_the_end(
    kept: int | None, failed: int, most: int, fires: bool
) -> None:
    watching = engine({"alert-checkpoint": most})
    for number in range(7):
        assert watching.round(record(number).to_json()) == []
    found = [told(event) for event in watching.end(kept, failed)]
    assert found == ([(6, "checkpoint", "", "firing")] if fires else [])


def test_a_checkpoint_at_the_end_makes_up_for_those_before() -> None:
    watching, fault = engine(), {6: {"checkpoint": 3, "failed_checkpoints": 2}}
    assert [event.state for line in lines(6, fault) for event in watching.round(line)] == ["firing"]
    assert [told(event) for event in watching.end(6, 0)] == [(6, "checkpoint", "", "resolved")]


def test_the_end_of_a_run_changes_no_other_alert() -> None:
    watching = engine()
    faults = {40: {**LOST_FOUR, **central(loss=NAN, accuracy=0.2), "diversity": groups(europe=5, asia=0)}}
    assert len(events(lines(40, faults), watching)) == 3
    (used_up,) = watching.fire(USED_UP, "no round is left")
    assert watching.end(40, 0) == [] and used_up in watching.active


def test_a_run_that_ends_before_its_first_round_raises_none() -> None:
    assert engine().end(None, 0) == []


def test_a_small_group_is_absent_when_all_of_it_is_asked_in_vain() -> None:
    def one_node(counted: int) -> Fault:
        told = groups(europe=5, asia=counted)
        told["regions"]["groups"]["asia"].update(clients=1, selected=1)
        return {"diversity": told}

    faults = {number: one_node(number != 30) for number in range(1, 61)}
    assert events(lines(60, faults)) == [
        (30, "absent", "regions/asia", "firing"),
        (31, "absent", "regions/asia", "resolved"),
    ]


def test_a_group_that_is_never_asked_is_absent_when_chance_does_not_explain_it() -> None:
    """Half of all clients, ten updates a round: not one of fourteen expected has one chance in a million."""
    told = groups(europe=10, asia=0)
    told["regions"]["groups"]["asia"].update(selected=0)
    faults = {number: {"diversity": told} for number in range(30, 50)}
    assert events(lines(60, faults)) == [
        (32, "absent", "regions/asia", "firing"),
        (50, "absent", "regions/asia", "resolved"),
    ]


def test_a_group_that_others_have_outgrown_is_not_gone() -> None:
    """Only the largest fifty are told of."""

    def crowd(*names: str) -> Fault:
        told = {name: {"clients": 5, "selected": 5, "counted": 5} for name in names}
        return {"diversity": {"regions": {"effective": 1.0, "groups": told}}}

    many = [f"place {number:02d}" for number in range(51)]
    before, after = crowd(*many[:50]), crowd(*many[1:])
    assert events(lines(40, {number: before if number < 30 else after for number in range(1, 41)})) == []
    assert len(events(lines(40, {number: crowd(*many[number > 29 :][:49]) for number in range(1, 41)}))) == 1


def test_several_faults_at_once_are_told_apart() -> None:
    told = events(lines(40, {30: {**LOST_FOUR, "diversity": groups(europe=0, asia=0), "failed_checkpoints": 3}}))
    assert {(alert, subject) for number, alert, subject, state in told if number == 30} == {
        ("participation", ""),
        ("absent", "regions/europe"),
        ("absent", "regions/asia"),
        ("checkpoint", ""),
    }
    assert len(told) == 8


def test_lines_read_back_from_the_file_are_judged_as_those_that_were_written(tmp_path: Path) -> None:
    from app.line_file import LineFile

    told = lines(40, {30: central(loss=INF, accuracy=NAN), 33: {"train": {"loss": NAN}}})
    file = LineFile(tmp_path / "metrics.jsonl")
    for line in told:
        file.append(line)
    file.close()
    read = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert events(read) == events(told) != []


def test_a_run_that_goes_on_knows_its_alerts_and_what_is_usual() -> None:
    faults = {30: LOST_FOUR, 35: {"seconds": {"total": 60.0}}}
    whole = engine()
    told = [event for line in lines(60, faults) for event in whole.round(line)]
    first, second = engine(), engine()
    before = [event for line in lines(30, faults) for event in first.round(line)]
    second.go_on(lines(30, faults), before)
    assert [event.alert for event in second.active] == ["participation"]
    after = [event for line in lines(60, faults)[31:] for event in second.round(line)]
    assert before + after == told


@pytest.mark.parametrize(
    ("value", "level"), [(0.31, Level.BAD), (0.3, Level.BETWEEN), (0.27, Level.GOOD), (NAN, Level.BAD)]
)
def test_levels_have_a_margin(value: float, level: Level) -> None:
    assert above(value, 0.3) is level


@given(st.lists(st.sampled_from([fault for _, _, fault in FAULTS] + [{}]), min_size=1, max_size=40))
def test_whatever_happens_alerts_begin_and_end_in_turns(faults: list[Fault]) -> None:
    on: set[tuple[str, str]] = set()
    for _, alert, subject, state in events(lines(60, dict(enumerate(faults, start=10)))):
        assert ((alert, subject) in on) == (state == "resolved")
        on ^= {(alert, subject)}


def test_health_grows_no_further_than_its_window() -> None:
    health = Health()
    for line in lines(300):
        health = health.after(line)
    assert health.seconds is not None and len(health.seconds.earlier) == 50
    assert all(len(course.earlier) <= 50 for course in health.losses.values())


# Certificates.


def write_certificate(path: Path, expires: datetime) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(expires - timedelta(days=400)).not_valid_after(expires)
    path.write_bytes(path.read_bytes() if path.exists() else b"")
    with path.open("ab") as file:
        file.write(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return path


def test_a_certificate_that_expires_soon_fires_and_a_renewed_one_clears(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    file = write_certificate(tmp_path / "server.pem", now + timedelta(days=13))
    watching = engine(days_left=lambda: days_left([file], now))
    assert events(lines(3), watching) == [(0, "certificate", str(file), "firing")]
    file.unlink()
    write_certificate(file, now + timedelta(days=365))
    assert [event.state for event in watching.round(record(4).to_json())] == ["resolved"]


@pytest.mark.parametrize(("days", "fires"), [(-1, True), (0.5, True), (13.9, True), (14.1, False), (400, False)])
def test_days_are_counted_to_the_threshold(tmp_path: Path, days: float, fires: bool) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    file = write_certificate(tmp_path / "server.pem", now + timedelta(days=days))
    assert bool(events(lines(2), engine(days_left=lambda: days_left([file], now)))) is fires


def test_the_first_of_a_chain_to_expire_counts(tmp_path: Path) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    file = write_certificate(tmp_path / "chain.pem", now + timedelta(days=300))
    write_certificate(file, now + timedelta(days=3))
    assert days_left([file], now) == {str(file): pytest.approx(3.0)}


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_certificate_that_cannot_be_read_is_an_alert_too(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "server.pem"
    if content is not None:
        file.write_bytes(content)
    (event,) = engine(days_left=lambda: days_left([file])).round(record(0).to_json())
    assert event.alert == "certificate" and "cannot be watched" in event.text


def test_what_is_told_are_sentences() -> None:
    watching = engine(days_left=lambda: {"server.pem": 3.0})
    faults: Mapping[int, Fault] = {number: fault for number, (_, _, fault) in enumerate(FAULTS, start=20)}
    found = [event.text for line in lines(60, faults) for event in watching.round(line)]
    assert all(
        text.endswith(".") and not text[0].islower() and "nan" not in text.replace("loss is nan", "") for text in found
    )
    assert "60.0 % of 10 selected clients sent an update; it should be 70.0 % or more." in found
    assert "Of 10 selected clients 30.0 % were rejected (1 error, 2 not-finite); it should be 20.0 % at most." in found
    assert "The round took 2.00 s, where 0.20 s are usual." in found
    assert "The certificate server.pem expires in 3.0 days." in found


def test_the_defaults_are_those_that_were_asked_for() -> None:
    config = RunConfig()
    assert (config.alert_participation, config.alert_stagnation_rounds, config.alert_budget) == (0.7, 20, 0.8)
    assert (config.alert_duration, config.alert_certificate_days) == (3.0, 14)
