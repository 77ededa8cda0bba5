"""The model sent as what has changed since the client last had it: the server's half. The nodes' is in `references`.

Tang, Yu, Lian, Zhang, Liu: "DoubleSqueeze: Parallel Stochastic Gradient Descent with Double-pass Error-Compensated
Compression", 2019, section 3: what the server sends is compressed with error feedback. Here it is what the model w_t
lacks that clients had last,

    d_t = Q(w_t - ref_(t-1)),    ref_t = ref_(t-1) + a_t d_t,    a_t = <w_t - ref_(t-1), d_t> / <d_t, d_t>,

so that all that was left out before is in the next difference, and errors do not add up. Every client trains from the
very same ref_t, whatever it was sent; the server's own w_t stays exact, and ref_1 is w_1. What differs from the paper:
no model is sent but to a client that has none; and a_t, which leaves the least of the difference: whatever the codec
does, ||w_t - ref_t|| <= ||w_t - ref_(t-1)||, where with few bits what rounding adds would grow from round to round.

A message takes a client from the version that it had when its update last counted to the present one, by all
differences in between; where these are no longer kept, as they would weigh as much as the model, or where its last
update did not count, so that nobody knows what its node has, it gets the model. That a client evaluated does not tell:
how often that is done must not change how long training takes in a simulated world. The server keeps, and a checkpoint
holds, one model and differences that weigh less than another. All of this is made of models that are released anyway,
so that it costs no privacy.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from flwr.app import ArrayRecord, ConfigRecordValues

from strategies import wire
from strategies.compression import payload
from strategies.compression.codec import Codec
from strategies.compression.downlink import MODEL, PREFIX, Broadcast, described
from strategies.layout import ModelLayout
from strategies.seeding import child_seed
from strategies.updates import AnyArray, FloatVector, State

VERSION, BASE, OLDEST, DIGEST = (PREFIX + name for name in ("version", "base", "oldest", "digest"))
SEEDS, SCALES = (PREFIX + name for name in ("seeds", "scales"))  # of each difference in a message
MOST_KEPT = 16  # differences: with one model more a node keeps all that they are taken to
_DIFFERENCE, _SCALE = "difference/", "scale/"


@dataclass(frozen=True)
class Difference:
    """What leads from one version to the next: a payload, uint8 [bytes], and what to multiply it by."""

    written: AnyArray
    scale: float


@dataclass(frozen=True, eq=False)
class Chain:
    """The model that clients have, float32 [size], by what they came to it, and who has which version.

    ``differences`` stand under the version that each leads on from, in order; the last leads to ``version``.
    """

    version: int
    reference: FloatVector
    differences: Mapping[int, Difference] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, state: State) -> Chain:
        """Return what `state` was called on."""
        versions = [int(name.removeprefix(_DIFFERENCE)) for name in state if name.startswith(_DIFFERENCE)]
        differences = {
            version: Difference(state[f"{_DIFFERENCE}{version}"], float(state[f"{_SCALE}{version}"]))
            for version in sorted(versions)
        }
        clients = [str(client) for client in state["clients"]]
        held = dict(zip(clients, state["held"].tolist(), strict=True))
        return cls(int(state["version"]), state["reference"].astype(np.float32, copy=False), differences, held)

    def state(self) -> State:
        """Return all of it as arrays, so that a checkpoint can hold it."""
        clients = sorted(self.held)
        return {
            "version": np.array(self.version, np.int64),
            "reference": self.reference,
            "clients": np.array(clients, np.str_),
            "held": np.array([self.held[client] for client in clients], np.int64),
            **{f"{_DIFFERENCE}{version}": one.written for version, one in self.differences.items()},
            **{f"{_SCALE}{version}": np.array(one.scale, np.float32) for version, one in self.differences.items()},
        }

    def moved(self, codec: Codec, weights: FloatVector, version: int, seed: int) -> Chain:
        """Return the chain with a difference more, which leads towards these weights; itself where it is there."""
        if version == self.version:
            return self
        lacking, own = weights - self.reference, seed_of(seed, self.version)
        written = codec.encode(lacking, own, own)
        decoded = codec.decode(written, len(weights), own)
        difference = Difference(written, _scale(lacking, decoded))
        reference = added(self.reference, decoded, difference.scale)
        if not np.isfinite(reference).all():  # they are further apart than a codec can write
            return Chain(version, weights)
        differences = _kept({**self.differences, self.version: difference}, weights.nbytes)
        held = {client: held for client, held in self.held.items() if held in differences}
        return Chain(version, reference, differences, held)

    def heard(self, asked: Collection[str], counted: Collection[str]) -> Chain:
        """Return the chain once it is known whose updates count, of those who were sent the present version."""
        gone = set(asked)
        held = {client: held for client, held in self.held.items() if client not in gone}
        return replace(self, held={**held, **dict.fromkeys(counted, self.version)})

    def base(self, clients: Collection[str]) -> int:
        """Return the oldest version that these clients have, 0 where one of them has none."""
        return min(self.held.get(client, 0) for client in clients)

    def since(self, base: int) -> dict[int, Difference]:
        """Return the differences that lead on from a version."""
        return {version: one for version, one in self.differences.items() if version >= base}


def seed_of(seed: int, base: int) -> int:
    """Return the seed of the difference that leads on from a version, in the run of this seed."""
    return child_seed(seed, base, "", "downlink-difference")


def added(reference: FloatVector, decoded: FloatVector, scale: float) -> FloatVector:
    """Return the next reference, the same to the bit on server and nodes; nobody can write into it."""
    following: FloatVector = reference + np.float32(scale) * decoded
    following.flags.writeable = False
    return following


def digest(reference: FloatVector) -> int:
    """Return the checksum (CRC-32) by which a node knows that its reference is the server's."""
    return zlib.crc32(np.ascontiguousarray(reference, "<f4").data)


