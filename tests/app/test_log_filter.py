"""What is shown of a run's log: our lines, warnings and real failures; not the noise."""

from __future__ import annotations

import pytest

from app.log_filter import LogFilter
from tests.app import flower_logs


def shown(log: str) -> list[str]:
    reader = LogFilter()
    lines = [line for raw in log.splitlines() for line in reader.feed(raw)]
    return [*lines, *reader.close()]


def test_a_completed_run_shows_our_lines_only() -> None:
    assert shown(flower_logs.COMPLETED) == [
        "Run directory: /tmp/runs/20261121-090733-digits",
        "round 1/2 | central accuracy 61.0 % | 10/10 clients",
        "WARNING: 2 clients have no test part",
        "round 2/2 | central accuracy 72.5 % | 10/10 clients",
    ]


@pytest.mark.parametrize("log", [flower_logs.REFUSED], ids=["refused"])
def test_a_refusal_is_its_sentence_without_the_traceback(log: str) -> None:
    assert shown(log)[1:] == ["ERROR: Labels must be below 10."]


def test_a_chained_refusal_shows_neither_traceback() -> None:
    assert shown(flower_logs.CHAINED) == ["Run directory: /tmp/runs/20261121-090733-digits"]


def test_a_crash_shows_its_whole_traceback() -> None:
    lines = shown(flower_logs.CRASHED)[1:]
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "    raise failure" in lines


def test_a_traceback_that_breaks_off_is_shown() -> None:
    assert shown('Traceback (most recent call last):\n  File "a.py", line 1') == [
        "Traceback (most recent call last):",
        '  File "a.py", line 1',
    ]


def test_two_tracebacks_in_a_row_are_judged_one_by_one() -> None:
    log = "Traceback (most recent call last):\n  a\nValueError: first\nINFO next\n"
    log += "Traceback (most recent call last):\n  b\napp.errors.RunRefused: second\nINFO last"
    assert shown(log) == ["Traceback (most recent call last):", "  a", "ValueError: first", "next", "last"]


def test_the_run_id_and_the_directory_are_learnt() -> None:
    reader = LogFilter()
    for line in flower_logs.START.splitlines():
        reader.feed(line)
    assert reader.run_id == "42"
    assert reader.run_directory == "/tmp/runs/20261121-090733-digits"


def test_a_directory_with_capitals_keeps_them() -> None:
    reader = LogFilter()
    reader.feed("INFO Run directory: /Data/Runs/X")
    assert reader.run_directory == "/Data/Runs/X"


def test_errors_are_remembered() -> None:
    reader = LogFilter()
    reader.feed("ERROR Labels must be below 10.")
    assert reader.errors == ["Labels must be below 10."]


def test_flowers_error_box_becomes_one_line() -> None:
    assert shown(flower_logs.UNKNOWN_CONNECTION) == [
        "ERROR: An unexpected error occurred while reading the Flower configuration file (/home/user/config.toml)."
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("printed by the user's model", ["printed by the user's model"]),
        ("INFO Starting Flower is what our own line says", ["Starting Flower is what our own line says"]),
        ("INFO :      indented by    Flower's logger", ["indented by    Flower's logger"]),
        ("WARNING :   something new from Flower", ["WARNING: something new from Flower"]),
        ("ERROR :     An exception was raised", ["ERROR: An exception was raised"]),
        ("INFORMATION is no level", ["INFORMATION is no level"]),
        ("/a/b.py:12: RuntimeWarning: overflow", ["/a/b.py:12: RuntimeWarning: overflow"]),
        ("", []),
    ],
)
def test_single_lines(line: str, expected: list[str]) -> None:
    assert shown(line) == expected


def test_a_hidden_warning_takes_its_line_of_code_along_but_no_other() -> None:
    log = "/a/b.py:12: DeprecationWarning: old\n  return np.array(x)\n  indented print"
    assert shown(log) == ["  indented print"]


def test_a_deployment_starts_without_noise() -> None:
    assert shown("Start `flwr-serverapp` process\nINFO Starting Flower is ours\n") == ["Starting Flower is ours"]
