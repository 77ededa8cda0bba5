"""Shared memory between the driver and the workers on its machine: arrays cross it at the price of a copy.

Ray's own object store takes a millisecond and more to hand a megabyte from process to process, nearly all of it for
talking to its daemon, and a round of a small model is not much longer than that. Here a value is pickled (protocol 5)
with its large buffers laid into a block of memory that the other process has mapped already, and only the small rest
travels with the call. Blocks are anonymous files (`memfd_create(2)`): the system takes them back when the last process
that uses them ends, however it ends. Between machines, and on systems without them, Ray's store does the work.

What is unpickled here was pickled by the driver or by its own workers; what a client sends over a network never is.
"""

from __future__ import annotations

import mmap
import os
import pickle
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

LEAST_BUFFER = 4096  # bytes; what is smaller travels with the rest
ALIGNMENT = 64
BLOCK_UNIT = 1 << 20
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_serials = count(1)


@dataclass(frozen=True)
class Place:
    """Where a block can be mapped; ``serial`` tells blocks apart that had the same path one after the other."""

    path: str
    serial: int
    size: int


@dataclass(frozen=True)
class Parcel:
    """A pickled value, and the (offset, length) in bytes of its large buffers in a block; None where it has none."""

    head: bytes
    place: Place | None = None
    spans: tuple[tuple[int, int], ...] = ()


class Block:
    """Memory of at least so many bytes, which other processes of this user on this machine can map.

    It lives as long as one of them has it mapped, and can be mapped as long as this object lives.
    """

    def __init__(self, size: int) -> None:
        size = max(1, -(-size // BLOCK_UNIT)) * BLOCK_UNIT
        descriptor = os.memfd_create("fedkeras")
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        self.place = Place(f"/proc/{os.getpid()}/fd/{descriptor}", next(_serials), size)
        weakref.finalize(self, os.close, descriptor)

    def fill(self, head: bytes, buffers: Sequence[memoryview]) -> Parcel:
        """Lay a pickled value into the block, over whatever was there; it must fit."""
        spans, end = [], 0
        for buffer in buffers:
            self._memory[end : end + buffer.nbytes] = buffer
            spans.append((end, buffer.nbytes))
            end += _aligned(buffer)
        return Parcel(head, self.place, tuple(spans))


class Outbox:
    """Two blocks in turn: a parcel stays as it is until two more have been written.

    So a sender with at most two unread parcels never writes over one.
    """

    def __init__(self) -> None:
        self._blocks: list[Block | None] = [None, None]

    def write(self, value: Any) -> Parcel:
        """Lay a value into the next block, which is replaced by a larger one where it is too small."""
        head, buffers = dumped(value)
        if not buffers:
            return Parcel(head)
        block = _fitting(self._blocks.pop(0), buffers)
        self._blocks.append(block)
        return block.fill(head, buffers)


class Lent:
    """A parcel whose block stays as it is for as long as this object lives."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel


class Shelf:
    """Blocks for parcels that several processes read, each of them free for another once its `Lent` is gone."""

    def __init__(self) -> None:
        self._free: list[Block] = []

    def write(self, value: Any) -> Lent:
        """Lay a value into a free block, or a new one."""
        head, buffers = dumped(value)
        if not buffers:
            return Lent(Parcel(head))
        block = _fitting(self._free.pop() if self._free else None, buffers)
        lent = Lent(block.fill(head, buffers))
        weakref.finalize(lent, self._free.append, block)
        return lent


class Inbox:
    """Reads parcels of one sender; its last few blocks stay mapped."""

    KEPT = 8

    def __init__(self) -> None:
        self._mapped: dict[Place, mmap.mmap] = {}

    def read(self, parcel: Parcel) -> Any:
        """Return the value; its arrays are read-only copies, so that the block is free for the next."""
        if parcel.place is None:
            return loaded(parcel.head, [])
        memory = self._memory(parcel.place)
        return loaded(parcel.head, [memory[start : start + length] for start, length in parcel.spans])

    def _memory(self, place: Place) -> mmap.mmap:
        if place not in self._mapped:
            while len(self._mapped) >= self.KEPT:
                self._mapped.pop(next(iter(self._mapped))).close()
            self._mapped[place] = _map(place)
        return self._mapped[place]


def _map(place: Place) -> mmap.mmap:
    descriptor = os.open(place.path, os.O_RDONLY)
    try:
        return mmap.mmap(descriptor, place.size, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)


def available() -> bool:
    """Tell whether this system has such memory."""
    return hasattr(os, "memfd_create")


@dataclass(frozen=True)
class SentProbe:
    """What tells a process whether it sees the sender's blocks: the machine's name since it was started, and content.

    Containers on one machine share its name, but not the names of their processes.
    """

    machine: str
    parcel: Parcel
    content: bytes

    def seen(self, inbox: Inbox) -> bool:
        """Tell whether this process sees the block."""
        try:
            return self.machine == _machine() and bytes(inbox.read(self.parcel)) == self.content
        except (OSError, ValueError):
            return False


class Probe:
    """The sender's side of a probe, which has to live as long as ``sent`` may be read."""

    def __init__(self, shelf: Shelf) -> None:
        content = os.urandom(LEAST_BUFFER)
        self._lent = shelf.write(pickle.PickleBuffer(content))
        self.sent = SentProbe(_machine(), self._lent.parcel, content)


def _machine() -> str:
    return BOOT_ID.read_text()


def dumped(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value; the contiguous buffers of at least 4 KiB are kept apart, as views."""
    buffers: list[memoryview] = []

    def keep_apart(buffer: pickle.PickleBuffer) -> bool:
        with memoryview(buffer) as view:
            if view.nbytes < LEAST_BUFFER or not (view.c_contiguous or view.f_contiguous):
                return True
        buffers.append(buffer.raw())
        return False

    return pickle.dumps(value, protocol=5, buffer_callback=keep_apart), buffers


def loaded(head: bytes, buffers: Sequence[bytes]) -> Any:
    """Return what `dumped` took apart."""
    return pickle.loads(head, buffers=buffers)  # noqa: S301 - made by a process of this run, on this machine


def _fitting(block: Block | None, buffers: Sequence[memoryview]) -> Block:
    needed = sum(_aligned(buffer) for buffer in buffers)
    return block if block is not None and block.place.size >= needed else Block(needed)


def _aligned(buffer: memoryview) -> int:
    return -(-buffer.nbytes // ALIGNMENT) * ALIGNMENT
