"""DP-FTRL: clipped updates whose *prefix sums* get noise, for populations that cannot be sampled. User-level, central.

Kairouz, McMahan, Song, Thakkar, Thakurta, Xu: "Practical and Private (Deep) Learning without Sampling or Shuffling",
ICML 2021, algorithm 1 with tree restarts, and the same with noise by banded matrix factorisation
(Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", NeurIPS 2023). With clipping norm S, noise multiplier
z, and n clients that a round is meant for, the release of a round is

    (sum of clipped updates + z S w_t) / n,

w_t being noise that is correlated over rounds (`strategies.privacy.tree`, `strategies.privacy.matrix_factorization`):
w_1 + ... + w_t, which is in the model after t rounds, is less than t independent ones are, more so in a longer pass
(benchmarks/dp_ftrl.py). So no amplification by sampling is needed, and nothing need be random or secret about who takes
part; but each client may take part once in a pass of P rounds, as cyclic selection has it. A pass is paid when it
begins: it is one Gaussian mechanism of noise multiplier z / sensitivity, the sensitivity being sqrt(floor(log2 P) + 1)
for the tree and 1 for the factorisation.

What differs from the papers: a release is the difference of two prefix sums, which any server optimizer may step along.
Plain SGD on it is the paper's FTRL; momentum is post-processing like all others, and not the paper's own variant.

The noise of a deployment cannot be had again from a seed: the state holds what later rounds need of it. As in DP-FedAvg
nothing of a release depends on who came (`strategies.privacy.dp_fedavg`); a pass is paid whoever does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from strategies.aggregators import NOTHING, Fold
from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.options import Options, flag, integer
from strategies.privacy.accounting import Release
from strategies.privacy.clipping import Clipping
from strategies.privacy.correlated import ROUND, CorrelatedNoise
from strategies.privacy.dp_fedavg import ClippedSum, common, sensitivity, total_of
from strategies.privacy.matrix_factorization import BandedNoise
from strategies.privacy.noise import mean_with
from strategies.privacy.tree import TreeNoise
from strategies.samplers import CyclicSampler, Sampler, pass_rounds
from strategies.updates import FloatVector, State

logger = logging.getLogger(__name__)

MUCH = 2**30  # bytes
GUARANTEES = Guarantees(
    gives=frozenset({Property.BOUNDED_UPDATES, Property.NODE_SUMS, Property.NOTHING_ELSE}),
    needs=frozenset({Property.LINEAR, Property.EQUAL_WEIGHTS, Property.BOUNDED_PARTICIPATION, Property.NOTHING_ELSE}),
)


@dataclass(frozen=True)
class DPFTRL(ClippedSum):
    """Clipping to ``clipping_norm`` (S), and on the sum ``noise_multiplier`` (z) times that of correlated noise."""

    per_layer: bool = False
    correlated: CorrelatedNoise = field(kw_only=True)

    @classmethod
    def by_tree(cls, options: Options) -> Self:
        """Read the keys of `DPFedAvg` and 'pass-rounds'."""
        return cls._of(options, TreeNoise(pass_rounds(options)))

    @classmethod
    def by_bands(cls, options: Options) -> Self:
        """Read the keys of `DPFedAvg`, 'pass-rounds' and 'mf-bands'."""
        return cls._of(options, BandedNoise(pass_rounds(options), integer(options, "mf-bands", 0)))

    @classmethod
    def _of(cls, options: Options, correlated: CorrelatedNoise) -> Self:
        return cls(
            *common(options),
            flag(options, "per-layer-clipping", False),
            correlated=correlated,
            noise_cohort_size=integer(options, "noise-cohort-size", 0),
        )

    @property
    def guarantees(self) -> Guarantees:
        """Those of DP-FedAvg, but of a cohort that is bounded in how often a client is in it, and not sampled."""
        return GUARANTEES

    @property
    def pass_noise_multiplier(self) -> float:
        """The noise multiplier of all that a pass releases, as one Gaussian mechanism."""
        return self.noise_multiplier / self.correlated.sensitivity

    def release(self, round: int, sampler: Sampler, clients: int) -> Release | None:
        """Return what a pass releases in its first round, and nothing in the others."""
        rounds = self.correlated.rounds
        if not isinstance(sampler, CyclicSampler) or sampler.pass_rounds != rounds:  # which the guarantees refuse
            raise StrategyError(f"Nobody knows whether {sampler} asks a client only once in a pass of {rounds} rounds.")
        return None if (round - 1) % rounds else Release("cyclic", 1.0, self.pass_noise_multiplier)

    def init(self, size: int) -> State:
        """Return no state: no noise so far. Warn where the noise to come will take much memory."""
        if (room := self.correlated.vectors * size * 8) > MUCH:
            logger.warning(
                "The noise that is remembered takes up to %.1f GB of the server's memory, and as much in a checkpoint: "
                "lower 'mf-bands' or 'pass-rounds' where that is too much.",
                room / 1e9,
            )
        return NOTHING

    def config(self, state: State) -> dict[str, float]:
        """Return the norm, and how to clip to it."""
        return Clipping(self.clipping_norm, self.per_layer).to_config()

    def told(self, state: State) -> dict[str, float]:
        """Return the norm, z, and the noise on the mean of the round to come."""
        unit = self.correlated.deviation(int(state[ROUND].item()) + 1 if state else 1)
        return self.noise_told(self.clipping_norm, unit * self.noise_multiplier)

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        """Return the sum with the noise of this round, divided by the clients that a round is meant for."""
        total = total_of(fold)
        vector, after = self.correlated.next(round, total.size, state, noise)
        deviation = self.noise_multiplier * sensitivity(self.clipping_norm, total.size) / self.scale
        return mean_with(total, vector, deviation, self.expected_clients), after
