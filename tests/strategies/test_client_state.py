"""Generations of a client's state: what a round that did not count leaves, restarts, damage, and names as files."""

import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.client_state import ClientStates, file_name
from strategies.updates import State

FRESH: State = {"control": np.zeros(3, np.float32), "count": np.zeros((), np.int64)}


def states(folder: Path) -> ClientStates:
    return ClientStates(folder / "run")


def written(value: float) -> State:
    return {"control": np.full(3, value, np.float32), "count": np.array(7)}


def value_of(state: State) -> float:
    assert set(state) == {"control", "count"}
    return float(state["control"][0])


def generations(folder: Path, client: str = "a") -> list[int]:
    return sorted(int(path.stem) for path in (folder / "run" / file_name(client)).glob("*.npz"))


def test_what_counted_is_loaded_again_by_another_process(tmp_path: Path) -> None:
    states(tmp_path).save("a", 3, written(1.5))
    found = states(tmp_path).load("a", 3, 8, FRESH)
    assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
        "control": (np.dtype(np.float32), [1.5, 1.5, 1.5]),
        "count": (np.dtype(np.int64), 7),
    }


def test_a_client_that_never_counted_starts_anew_whatever_it_wrote(tmp_path: Path) -> None:
    kept = states(tmp_path)
    assert kept.load("a", 0, 1, FRESH) is FRESH
    kept.save("a", 1, written(1.0))  # and was rejected
    assert kept.load("a", 0, 2, FRESH) is FRESH
    assert generations(tmp_path) == []


