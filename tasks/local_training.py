"""How much a client trains, and with which optimizer. Knows no TensorFlow, so that a simulated world can ask it too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tasks.dp_sgd import DpSgd
from tasks.errors import TaskError


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains. The learning rate comes with each call, so that it can follow a schedule over the rounds.

    ``steps`` > 0 means exactly so many steps, through as many epochs as that takes; 0 means ``epochs`` epochs. Clients
    with fewer than ``full_training_examples`` examples do proportionally fewer epochs (or steps), at least one. With
    ``dp_sgd`` the training is differentially private for each example: as many steps, in batches drawn anew each time,
    of ``batch_size`` examples on average.
    """

    batch_size: int
    epochs: int = 1
    steps: int = 0
    optimizer: str = "sgd"
    optimizer_args: str = ""
    full_training_examples: int = 0
    dp_sgd: DpSgd | None = None

    def __post_init__(self) -> None:
        for key, value, least in (
            ("batch-size", self.batch_size, 1),
            ("local-epochs", self.epochs, 1),
            ("local-steps", self.steps, 0),
            ("full-training-examples", self.full_training_examples, 0),
        ):
            if value < least:
                raise TaskError(f"{key}={value} is too small: it must be at least {least}.")

    def steps_for(self, num_examples: float) -> int:
        """Return how many steps a client with so many examples does."""
        share = min(1.0, num_examples / self.full_training_examples) if self.full_training_examples else 1.0
        if self.steps:
            return max(1, round(self.steps * share))
        return max(1, round(self.epochs * share)) * self._steps_per_epoch(num_examples)

    def examples_seen(self, num_examples: float) -> float:
        """Return how many examples a client with so many goes through: its steps x a step's average."""
        return self.steps_for(num_examples) * num_examples / max(1, self._steps_per_epoch(num_examples))

    def _steps_per_epoch(self, num_examples: float) -> int:
        return math.ceil(num_examples / self.batch_size)
