"""Who attacks: a fixed share of the clients, drawn from the seed, the same in every round and every process."""

from __future__ import annotations

import functools
import math

import numpy as np

from app.compose import data_spec
from app.config import RunConfig
from app.errors import UserError
from simulation.draws import Draws, uniforms
from tasks.datasets import kept_data

ROUNDING = 1e-9  # 0.29 * 100 lies a rounding below 29


@functools.lru_cache(maxsize=8)
def attackers_of(config: RunConfig) -> tuple[str, ...]:
    """Return the ids of the attackers, sorted: floor('attackers' x clients) of them, nobody without an attack.

    With a larger share, the attackers of a smaller one are among them. Raises UserError where the share is nobody, or
    the data lack the class that a backdoor aims at.
    """
    if config.attack == "none" or config.attackers == 0:
        return ()
    data = kept_data(data_spec(config))
    clients = data.client_ids
    number = math.floor(config.attackers * len(clients) + ROUNDING)
    if number == 0:
        raise UserError(
            f"The key 'attackers' is {config.attackers:g}, but of {len(clients)} clients that is nobody: raise it to "
            f"{math.ceil(1e4 / len(clients)) / 1e4:g} at least, or set 'attack' to 'none'."
        )
    if config.attack_target >= data.num_classes:
        raise UserError(
            f"The key 'attack-target' is {config.attack_target}, but the data set '{config.dataset}' has the classes 0 "
            f"to {data.num_classes - 1}: set it to one of them."
        )
    order = np.argsort(uniforms(Draws(config.seed).crowd(clients).keys, "attacker"), kind="stable")
    return tuple(sorted(clients[place] for place in order[:number]))
