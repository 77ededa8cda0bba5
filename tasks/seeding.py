"""Random generators for dealing out data: derived from a seed and words, never from the order of calls."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, purpose: str, client: str = "") -> np.random.Generator:
    """Return the generator for a purpose, and a client if one is named; equal arguments give an equal generator."""
    digest = hashlib.sha256(f"{seed}\0{purpose}\0{client}".encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "big")))
