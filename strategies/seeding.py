"""Everything random is derived from (run seed, round, client, purpose): here is how, and nowhere else.

No generator is shared or global, so a value does not depend on what was drawn before it, on the engine, on the packing
of clients or on the order of replies, and round 7 can be repeated without rounds 1 to 6. The four are hashed with
SHA-256 (Python's own ``hash`` differs from process to process; concatenated integers could collide) and the digest
seeds a `numpy.random.SeedSequence`.

All who take part in a run know its seed. What they must not foresee is derived from a `secret_seed` in its place.
"""

from __future__ import annotations

import hashlib
import json
import secrets

import numpy as np


def seed_sequence(seed: int, round: int, client: str, purpose: str) -> np.random.SeedSequence:
    """Return the root of all randomness of one purpose ("cohort", "train", ...); ``client`` is "" for the server."""
    return np.random.SeedSequence(_digest(seed, round, client, purpose))


def generator(seed: int, round: int, client: str, purpose: str) -> np.random.Generator:
    """Return a generator of its own for this seed, round, client and purpose."""
    return np.random.default_rng(seed_sequence(seed, round, client, purpose))


def child_seed(seed: int, round: int, client: str, purpose: str) -> int:
    """Return an integer in [0, 2^63), to seed what is not NumPy (a ConfigRecord holds it as a signed 64-bit int)."""
    state = seed_sequence(seed, round, client, purpose).generate_state(1, np.uint64)
    return int(state[0]) >> 1


def secret_seed() -> int:
    """Return a seed that nobody can foresee or have again: 128 bits of the operating system's entropy."""
    return secrets.randbits(128)


def number_below(count: int, seed: int, round: int, client: str, purpose: str) -> int:
    """Return one of the numbers below ``count``, each as likely: faster than by a generator, for many clients."""
    return _digest(seed, round, client, purpose) % count


def _digest(seed: int, round: int, client: str, purpose: str) -> int:
    key = json.dumps([int(seed), int(round), client, purpose])
    return int.from_bytes(hashlib.sha256(key.encode()).digest(), "big")