def test_a_round_that_did_not_count_leaves_nothing(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.save("a", 1, written(1.0))
    for number in (2, 3, 4):  # rejected, skipped, lost
        assert value_of(kept.load("a", 1, number, FRESH)) == 1.0
        kept.save("a", number, written(10.0 * number))
    assert value_of(kept.load("a", 1, 5, FRESH)) == 1.0
    assert generations(tmp_path) == [1]


def test_the_same_round_asked_twice_starts_from_the_same_state(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.save("a", 1, written(1.0))
    for attempt in (2.0, 3.0):  # the node was killed after it wrote, and its client run again
        assert value_of(kept.load("a", 1, 2, FRESH)) == 1.0
        kept.save("a", 2, written(attempt))
    assert value_of(kept.load("a", 2, 3, FRESH)) == 3.0


def test_one_state_is_kept_for_each_checkpoint_and_one_beside_the_last(tmp_path: Path) -> None:
    kept = states(tmp_path)
    for number in range(1, 13):
        kept.load("a", number - 1, number, FRESH, [0, 4, 8])
        kept.save("a", number, written(number))
    assert generations(tmp_path) == [4, 8, 11, 12]  # 12 may count yet
    assert value_of(kept.load("a", 4, 5, FRESH, [0, 4])) == 4.0  # resumed after round 4: what is later has never been
    kept.save("a", 5, written(50.0))
    assert value_of(kept.load("a", 5, 14, FRESH, [4])) == 50.0
    assert generations(tmp_path) == [4, 5]


def test_a_checkpoint_between_two_turns_of_a_client_needs_the_earlier(tmp_path: Path) -> None:
    kept = states(tmp_path)
    for committed, number in ((0, 2), (2, 5), (5, 9)):
        kept.load("a", committed, number, FRESH, [4, 7])
        kept.save("a", number, written(number))
    kept.load("a", 9, 10, FRESH, [4, 7])
    assert generations(tmp_path) == [2, 5, 9]


def test_a_request_that_another_has_overtaken_deletes_nothing_of_it(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.save("a", 1, written(1.0))
    kept.load("a", 1, 3, FRESH)
    kept.save("a", 3, written(3.0))
    kept.load("a", 1, 2, FRESH)  # of the round before, which the node gets to only now
    kept.save("a", 2, written(2.0))
    assert value_of(kept.load("a", 3, 4, FRESH)) == 3.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_whatever_happens_the_state_is_that_of_the_last_round_that_counted(rounds: list[tuple[bool, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        kept, committed = ClientStates(Path(folder), durable=False), 0
        for number, (answers, counts) in enumerate(rounds, start=1):
            found = kept.load("a", committed, number, FRESH)
            assert value_of(found) == committed  # each round's state is its own number
            if answers:
                kept.save("a", number, written(number))
            if answers and counts:
                committed = number


@pytest.mark.parametrize("durable", [True, False])
def test_files_are_whole_and_nobody_elses(tmp_path: Path, durable: bool) -> None:
    old = os.umask(0)
    try:
        ClientStates(tmp_path / "run", durable).save("a", 1, written(1.0))
    finally:
        os.umask(old)
    own = tmp_path / "run" / file_name("a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (own.parent, own, own / "1.npz")}
    assert modes == {"run": 0o700, own.name: 0o700, "1.npz": 0o600}
    assert [path.name for path in own.iterdir()] == ["1.npz"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = states(tmp_path)
    kept.save("a", 1, written(1.0))

    def full(*arguments: object, **arrays: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        kept.save("a", 1, written(2.0))
    assert value_of(kept.load("a", 1, 2, FRESH)) == 1.0
    assert [path.name for path in (tmp_path / "run" / file_name("a")).iterdir()] == ["1.npz"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = states(tmp_path)
    kept.save("a", 1, written(1.0))
    left = tmp_path / "run" / file_name("a") / ".2.0123456789ab.tmp"
    left.write_bytes(b"half a file")
    kept.load("a", 1, 2, FRESH)
    assert left.exists()  # another process may be writing it now
    os.utime(left, (0, 0))
    kept.load("a", 1, 2, FRESH)
    assert not left.exists()


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    middle = data.index(b"\x93NUMPY") + 130  # in the numbers themselves
    content = {
        "cut off": data[: len(data) // 2],
        "empty": b"",
        "a flipped bit": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "no zip": b"control",
    }
    path.write_bytes(content[how]) if how in content else path.unlink()


@pytest.mark.parametrize("how", ["cut off", "empty", "a flipped bit", "no zip", "missing"])
def test_a_file_that_cannot_be_read_is_a_warning_and_the_client_starts_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    kept = states(tmp_path)
    kept.save("a", 4, written(1.0))
    damage(tmp_path / "run" / file_name("a") / "4.npz", how)
    with caplog.at_level(logging.WARNING):
        assert kept.load("a", 4, 5, FRESH) is FRESH
    assert "Client a starts anew, as its state of round 4 cannot be used" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        {"control": np.zeros(4, np.float32), "count": np.array(0)},
        {"control": np.zeros(3, np.float64), "count": np.array(0)},
        {"control": np.zeros(3, np.float32)},
        {**FRESH, "more": np.zeros(1)},
    ],
)
def test_the_state_of_another_model_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, other: State) -> None:
    kept = states(tmp_path)
    kept.save("a", 1, other)
    assert kept.load("a", 1, 2, FRESH) is FRESH
    assert "it is of another model" in caplog.text


def test_nothing_is_unpickled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = states(tmp_path)
    objects = np.array([print], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle"):
        kept.save("a", 1, {"control": objects})
    np.savez(tmp_path / "run" / file_name("a") / "1.npz", control=objects)
    assert kept.load("a", 1, 2, FRESH) is FRESH
    assert "allow_pickle" in caplog.text


HOSTILE = ["..", ".", "", "/etc/passwd", "../../x", "a/b", "a\\b", "A", "a", "ä", "\ud800", "x" * 5000, "nul\0", "CON"]


def test_any_client_id_has_a_folder_of_its_own_inside(tmp_path: Path) -> None:
    kept = states(tmp_path)
    for number, client in enumerate(HOSTILE):
        kept.save(client, 1, written(number))
    for number, client in enumerate(HOSTILE):
        assert value_of(kept.load(client, 1, 2, FRESH)) == number
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert len({path.name.lower() for path in (tmp_path / "run").iterdir()}) == len(HOSTILE)


@given(st.text(), st.text())
def test_names_of_files_are_plain_and_of_one_id(left: str, right: str) -> None:
    assert (file_name(left) == file_name(right)) == (left == right)
    assert file_name(left).isascii() and len(file_name(left)) <= 57 and not set("/\\.\0") & set(file_name(left))


def test_a_readable_part_of_the_id_stays() -> None:
    assert file_name("hospital 2").startswith("hospital-2-")


# Of those who build on what did not count.


def last(folder: Path, committed: int, number: int, checkpoints: Sequence[int] = ()) -> tuple[float, bool]:
    state, counted = states(folder).last("a", committed, number, FRESH, checkpoints)
    return value_of(state), counted


def test_the_last_state_is_told_with_whether_it_counted(tmp_path: Path) -> None:
    assert last(tmp_path, 0, 1) == (0.0, True)  # nothing has been written
    kept = states(tmp_path)
    kept.save("a", 1, written(1.0))
    assert last(tmp_path, 0, 2) == (1.0, False)
    assert last(tmp_path, 1, 2) == (1.0, True)
    kept.save("a", 2, written(2.0))
    assert last(tmp_path, 1, 5, [1]) == (2.0, False)
    assert last(tmp_path, 2, 5, [1]) == (2.0, True)
    assert last(tmp_path, 1, 2) == (1.0, True)  # of a server that does round 2 again


def test_of_states_that_are_built_upon_one_is_kept_for_each_checkpoint_too(tmp_path: Path) -> None:
    kept = states(tmp_path)
    for number in range(1, 13):
        kept.last("a", 0, number, FRESH, [0, 4, 8])
        kept.save("a", number, written(number))
    assert generations(tmp_path) == [4, 8, 11, 12]
    assert last(tmp_path, 3, 5, [0, 4]) == (4.0, False)  # of a server that went back, and of which round 3 counted last


def test_what_is_older_than_the_last_that_counted_is_never_built_upon_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = states(tmp_path)
    for number in (1, 2):
        kept.save("a", number, written(number))
    (tmp_path / "run" / file_name("a") / "2.npz").unlink()
    assert last(tmp_path, 2, 3) == (0.0, True)
    assert "Client a starts anew, as its state of round 2 is missing" in caplog.text


def test_where_the_last_state_is_damaged_the_one_before_it_will_do_since_the_last_that_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = states(tmp_path)
    for number in (1, 2, 3):
        kept.save("a", number, written(number))
    (tmp_path / "run" / file_name("a") / "3.npz").write_bytes(b"PK")
    assert last(tmp_path, 1, 4, [2]) == (2.0, False)
    assert last(tmp_path, 2, 4) == (2.0, True)
    assert last(tmp_path, 3, 4) == (0.0, True)
    assert "state of round 3 cannot be used" in caplog.text


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12))
def test_nothing_is_lost_and_nothing_taken_twice_whatever_counts(rounds: list[tuple[bool, bool]]) -> None:
    """Each round brings 1, of which a half is sent: what counted and what is kept are all that was brought."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        kept, committed, sent, brought = ClientStates(Path(folder), durable=False), 0, 0.0, 0.0
        fresh: State = {"if-counted": np.zeros(1), "if-lost": np.zeros(1)}
        for number, (answers, counts) in enumerate(rounds, start=1):
            if not answers:
                continue
            state, counted = kept.last("a", committed, number, fresh)
            total = state["if-counted" if counted else "if-lost"] + 1.0
            brought += 1.0
            kept.save("a", number, {"if-counted": total / 2, "if-lost": total})
            if counts:
                committed, sent = number, sent + float(total[0]) / 2
        state, counted = kept.last("a", committed, len(rounds) + 1, fresh)
        assert sent + float(state["if-counted" if counted else "if-lost"][0]) == brought


# Of servers that go back to a checkpoint.

TURNS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9)), max_size=20)
"""Whether the client is asked in a round, whether that counts, and to which checkpoint the server then goes back, as
many of which are kept; mostly there is none, so that it does not."""


@given(TURNS, st.integers(1, 5), st.integers(1, 3))
def test_a_server_that_goes_back_to_any_checkpoint_finds_all_that_it_was_told(
    turns: list[tuple[bool, bool, int]], every: int, most: int
) -> None:
    """Against a client that forgets nothing: each round's state is a number of its own, also when it is done again."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        kept = ClientStates(Path(folder), durable=False)
        checkpoints: dict[int, tuple[int, dict[int, float]]] = {0: (0, {})}
        number, committed, wrote = 0, 0, dict[int, float]()
        for drawn, (asked, counts, back) in enumerate(turns, start=1):
            number += 1
            if asked:
                listed = sorted(checkpoints)
                assert value_of(kept.load("a", committed, number, FRESH, listed)) == wrote.get(committed, 0.0)
                assert len(earlier(folder, number)) <= most + 1
                kept.save("a", number, written(drawn))
                wrote[number] = float(drawn)
                committed = number if counts else committed
            if number % every == 0:
                checkpoints[number] = committed, dict(wrote)
                checkpoints = dict(sorted(checkpoints.items())[-most:])
            if back < len(checkpoints):
                number = sorted(checkpoints)[back]
                committed, wrote = checkpoints[number][0], dict(checkpoints[number][1])
                checkpoints = {round: left for round, left in checkpoints.items() if round <= number}


def earlier(folder: str, number: int) -> list[Path]:
    """The states of rounds before this one: a server that went back has left later ones."""
    return [path for path in (Path(folder) / file_name("a")).glob("*.npz") if int(path.stem) < number]
