"""Shared memory between processes: what comes out is what went in, nothing unread is written over, nothing leaks."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from simulation import blocks
from simulation.blocks import Inbox, Outbox, Parcel, Probe, SentProbe, Shelf
from strategies import wire

REPOSITORY = Path(__file__).resolve().parents[2]
LARGE = np.arange(100_000, dtype=np.int64)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"a": [1, "b"]},
        LARGE,
        [LARGE, LARGE[:10], LARGE.astype(np.int32).reshape(100, 1000).T, np.zeros((0, 3))],
        LARGE[::2],
    ],
    ids=["nothing", "small", "large", "mixed", "strided"],
)
def test_a_value_comes_out_as_it_went_in(value: object) -> None:
    outbox, shelf = Outbox(), Shelf()
    lent = shelf.write(value)
    for parcel in (outbox.write(value), lent.parcel):
        np.testing.assert_equal(Inbox().read(parcel), value)


def test_a_record_of_weights_crosses_without_being_written_as_bytes() -> None:
    record = wire.array_record({"w": LARGE})
    shelf = Shelf()
    lent = shelf.write(RecordDict({"arrays": record, "config": ConfigRecord({"round": 3})}))
    assert len(lent.parcel.head) < 2000
    content = Inbox().read(lent.parcel)
    assert content["config"]["round"] == 3
    (read,) = wire.read_weights(content["arrays"]).arrays
    assert read.tobytes() == LARGE.tobytes() and not read.flags.writeable


def test_what_is_small_needs_no_block() -> None:
    parcel = Outbox().write({"few": np.arange(10)})
    assert parcel.place is None and parcel.spans == ()


def test_two_unread_parcels_stay_as_they_are_and_the_third_takes_the_first_ones_place() -> None:
    outbox, inbox = Outbox(), Inbox()
    first, second = outbox.write(LARGE), outbox.write(LARGE + 1)
    assert first.place != second.place
    np.testing.assert_array_equal(inbox.read(first), LARGE)
    np.testing.assert_array_equal(inbox.read(second), LARGE + 1)
    assert outbox.write(LARGE + 2).place == first.place


def test_what_was_read_does_not_change_when_its_block_is_used_again() -> None:
    outbox, inbox = Outbox(), Inbox()
    read = inbox.read(outbox.write(LARGE))
    for step in range(1, 4):
        outbox.write(LARGE + step)
    np.testing.assert_array_equal(read, LARGE)


def test_a_block_that_is_too_small_is_replaced_and_is_not_mistaken_for_the_old_one() -> None:
    outbox, inbox = Outbox(), Inbox()
    for size in (1_000, 10, 400_000, 5_000, 1_000_000, 800_000):
        value = np.arange(size)
        np.testing.assert_array_equal(inbox.read(outbox.write(value)), value)


def test_a_shelf_uses_a_block_again_once_nobody_holds_it() -> None:
    shelf = Shelf()
    first, second = shelf.write(LARGE), shelf.write(LARGE)
    places = {first.parcel.place, second.parcel.place}
    assert len(places) == 2
    del first
    assert shelf.write(LARGE).parcel.place in places - {second.parcel.place}


def test_neither_files_nor_maps_pile_up() -> None:
    before = open_files()
    for _ in range(50):
        outbox, inbox, shelf = Outbox(), Inbox(), Shelf()
        for size in (1_000, 200_000, 300_000):
            inbox.read(outbox.write(np.zeros(size)))
            inbox.read(shelf.write(np.zeros(size)).parcel)
    del outbox, inbox, shelf
    gc.collect()
    assert open_files() <= before + 2


READER = """
import pickle, sys
from simulation.blocks import Inbox
parcel = pickle.loads(bytes.fromhex(sys.argv[1]))
print(int(Inbox().read(parcel).sum()))
"""


def test_another_process_reads_a_block_as_long_as_its_maker_lives() -> None:
    lent = Shelf().write(LARGE)
    command = [sys.executable, "-c", READER, pickle.dumps(lent.parcel).hex()]
    read = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert int(read.stdout) == LARGE.sum()


def test_the_blocks_of_a_process_that_was_killed_are_gone() -> None:
    program = (
        "import os, pickle; import numpy as np; from simulation.blocks import Shelf; "
        "lent = Shelf().write(np.ones(10**5)); print(pickle.dumps(lent.parcel).hex(), flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    parcel: Parcel = pickle.loads(bytes.fromhex(killed.stdout))  # noqa: S301
    with pytest.raises(OSError):
        Inbox().read(parcel)


def test_a_probe_is_seen_here_but_not_from_another_machine_or_process_world() -> None:
    probe = Probe(Shelf())
    sent = probe.sent
    assert sent.seen(Inbox())
    assert not SentProbe("another boot", sent.parcel, sent.content).seen(Inbox())
    assert not SentProbe(sent.machine, sent.parcel, b"other").seen(Inbox())
    place = sent.parcel.place
    assert place is not None
    gone = blocks.Place("/proc/1/fd/99999", place.serial, place.size)
    assert not SentProbe(sent.machine, Parcel(sent.parcel.head, gone, sent.parcel.spans), sent.content).seen(Inbox())
    shorter = blocks.Place("/proc/self/exe", place.serial, 1 << 40)
    assert not SentProbe(sent.machine, Parcel(sent.parcel.head, shorter, sent.parcel.spans), sent.content).seen(Inbox())
