"""The conditions that the clients of a simulated world live under, made from a run config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from app.compose import local_training
from app.config import RunConfig
from app.user_paths import user_path
from app.world_keys import device_classes, regions
from simulation.availability import Availability, ByChance
from simulation.devices import Devices
from simulation.draws import Crowd, Draws, Floats, Keys, uniforms
from simulation.fates import Work
from simulation.trace import read_trace
from tasks.local_training import LocalTraining

HAIR = 1e-12  # so that the share of the steps that a client does, rounded down, is all of its epochs


@dataclass(frozen=True)
class Conditions:
    """Who is online, what devices they have, what they train and how often they are lost (a probability, ``dropout``).

    ``patience`` is how many simulated seconds nobody is waited for longer; ``partial`` lets stragglers send what they
    have done. ``straggler_share`` of the clients that are asked together get only some of their epochs done.
    """

    draws: Draws
    devices: Devices = field(default_factory=Devices)
    availability: Availability = field(default_factory=ByChance)
    training: LocalTraining = field(default_factory=lambda: LocalTraining(1))
    dropout: float = 0.0
    patience: float = math.inf
    partial: bool = False
    straggler_share: float = 0.0

    @classmethod
    def of(cls, config: RunConfig) -> Conditions:
        """Read the keys; raises UserError for a trace that cannot be used."""
        draws = Draws(config.seed)
        devices = Devices(
            classes=device_classes(config.device_classes),
            regions=regions(config.regions),
            example_seconds=config.example_seconds,
            compute_spread=config.compute_spread,
            network_mbps=config.network_mbps,
            network_spread=config.network_spread,
        )
        return cls(
            draws,
            devices,
            _availability(config, draws, devices),
            local_training(config),
            config.dropout,
            config.round_timeout,
            config.stragglers == "partial",
            config.straggler_share,
        )

    def work(
        self, clients: Sequence[str], seeds: Keys, examples: Floats, moved_bytes: Floats | float, now: float
    ) -> Work:
        """Return what a request costs each client, which has so many examples and receives and sends so many bytes.

        The bytes are those of each, or one number for all. ``seeds`` [clients] are those of the request: what one drops
        out of has nothing to do with the next.
        """
        crowd = self.draws.crowd(clients)
        seen = np.array([self.training.examples_seen(own) for own in examples.tolist()])
        compute = self.devices.compute_seconds(crowd, seen)
        network = self.devices.network_seconds(crowd, moved_bytes)
        lost = self._lost(crowd, seeds, compute + network, now)
        return Work(compute, network, lost, uniforms(seeds, "rank"), self._done(seeds))

    def _done(self, seeds: Keys) -> Floats:
        """Return 1, or for stragglers e / E, with e uniform in 1, ..., E - 1 of E epochs (or steps, where set)."""
        whole = self.training.steps or self.training.epochs
        chosen = np.argsort(uniforms(seeds, "straggler"))[: round(self.straggler_share * len(seeds))]
        done = np.ones(len(seeds))
        epochs = 1 + np.floor((whole - 1) * uniforms(seeds[chosen], "straggler-epochs"))
        done[chosen] = np.minimum(1, epochs / whole * (1 + HAIR))
        return done

    def _lost(self, crowd: Crowd, seeds: Keys, total: Floats, now: float) -> Floats:
        """Return after how long each client drops out: at a moment as likely as any other of its work, or never."""
        chance = uniforms(seeds, "dropout")  # below the probability it is uniform too, and says when
        by_chance = np.where(chance < self.dropout, chance * total / (self.dropout or 1), np.inf)
        leaving = np.maximum(0.0, self.availability.leaving(crowd, now) - now)
        return np.minimum(by_chance, np.where(leaving < total, leaving, np.inf))

    def kinds(self, clients: Sequence[str]) -> Mapping[str, list[str]]:
        """Return the names of each client's device class and region, under the keys of a node's description."""
        crowd = self.draws.crowd(clients)
        kinds: dict[str, list[str]] = {}
        if self.devices.classes:
            kinds["device-class"] = [kind.name for kind in self.devices.classes_of(crowd)]
        if self.devices.regions:
            kinds["region"] = [place.name for place in self.devices.regions_of(crowd)]
        return kinds


def _availability(config: RunConfig, draws: Draws, devices: Devices) -> Availability:
    if config.availability_trace:
        return read_trace(user_path(config.availability_trace, "availability-trace"), draws)
    return ByChance(config.availability, config.day_night, devices)
