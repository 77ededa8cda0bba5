"""The folder of checkpoints: the newest that can be read counts."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.checkpoints import Checkpoints
from app.errors import UserError
from strategies.errors import StrategyError
from strategies.snapshot import Snapshot
from tests.app.snapshots import LEDGER, files, same, state, written


def newest_file(checkpoints: Checkpoints) -> Path:
    return max(checkpoints.folder.glob("*.checkpoint"))


def test_the_newest_few_stay_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 12)
    assert files(checkpoints) == ["0000009.checkpoint", "0000010.checkpoint", "0000011.checkpoint"]
    assert same(checkpoints.newest(), state(11))
    (tmp_path / "other").mkdir()
    assert files(written(tmp_path / "other", 4, kept=1)) == ["0000003.checkpoint"]


def test_where_nothing_was_written_there_is_nothing(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.newest() is None and checkpoints.begun() is None
    checkpoints.tidy()
    assert not checkpoints.folder.exists()


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 1)
    checkpoints.begin(1, LEDGER)
    assert stat.S_IMODE(checkpoints.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in checkpoints.folder.iterdir()} == {0o600}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def unreadable(file: Path) -> None:
    file.unlink()
    file.mkdir()  # as root may read any file


DAMAGES = (cut, flip, empty)


@pytest.mark.parametrize("damage", (*DAMAGES, unreadable))
def test_where_the_newest_is_damaged_the_one_before_counts(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = written(tmp_path, 5)
    damage(newest_file(checkpoints))
    assert same(checkpoints.newest(), state(3))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "0000004.checkpoint cannot be used" in caplog.text


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_does_not_outlive_its_successor(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    checkpoints = written(tmp_path, 6)
    for number in (4, 5):
        damage(checkpoints.folder / f"000000{number}.checkpoint")
    assert same(checkpoints.newest(), state(3))
    checkpoints.write(state(4))
    assert files(checkpoints) == ["0000003.checkpoint", "0000004.checkpoint"]


def test_where_none_can_be_read_the_run_does_not_begin_anew_unasked(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 3)
    for file in checkpoints.folder.iterdir():
        empty(file)
    with pytest.raises(UserError, match=r"no checkpoint can be read; .*0000000.checkpoint cannot be used: its 0 bytes"):
        checkpoints.newest()


def test_one_with_other_groups_is_of_another_version(tmp_path: Path) -> None:
    content = state(1)
    with pytest.raises(StrategyError, match="another version of this program, as tree shows"):
        Snapshot.of(content.facts(), {**content.groups(), "tree": {}})
    with pytest.raises(StrategyError, match="another version of this program, as bans, ledger shows"):
        Snapshot.of(content.facts(), {k: v for k, v in content.groups().items() if k not in ("ledger", "bans")})
    with pytest.raises(StrategyError, match="another version of this program, as clock shows"):
        Snapshot.of({k: v for k, v in content.facts().items() if k != "clock"}, content.groups())


def test_what_a_killed_process_left_half_written_is_not_read_and_goes(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 2)
    (checkpoints.folder / ".0000002.abc.tmp.checkpoint").write_bytes(b"half")
    assert same(checkpoints.newest(), state(1))
    checkpoints.tidy()
    assert files(checkpoints) == ["0000000.checkpoint", "0000001.checkpoint"]


def test_the_ledger_of_a_round_that_was_begun_comes_back(tmp_path: Path) -> None:
    checkpoints = written(tmp_path, 1)
    for number in (1, 2):
        checkpoints.begin(number, {**LEDGER, "n": np.array(number)})
    found = checkpoints.begun()
    assert found is not None and (found.round, int(found.ledger["n"])) == (2, 2)
    assert np.array_equal(found.ledger["privacy-cost"], LEDGER["privacy-cost"])


@pytest.mark.parametrize("damage", (*DAMAGES, unreadable))
def test_a_ledger_that_cannot_be_read_is_never_taken_for_an_empty_one(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    checkpoints = written(tmp_path, 1)
    checkpoints.begin(1, LEDGER)
    damage(checkpoints.folder / "begun")
    with pytest.raises(UserError, match="count the budget of this one as spent"):
        checkpoints.begun()