def _scale(lacking: FloatVector, decoded: FloatVector) -> float:
    length = float((decoded * decoded).sum(dtype=np.float64))
    return float(np.float32((lacking * decoded).sum(dtype=np.float64) / length)) if length else 1.0


def _kept(differences: Mapping[int, Difference], most: int) -> dict[int, Difference]:
    """Return the newest differences, as many as weigh less than the model."""
    kept: dict[int, Difference] = {}
    for version in sorted(differences, reverse=True)[:MOST_KEPT]:
        most -= len(differences[version].written)
        if most <= 0:
            break
        kept[version] = differences[version]
    return dict(sorted(kept.items()))


@dataclass(frozen=True)
class Differing:
    """What is sent of a chain: to each client what its node lacks.

    ``kept`` is what nodes are told that keep it: under which name, and how far the server could go back.
    """

    codec: Codec
    chain: Chain
    start: wire.GlobalWeights
    seed: int
    kept: Mapping[str, ConfigRecordValues]
    _records: dict[int, ArrayRecord] = field(default_factory=dict)

    @classmethod
    def of(
        cls, codec: Codec, chain: Chain, layout: ModelLayout, seed: int, told: Mapping[str, ConfigRecordValues]
    ) -> Differing:
        """Return what is sent of a model of this layout, in the run of this seed, whose clients are ``told`` this."""
        arrays = layout.unflatten(chain.reference)
        kept = {wire.RUN: "", **{key: told[key] for key in (wire.RUN, wire.CHECKPOINTS) if key in told}}
        return cls(codec, chain, wire.GlobalWeights(layout, arrays, layout.flatten(arrays)), seed, kept)

    def to(self, clients: Sequence[str]) -> Broadcast:
        """Return what is sent to these clients in one message."""
        base = self.chain.base(clients)
        settings: dict[str, ConfigRecordValues] = {
            **described(self.codec, self.start.layout),
            **self._leading(base),
            **self.kept,
            wire.BYTES_DOWN: [self._bytes(self.chain.base([client])) for client in clients],
        }
        return Broadcast(self._record(base), self.start, settings)

    def _leading(self, base: int) -> dict[str, ConfigRecordValues]:
        differences = self.chain.since(base) if base else {}
        return {
            VERSION: self.chain.version,
            BASE: base,
            OLDEST: min(self.chain.differences, default=self.chain.version),
            DIGEST: self._digest,
            SEEDS: [seed_of(self.seed, version) for version in differences],
            SCALES: [one.scale for one in differences.values()],
        }

    @cached_property
    def _digest(self) -> int:
        return digest(self.chain.reference)

    def _record(self, base: int) -> ArrayRecord:
        """Return what leads on from a version, or the model for 0: the same object for all who have that version."""
        if base not in self._records:
            self._records[base] = self._leading_on(base) if base else wire.array_record({MODEL: self.chain.reference})
        return self._records[base]

    def _leading_on(self, base: int) -> ArrayRecord:
        differences = self.chain.since(base)
        return wire.record_of({str(version): payload.written(one.written) for version, one in differences.items()})

    def _bytes(self, base: int) -> int:
        return sum(np.dtype(array.dtype).itemsize * math.prod(array.shape) for array in self._record(base).values())
