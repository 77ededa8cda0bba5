"""What a node keeps of the models that it was sent, as differences are taken to them: its half of `differences`.

A model is kept under the number of its version, ``<folder>/references/<version>.float32``, as the bytes of one flat
vector: all clients of a run begin from the same, so that a node has one file however many clients it hosts, and in a
simulation all workers of a machine share the files. What the server will not take a difference to any more is deleted,
also if it goes back to one of its checkpoints. For that each file begins with the oldest version that the server took
differences to when it sent this one, in eight bytes, little-endian: of a checkpoint nothing older than the newest
version up to it names will be asked for. The last model also stays in memory.

A request names the checksum of the model that is to come out. A file of that version which has another is of a server
that went on from an older checkpoint, or damaged: it is not used, and is written over. Where no model comes out that
has the checksum, the client is rejected for it, and gets the whole model next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context

from strategies import private_file, wire
from strategies.client_state import StatesOf
from strategies.compression.codec import Dense
from strategies.compression.differences import BASE, DIGEST, OLDEST, SCALES, SEEDS, VERSION, added, digest
from strategies.compression.downlink import DOWNLINK, MODEL, codec_of_request, layout_of, named, payload_of
from strategies.errors import LayoutError, StrategyError
from strategies.layout import ModelLayout
from strategies.updates import FloatVector

FOLDER, SUFFIX = "references", ".float32"
_OLDEST_BYTES = 8


@dataclass(frozen=True)
class References:
    """The models that a node has kept in one run, for the owner's eyes only; ``durable`` ones are synced."""

    folder: Path
    durable: bool

    def load(self, version: int, size: int) -> FloatVector | None:
        """Return a model as it was saved, float32 [size], read-only; None where there is none of that size."""
        try:
            data = self._file(version).read_bytes()
        except FileNotFoundError:
            return None
        if len(data) != _OLDEST_BYTES + 4 * size:
            return None
        return np.frombuffer(data, "<f4", offset=_OLDEST_BYTES).astype(np.float32, copy=False)

    def save(self, version: int, reference: FloatVector, oldest: int) -> None:
        """Keep a model, and the ``oldest`` that differences lead on from. Raises OSError, and leaves what was there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        parts = oldest.to_bytes(_OLDEST_BYTES, "little"), np.ascontiguousarray(reference, "<f4").data
        private_file.write(self._file(version), lambda file: file.writelines(parts), self.durable)

    def forget_before(self, oldest: int, checkpoints: Sequence[int] = ()) -> None:
        """Delete older models that no checkpoint needs either, and what processes left that were killed."""
        versions = [int(path.stem) for path in self.folder.glob(f"*{SUFFIX}") if path.stem.isdecimal()]
        needed = [self._needed(versions, round) for round in checkpoints]
        for version in versions:
            if version < oldest and not any(version in of_one for of_one in needed):
                self._file(version).unlink(missing_ok=True)
        private_file.delete_abandoned(self.folder)

    def _needed(self, versions: Sequence[int], checkpoint: int) -> range:
        """Return the versions that a server may take differences to that goes back to this checkpoint."""
        newest = max((version for version in versions if version <= checkpoint), default=0)
        return range(self._oldest(newest), checkpoint + 1)

    def _oldest(self, version: int) -> int:
        try:
            with self._file(version).open("rb") as file:
                return int.from_bytes(file.read(_OLDEST_BYTES), "little")
        except FileNotFoundError:  # no version is that old, or another process has deleted it, and those before it
            return version

    def _file(self, version: int) -> Path:
        return self.folder / f"{version}{SUFFIX}"


@dataclass(frozen=True, eq=False)
class InMemory:
    """The model that this process restored last, and whose it is."""

    folder: Path
    version: int
    digest: int
    reference: FloatVector
    record: ArrayRecord


_last: InMemory | None = None  # one for the process, as a round's messages and their clients share it


@dataclass(frozen=True)
class Reference:
    """The model that a request is about: what it becomes of, and what is known of it."""

    kept: References
    config: ConfigRecord
    version: int
    digest: int

    @classmethod
    def of(cls, config: ConfigRecord, context: Context, states: StatesOf) -> Reference:
        """Read the settings of a request."""
        place = states(context, wire.text(config, wire.RUN))
        version, checksum = (int(wire.number(config, key)) for key in (VERSION, DIGEST))
        return cls(References(place.folder / FOLDER, place.durable), config, version, checksum)

    def restored(self, sent: ArrayRecord) -> ArrayRecord:
        """Return the arrays of the model, of what was sent and what the node has; keep it for what comes next.

        Raises LayoutError ("no-reference") where the node does not have what that takes.
        """
        global _last
        if _last is None or (_last.folder, _last.version, _last.digest) != self._key:
            layout = layout_of(self.config)
            reference = self._kept(layout.size)
            if reference is None:
                reference = self._made(sent, layout)
                oldest = int(wire.number(self.config, OLDEST))
                self.kept.save(self.version, reference, oldest)
                self.kept.forget_before(oldest, wire.checkpoints_of(self.config))
            _last = InMemory(*self._key, reference, named(layout, reference))
        return _last.record

    @property
    def _key(self) -> tuple[Path, int, int]:
        return self.kept.folder, self.version, self.digest

    def _kept(self, size: int) -> FloatVector | None:
        """Return the model where another process of this node has restored it already, or this one before."""
        reference = self.kept.load(self.version, size)
        return reference if reference is not None and digest(reference) == self.digest else None

    def _made(self, sent: ArrayRecord, layout: ModelLayout) -> FloatVector:
        base = int(wire.number(self.config, BASE))
        if not base:
            reference = Dense().decode(payload_of(sent, MODEL), layout.size, 0)
        else:
            reference = self._moved(self._base(base, layout.size), sent)
        if digest(reference) != self.digest:
            raise LayoutError("no-reference", f"What this node has kept of round {base} is not what the server sent.")
        return reference

    def _base(self, version: int, size: int) -> FloatVector:
        if _last is not None and (_last.folder, _last.version) == (self.kept.folder, version):
            return _last.reference
        reference = self.kept.load(version, size)
        if reference is None:
            raise LayoutError(
                "no-reference", f"This node has not kept the model of round {version} that was to be changed."
            )
        return reference

    def _moved(self, reference: FloatVector, sent: ArrayRecord) -> FloatVector:
        codec, size = codec_of_request(self.config), len(reference)
        seeds, scales = wire.int_list(self.config, SEEDS), wire.float_list(self.config, SCALES)
        if not len(sent) == len(seeds) == len(scales):
            raise StrategyError(f"The request has {len(sent)} differences ('{DOWNLINK}'), but {len(seeds)} seeds.")
        for name, seed, scale in zip(sent, seeds, scales, strict=True):
            reference = added(reference, codec.decode(payload_of(sent, name), size, seed), scale)
        return reference
