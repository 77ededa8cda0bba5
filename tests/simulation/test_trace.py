"""Traces: against a brute force over the lines, and one sentence for each thing that a file can have wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import UserError
from simulation.draws import Draws
from simulation.trace import Stretch, Trace, read_trace

DRAWS = Draws(1)
CLIENTS = ("a", "b", "c", "d")
moments = st.integers(0, 20).map(float)
stretch = st.tuples(st.sampled_from(CLIENTS[:3]), moments, st.integers(1, 6)).map(
    lambda drawn: (drawn[0], drawn[1], drawn[1] + drawn[2])
)
stretches = st.lists(stretch, min_size=0, max_size=12)


def is_online(lines: list[Stretch], client: str, now: float) -> bool:
    return any(who == client and start <= now < end for who, start, end in lines)


def leaving(lines: list[Stretch], client: str, now: float) -> float:
    """Walk on from stretch to stretch for as long as one holds the moment."""
    if not is_online(lines, client, now):
        return now
    while is_online(lines, client, now):
        now = max(end for who, start, end in lines if who == client and start <= now < end)
    return now


@given(stretches, st.permutations(CLIENTS), st.integers(0, 60).map(lambda half: half / 2))
def test_against_a_brute_force(lines: list[Stretch], asked: list[str], now: float) -> None:
    trace, crowd = Trace.of(lines, DRAWS), DRAWS.crowd(asked)
    flags = [is_online(lines, client, now) for client in asked]
    assert trace.online(crowd, now).tolist() == flags
    ends = trace.leaving(crowd, now)
    assert [end for end, flag in zip(ends, flags, strict=True) if flag] == [
        leaving(lines, client, now) for client, flag in zip(asked, flags, strict=True) if flag
    ]
    times = [now] if any(flags) else [start for _, start, _ in lines if start > now]
    assert trace.next_online(crowd, now) == min(times, default=None)


@given(stretches, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_does_not_matter(lines: list[Stretch], random: object) -> None:
    shuffled = list(lines)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Trace.of(lines, DRAWS), Trace.of(shuffled, DRAWS)
    for name in ("keys", "bounds", "starts", "ends"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()


def test_only_the_clients_that_are_asked_count() -> None:
    trace = Trace.of([("a", 5.0, 6.0), ("b", 1.0, 2.0)], DRAWS)
    assert trace.next_online(DRAWS.crowd(["a"]), 0.0) == 5.0
    assert trace.next_online(DRAWS.crowd(["x"]), 0.0) is None
    assert trace.knows(DRAWS.crowd(["x", "b"])) and not trace.knows(DRAWS.crowd(["x"]))
    assert trace.online(DRAWS.crowd([]), 1.0).tolist() == []


def test_a_file_is_read_with_or_without_heading_blank_lines_and_quotes(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text('client,from,to\na,0,10\n\n"b, the second",2.5,1e3\na,20,30\n')
    trace = read_trace(file, DRAWS)
    crowd = DRAWS.crowd(["a", "b, the second", "c"])
    assert trace.online(crowd, 3.0).tolist() == [True, True, False]
    assert trace.leaving(crowd, 25.0).tolist() == [30.0, 1000.0, -np.inf]
    file.write_text("a,0,10")
    assert read_trace(file, DRAWS).online(crowd, 0.0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("a,0,10\nb,5\n", 2, "b,5"),
        ("a,0,10,3\n", 1, "a,0,10,3"),
        ("client,from,to\na,zero,10\n", 2, "a,zero,10"),
        ("a,10,10\n", 1, "a,10,10"),
        ("a,-1,10\n", 1, "a,-1,10"),
        ("a,0,inf\n", 1, "a,0,inf"),
        ("a,nan,10\n", 1, "a,nan,10"),
        (",0,10\n", 1, ",0,10"),
        ("a,0,10\n\nclient,from,to\n", 3, "client,from,to"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, text: str, line: int, shown: str) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_trace(file, DRAWS)
    assert str(caught.value) == (
        f"Line {line} of '{file}' ('availability-trace') is '{shown}', but must be 'client,from,to' with seconds since "
        "the run's start, 0 <= from < to."
    )


def test_files_that_are_no_trace_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\): correct the path"):
        read_trace(tmp_path / "none.csv", DRAWS)
    file = tmp_path / "trace.csv"
    file.write_bytes(b"a,0,10\n\xff\xfe,1,2\n")
    with pytest.raises(UserError, match="is no CSV file in UTF-8"):
        read_trace(file, DRAWS)
    file.write_text('a,0,10\n"b,1,2\n')
    with pytest.raises(UserError, match="is no CSV file in UTF-8"):
        read_trace(file, DRAWS)
    file.write_text("client,from,to\n")
    with pytest.raises(UserError, match="has no lines"):
        read_trace(file, DRAWS)
