"""Draws of places in a list: uniform, independent, or by weight; nothing here knows of clients or rounds.

All use uniform numbers only, scaled here and not by `Generator.choice`, `binomial` or others, whose streams may differ
between versions of NumPy.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def draw(size: int, count: int, generator: np.random.Generator) -> list[int]:
    """Draw so many of the numbers below ``size``, each set equally likely, or all (0, or as many as there are); sorted.

    Takes O(count log count) steps on average. A number drawn before is rejected, which leaves every set as likely.
    """
    if count == 0 or count >= size:
        return list(range(size))
    drawn: set[int] = set()
    while len(drawn) < count:
        drawn.add(int(generator.random() * size))
    return sorted(drawn)


def draw_independently(size: int, rate: float, generator: np.random.Generator) -> list[int]:
    """Draw each of the numbers below ``size`` with probability ``rate``, independently of all others; sorted.

    Takes O(size * rate) steps on average: what lies between two that are drawn is geometrically distributed (Batagelj
    and Brandes, "Efficient generation of large random networks", 2005, section II), so that it is skipped at once.
    """
    if rate >= 1:
        return list(range(size))
    drawn: list[int] = []
    place, miss = -1, math.log1p(-rate)
    while rate > 0:
        place += 1 + int(math.log1p(-generator.random()) / miss)
        if place >= size:
            break
        drawn.append(place)
    return drawn


def draw_weighted(weights: npt.NDArray[np.float64], count: int, generator: np.random.Generator) -> list[int]:
    """Draw so many places one after the other, each with probability proportional to its weight among those left.

    Returns them sorted; all of them where count is 0 or as many as there are. Efraimidis and Spirakis, "Weighted random
    sampling with a reservoir", 2006, algorithm A (the same as Gumbel top-k): the smallest of -log(u_i) / w_i, which are
    the times at which exponential clocks of rate w_i first ring. Takes O(size) steps, in NumPy: every weight has to
    be looked at. A weight of 0 is drawn only where the others are too few.
    """
    size = len(weights)
    if count == 0 or count >= size:
        return list(range(size))
    rings = np.full(size, np.inf)
    np.divide(-np.log1p(-generator.random(size)), weights, out=rings, where=weights > 0)
    last = np.partition(rings, count - 1)[count - 1]
    first = np.flatnonzero(rings < last).tolist()
    ties = np.flatnonzero(rings == last).tolist()  # of several, as where weights are 0, the first places
    return sorted([*first, *ties[: count - len(first)]])
