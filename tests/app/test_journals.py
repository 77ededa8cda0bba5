"""When a run's state is kept: every so many rounds, at once or overlapped; what cannot be written ends no run."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import atomic
from app.checkpoints import Checkpoints
from app.journals import EveryFew, Overlapped
from strategies.errors import StrategyError
from strategies.snapshot import Snapshot
from tests.app.snapshots import LEDGER, files, same, state, written


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """As on a full disk: what is longer is written up to there, and then there is an error."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


JOURNALS = {"at once": lambda journal: journal, "overlapped": Overlapped}


@pytest.mark.parametrize("kind", JOURNALS)
def test_a_full_disk_ends_no_run_and_is_told_once(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    journal = JOURNALS[kind](EveryFew(checkpoints, 1))  # type: ignore[no-untyped-call]
    journal.finished(state(1))
    assert journal.saved() == 1
    with no_file_larger_than(5000):
        for number in (2, 3, 4):
            journal.finished(state(number, size=1000))
            assert journal.saved() == 1
    assert same(checkpoints.newest(), state(1))
    assert files(checkpoints) == ["0000001.checkpoint"]
    journal.finished(state(5, size=1000))
    journal.close()
    assert same(checkpoints.newest(), state(5, size=1000))
    assert [(record.levelname, record.getMessage().split(" (")[0]) for record in caplog.records] == [
        ("WARNING", "No checkpoint could be written after round 2"),
        ("INFO", "Checkpoints can be written again, from round 5 on"),
    ]
    assert "File too large" in caplog.text and "could be resumed after round 1 only" in caplog.text


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_an_error_at_any_call_leaves_what_there_was(
    tmp_path: Path, call: str, code: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = written(tmp_path, 2)
    journal = EveryFew(checkpoints, 1, saved=1)

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path if call == "replace" else os, call, fails)
        journal.finished(state(2))
    assert os.strerror(code) in caplog.text
    assert same(checkpoints.newest(), state(1))
    assert files(checkpoints) == ["0000000.checkpoint", "0000001.checkpoint"]


def test_a_round_whose_cost_cannot_be_written_down_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = written(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic, "write_parts", full)
    for every in (0, 5):
        for journal in (EveryFew(checkpoints, every), Overlapped(EveryFew(checkpoints, every))):
            with pytest.raises(StrategyError, match=r"Round 3 does not begin, as what it costs .* No space left"):
                journal.begun(3, LEDGER)


@pytest.mark.parametrize("kind", JOURNALS)
def test_every_few_rounds_and_at_the_end(tmp_path: Path, kind: str) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", kept=9)
    journal = JOURNALS[kind](EveryFew(checkpoints, 3))  # type: ignore[no-untyped-call]
    for number in range(9):
        journal.finished(state(number))
    assert journal.saved() == 6
    journal.close()
    assert files(checkpoints) == [f"000000{number}.checkpoint" for number in (0, 3, 6, 8)]


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_checkpoints_take_no_more_than_their_share_of_the_time_and_the_last_state_is_kept(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, spent, write = [0.0], list[float](), Checkpoints.write
    rng = np.random.default_rng(0)

    def slow(self: Checkpoints, state: Snapshot) -> None:
        write(self, state)
        spent.append(float(rng.uniform(0.01, 0.2)))
        now[0] += spent[-1]

    monkeypatch.setattr(Checkpoints, "write", slow)
    checkpoints = Checkpoints(tmp_path / "checkpoints", kept=1000)
    journal = Overlapped(EveryFew(checkpoints, 1), share, lambda: now[0])
    for number in range(200):
        now[0] += 0.1
        journal.finished(state(number))
        journal.saved()  # waits, so that the clock is nobody else's
        assert sum(spent[:-1]) <= share * now[0]
    assert share == 1 or sum(spent) > share * now[0] / 2  # nor much less
    journal.close()
    assert len(files(checkpoints)) == len(spent) and same(checkpoints.newest(), state(199))
    assert (len(spent) == 200) == (share == 1)


def test_without_checkpoints_none_are_written(tmp_path: Path) -> None:
    journal = EveryFew(Checkpoints(tmp_path / "checkpoints"), 0)
    journal.finished(state(0))
    journal.close()
    assert journal.saved() is None and list(tmp_path.iterdir()) == []


def test_without_checkpoints_the_ledger_is_written_all_the_same(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    EveryFew(checkpoints, 0).begun(2, LEDGER)
    found = checkpoints.begun()
    assert files(checkpoints) == ["begun"] and found is not None and found.round == 2


def test_a_checkpoint_waits_for_what_is_told_of_its_round_and_is_not_written_where_that_is_not(tmp_path: Path) -> None:
    checkpoints, told = Checkpoints(tmp_path / "checkpoints"), list[str]()

    def settle() -> None:
        told.append("settled" if not checkpoints.folder.exists() else "too late")
        raise OSError("the metrics are not on the disk")

    for journal in (EveryFew(checkpoints, 1, settle), Overlapped(EveryFew(checkpoints, 1, settle))):
        with pytest.raises(OSError, match="the metrics are not"):
            journal.finished(state(1))
            journal.saved()
        with pytest.raises(OSError, match="the metrics are not"):
            journal.close()
    assert set(told) == {"settled"}


class NotYet:
    """A pool whose thread gets no turn before somebody waits for it, as on a slow disk: the worst there is."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., None], *given: Any) -> NotYet:
        self._work = lambda: work(*given)
        return self

    def result(self) -> None:
        self._work()


@pytest.mark.parametrize("kind", JOURNALS)
@pytest.mark.parametrize("every", [1, 2, 3])
def test_of_rounds_that_are_over_no_more_are_done_again_than_lie_between_two_checkpoints(
    tmp_path: Path, kind: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every moment: while a round is trained, when it has been told of, and when it was handed over."""
    monkeypatch.setattr("app.journals.ThreadPoolExecutor", NotYet)
    rounds, repeated = range(7), list[int]()
    for last in range(3 * len(rounds)):
        checkpoints, told, moments = Checkpoints(tmp_path / f"{last}"), -1, iter(range(last))
        journal = JOURNALS[kind](EveryFew(checkpoints, every))  # type: ignore[no-untyped-call]
        with contextlib.suppress(StopIteration):
            for number in rounds:
                next(moments)
                journal.saved()
                told = number
                next(moments)
                journal.finished(state(number))
                next(moments)
        left = checkpoints.newest()
        repeated.append(told - (-1 if left is None else left.round))
    assert max(repeated) == every
