"""Who is online at a simulated time: by chance, by the time of day where a client lives, or by a recorded trace.

Time 0 is midnight UTC; times are in simulated seconds since then.

Phones train while they charge on an unmetered network, which is at night: Bonawitz et al., "Towards Federated Learning
at Scale: System Design", 2019, section 9, found four times as many devices at night as by day in a population of one
region. So the probability of being online follows the local hour h as a cosine with its top at 2 o'clock in the night,
where it is ``availability``, and its bottom at 14 o'clock, where it is ``availability x (1 - day_night)``; 0.75 gives
the four times of that paper.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from simulation.devices import Devices
from simulation.draws import Crowd, Flags, Floats, uniforms

SLOT_SECONDS = 600.0  # how long a client that is online by chance stays so; it is drawn anew for every slot
NIGHT_HOUR = 2.0
HOUR, DAY = 3600.0, 86400.0
HORIZON_SLOTS = int(366 * DAY / SLOT_SECONDS)


class Availability(Protocol):
    """Who is online, and until when. The answers do not depend on what was asked before."""

    def online(self, crowd: Crowd, now: float) -> Flags:
        """Tell of each client whether it is online now."""

    def leaving(self, crowd: Crowd, now: float) -> Floats:
        """Return when each client that is online now will go; infinite where that is not known ahead."""

    def next_online(self, crowd: Crowd, now: float) -> float | None:
        """Return the first time from now on at which one of them is online, None if there is none."""


@dataclass(frozen=True)
class ByChance:
    """Each client is online with a probability, drawn anew for every slot of 10 minutes."""

    availability: float = 1.0
    day_night: float = 0.0
    devices: Devices = field(default_factory=Devices)

    def probability(self, crowd: Crowd, now: float) -> Floats:
        """Return each client's probability of being online in the slot that holds this time."""
        if self.day_night == 0:
            return np.full(len(crowd), self.availability)
        hour = _slot(now) * SLOT_SECONDS / HOUR + self.devices.utc_offsets(crowd)
        away_from_night = (1 - np.cos(2 * np.pi * (hour - NIGHT_HOUR) / 24)) / 2
        return self.availability * (1 - self.day_night * away_from_night)

    def online(self, crowd: Crowd, now: float) -> Flags:
        """Tell of each client whether it is online now."""
        if self.availability == 1 and self.day_night == 0:
            return np.ones(len(crowd), np.bool_)
        return uniforms(crowd.keys, "online", _slot(now)) < self.probability(crowd, now)

    def leaving(self, crowd: Crowd, now: float) -> Floats:
        """Return infinity: a slot's end is a new draw and not the end of a stay. Who goes is the key 'dropout'."""
        return np.full(len(crowd), np.inf)

    def next_online(self, crowd: Crowd, now: float) -> float | None:
        """Return now, or the start of the first slot with somebody online; None where a year has none."""
        first = _slot(now)
        for slot in range(first, first + HORIZON_SLOTS):
            time = max(now, slot * SLOT_SECONDS)
            if self.online(crowd, time).any():
                return time
        return None


def _slot(now: float) -> int:
    return int(now // SLOT_SECONDS)
