"""The attacks by name, as the key 'attack' has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from app.central_evaluation import Probe
from app.config import RunConfig
from simulation.adversaries.alone import Gaussian, Honest, NotANumber, Replay, SignFlip
from simulation.adversaries.attack import Attack
from simulation.adversaries.colluding import ALittleIsEnough, Collusion, InnerProduct
from simulation.adversaries.poisoning import Backdoor, LabelFlip, ModelReplacement, Poison, triggered_test

ATTACKS: Mapping[str, Callable[..., Attack]] = {
    "sign-flip": SignFlip,
    "gaussian": Gaussian,
    "nan": NotANumber,
    "stale": Replay,
    "label-flip": Honest,
    "backdoor": ModelReplacement,
    "alie": ALittleIsEnough,
    "ipm": InnerProduct,
    "collusion": Collusion,
}
"""Those that a scale can be given take it as their only argument, and have one of their own."""

POISONS: Mapping[str, Callable[[RunConfig, int], Poison]] = {
    "label-flip": lambda config, classes: LabelFlip(classes),
    "backdoor": lambda config, classes: Backdoor(config.attack_target),
}


def attack_of(config: RunConfig) -> Attack:
    """Return what the attackers of a run do to their updates."""
    scale: tuple[Any, ...] = (config.attack_scale,) if config.attack_scale else ()
    return ATTACKS[config.attack](*scale)


def poison_of(config: RunConfig, classes: int) -> Poison | None:
    """Return what they do to their data, which have so many classes; None where they leave them."""
    return POISONS[config.attack](config, classes) if config.attack in POISONS else None


def probes_of(config: RunConfig) -> dict[str, Probe]:
    """Return what the model is tried with beside the central test set: whether it shows the backdoor."""
    return {"backdoor": partial(triggered_test, target=config.attack_target)} if config.attack == "backdoor" else {}
