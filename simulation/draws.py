"""Random numbers for many clients at once, each derived from (run seed, client, purpose, number) and from nothing else.

Who is online has to be known of the whole population, 100,000 clients, in every round. A NumPy generator for each, as
`strategies.seeding` makes them, would take seconds; here it is a few operations on arrays. A client's key is a keyed
BLAKE2b hash of its id; a number is the key, mixed with a hash of what it is for, through the finalizer of SplitMix64
(Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014, section 3.3; constants of Stafford's
variant 13). It does not depend on which other clients there are, nor on what was asked before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from strategies.seeding import child_seed

Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

BYTES = 8


@dataclass(frozen=True, eq=False)
class Crowd:
    """Some clients and their keys, in one order."""

    ids: Sequence[str]
    keys: Keys

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Draws:
    """All that is drawn in the world of one run."""

    seed: int

    @cached_property
    def _secret(self) -> bytes:
        return child_seed(self.seed, 0, "", "world").to_bytes(BYTES, "big")

    def crowd(self, ids: Sequence[str]) -> Crowd:
        """Return these clients with their keys (about 1 µs each)."""
        digests = b"".join(
            hashlib.blake2b(client.encode(errors="replace"), digest_size=BYTES, key=self._secret).digest()
            for client in ids
        )
        return Crowd(ids, np.frombuffer(digests, dtype="<u8").astype(np.uint64))


def uniforms(keys: Keys, purpose: str, number: int = 0) -> Floats:
    """Return a number in (0, 1) for each key, uniform, the same for the same key, purpose and number."""
    stream = hashlib.blake2b(f"{number} {purpose}".encode(), digest_size=BYTES).digest()
    mixed = _finalized(keys ^ np.uint64(int.from_bytes(stream, "big")))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _finalized(values: Keys) -> Keys:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
