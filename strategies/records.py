"""What is known about one round once it is over: the value that every sink (log, file, chart, alert) is fed with."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from strategies.privacy.spending import Spending

WORST_SHARE = 0.1
QUARTILES = ("min", "q25", "median", "q75", "max")


@dataclass(frozen=True)
class ClientScores:
    """Loss and accuracy of the global model on each client's own test part, aligned by position.

    Clients without test examples do not appear.
    """

    clients: tuple[str, ...]
    examples: tuple[int, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]

    def summary(self) -> dict[str, Any]:
        """Mean weighted by examples, deciles (0, 10, ... 100 %) and the mean of the worst 10 % of clients.

        The worst 10 % are the ceil(n / 10) clients of lowest accuracy, each counted once whatever its size.
        """
        accuracies = np.sort(np.asarray(self.accuracies, dtype=np.float64))
        worst = accuracies[: max(1, int(np.ceil(WORST_SHARE * len(accuracies))))]
        return {
            "clients": len(self.clients),
            "loss": float(np.average(self.losses, weights=self.examples)),
            "accuracy": float(np.average(self.accuracies, weights=self.examples)),
            "accuracy-deciles": [float(q) for q in np.quantile(accuracies, np.linspace(0, 1, 11))],
            "accuracy-worst-10": float(worst.mean()),
        }


@dataclass(frozen=True)
class RoundRecord:
    """One round, as measured. ``round`` counts from 1; round 0 is the evaluation of the initial weights.

    ``bytes_down`` and ``bytes_up`` are the sizes of the messages as Flower serializes them. ``uplink`` holds how many
    of them a client's update takes, the "mean" and the "largest", and what a "dense" one would; None where none came.
    Where central privacy is not to be undone by how short a codec has written single updates, ``uplink`` is None and
    ``bytes_up`` what the codec makes of as many updates of normal numbers.
    ``seconds`` maps a phase ("select", "train", "aggregate", "evaluate-federated", "evaluate-central", "total") to its
    duration in seconds.
    ``rejected`` counts the selected clients whose update did not count, by reason; ``banned`` those that could not be
    selected for what they had done before. ``repeated`` counts the clients of each reply that came again: the first
    alone is taken, so that it changes nothing else that is told here but the bytes. ``simulated_seconds`` is what the
    clock of a simulated world showed at the end of the round, None where time is real. ``staleness`` holds the "mean"
    and the "largest" number of steps that the model had made since the clients of this step began; None where all begin
    from the present model. ``privacy`` is what all rounds until this one have cost, None without privacy.
    ``checkpoint`` is the last round before this one from whose state the run could go on, None where none is kept, and
    ``failed_checkpoints`` how many in a row could not be written since. ``example_privacy`` holds the highest "epsilon"
    that DP-SGD has come to for the examples of a client until this round, and its "delta"; None where examples are not
    private.
    ``offered`` counts the clients that could be drawn. ``diversity`` is what `strategies.diversity` tells of them, None
    where clients name no groups, or privacy keeps it secret who took part. ``norms`` are the Euclidean norms of the
    updates that counted, however their clients travel; none where they are to stay private.
    """

    round: int
    selected: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    repeated: int = 0
    banned: int = 0
    skipped: bool = False
    learning_rate: float | None = None
    train: Mapping[str, float] = field(default_factory=dict)
    central: Mapping[str, float] | None = None
    federated: ClientScores | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    uplink: Mapping[str, float] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    simulated_seconds: float | None = None
    staleness: Mapping[str, float] | None = None
    privacy: Spending | None = None
    checkpoint: int | None = None
    failed_checkpoints: int = 0
    example_privacy: Mapping[str, float] | None = None
    offered: int = 0
    diversity: Mapping[str, Any] | None = None
    norms: tuple[float, ...] = ()

    def participation(self) -> float:
        """Share of the selected clients whose update counted; 1 where none was selected."""
        return len(self.accepted) / len(self.selected) if self.selected else 1.0

    def to_json(self) -> dict[str, Any]:
        """Return the record as one line of ``metrics.jsonl``: plain values with keys in kebab-case."""
        return {
            "round": self.round,
            "offered": self.offered,
            "selected": len(self.selected),
            "accepted": len(self.accepted),
            "participation": self.participation(),
            "rejected": dict(self.rejected),
            "repeated": self.repeated,
            "banned": self.banned,
            "skipped": self.skipped,
            "learning-rate": self.learning_rate,
            "train": dict(self.train),
            "central": None if self.central is None else dict(self.central),
            "federated": None if self.federated is None else self.federated.summary(),
            "bytes": {"down": self.bytes_down, "up": self.bytes_up},
            "uplink": None if self.uplink is None else dict(self.uplink),
            "seconds": dict(self.seconds),
            "simulated-seconds": self.simulated_seconds,
            "staleness": None if self.staleness is None else dict(self.staleness),
            "privacy": None if self.privacy is None else self.privacy.to_json(),
            "checkpoint": self.checkpoint,
            "failed-checkpoints": self.failed_checkpoints,
            "example-privacy": None if self.example_privacy is None else dict(self.example_privacy),
            "diversity": None if self.diversity is None else dict(self.diversity),
            "update-norms": self._quartiles,
        }

    @functools.cached_property
    def _quartiles(self) -> dict[str, float] | None:
        """How many norms there are, and their quartiles; None of none. Each sink asks, and NumPy's takes 0.1 ms."""
        if not self.norms:
            return None
        low, high = min(self.norms), max(self.norms)
        inner = statistics.quantiles(self.norms, n=4, method="inclusive") if len(self.norms) > 1 else [low] * 3
        return {"updates": len(self.norms), **dict(zip(QUARTILES, (low, *inner, high), strict=True))}
