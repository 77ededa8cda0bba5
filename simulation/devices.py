"""What a client's device is like, for the whole run, and how long a piece of work takes it.

A client's compute time is (examples it goes through) x (example-seconds) x (slowness of its class) x (spread of its
own), the last log-normal with median 1; its network time is the bytes it moves over its own, log-normally spread speed.
Log-normal times per device are what was measured of phones: compute and network speeds of real devices spread over an
order of magnitude and more (Lai et al., "FedScale: Benchmarking Model and System Performance of Federated Learning at
Scale", 2022, section 3.2). There a device keeps its speed, and so it does here: the slow are always the slow, which is
what biases a deadline. Nguyen et al. ("Federated Learning with Buffered Asynchronous Aggregation", 2022, section 5) fit
a half-normal, drawn anew for each task; what ages an update there is the same long tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from app.world_keys import DeviceClass, Region
from simulation.draws import Crowd, Floats, Keys, uniforms

Kind = TypeVar("Kind", DeviceClass, Region)

NO_CLASS = DeviceClass("", 1.0, 1.0)
NO_REGION = Region("", 1.0, 0.0)
MEGABITS_PER_BYTE = 8 / 1e6


@dataclass(frozen=True)
class Devices:
    """The devices of a run. Times in simulated seconds, speeds in megabits per second, spreads are log-normal sigmas.

    ``example_seconds`` 0 makes training instant, ``network_mbps`` 0 the network.
    """

    classes: tuple[DeviceClass, ...] = ()
    regions: tuple[Region, ...] = ()
    example_seconds: float = 0.0
    compute_spread: float = 0.0
    network_mbps: float = 0.0
    network_spread: float = 0.0

    def classes_of(self, crowd: Crowd) -> list[DeviceClass]:
        """Return each client's class of device."""
        kinds = (*self.classes, NO_CLASS)
        return [kinds[index] for index in _dealt(crowd.keys, "device-class", self.classes)]

    def regions_of(self, crowd: Crowd) -> list[Region]:
        """Return each client's region."""
        places = (*self.regions, NO_REGION)
        return [places[index] for index in _dealt(crowd.keys, "region", self.regions)]

    def utc_offsets(self, crowd: Crowd) -> Floats:
        """Return the hours that each client's local time is ahead of UTC."""
        hours = np.array([region.utc_offset for region in (*self.regions, NO_REGION)])
        return np.asarray(hours[_dealt(crowd.keys, "region", self.regions)])

    def compute_seconds(self, crowd: Crowd, examples_seen: Floats) -> Floats:
        """Return how long each client takes to go through so many examples."""
        slowness = np.array([kind.slowness for kind in (*self.classes, NO_CLASS)])
        own = slowness[_dealt(crowd.keys, "device-class", self.classes)]
        usual = examples_seen * self.example_seconds
        return np.asarray(usual * own * _spread(crowd.keys, "compute", self.compute_spread))

    def network_seconds(self, crowd: Crowd, num_bytes: Floats | float) -> Floats:
        """Return how long each client takes to move so many bytes, its own or those of all, down and up together."""
        if self.network_mbps == 0:
            return np.zeros(len(crowd))
        speeds = self.network_mbps * _spread(crowd.keys, "network", self.network_spread)
        return num_bytes * MEGABITS_PER_BYTE / speeds


def _dealt(keys: Keys, purpose: str, kinds: Sequence[Kind]) -> npt.NDArray[np.int64]:
    """Return which of the kinds each client is, by their shares; ``len(kinds)`` for those beyond."""
    if not kinds:
        return np.zeros(len(keys), np.int64)
    bounds = np.array([math.fsum(kind.share for kind in kinds[: index + 1]) for index in range(len(kinds))])
    if bounds[-1] > 1 - 1e-9:  # shares such as 0.1 + 0.2 + 0.7 leave nobody out
        bounds[-1] = 1.0
    return np.searchsorted(bounds, uniforms(keys, purpose), side="right")


def _spread(keys: Keys, purpose: str, sigma: float) -> Floats:
    """Return log-normal factors with median 1."""
    if sigma == 0:
        return np.ones(len(keys))
    normal = NormalDist()
    return np.exp(sigma * np.array([normal.inv_cdf(value) for value in uniforms(keys, purpose).tolist()]))
