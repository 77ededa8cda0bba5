"""Tree aggregation: noise on every prefix sum of a pass that grows with the logarithm of its length.

Dwork, Naor, Pitassi, Rothblum: "Differential Privacy Under Continual Observation", 2010, and Chan, Shi, Song: "Private
and Continual Release of Statistics", 2011; for training Kairouz et al., "Practical and Private (Deep) Learning without
Sampling or Shuffling", 2021. The steps of a pass are the leaves of a binary tree, each node has noise of its own, and
the prefix sum of t steps gets that of the nodes which cover them: one for each bit set in t. A leaf lies in at most
floor(log2 P) + 1 nodes that P steps complete, so that all nodes together cost what one sum does with noise smaller by
the square root of that.

A pass has a tree of its own ("tree restart"): what noise is in the model at the end of one stays there. Two steps
differ in few nodes: one comes in, at the level of the lowest bit set in t, and those of the levels below fall out.

`tree_aggregation.TreeAggregator` of TensorFlow Privacy, with which the tests compare, draws float32 from a generator of
its own, seeded by the clock or, for good, at the start: neither the system's entropy nor a stream for each round can be
had of it, nor float64. Honaker's variance reduction, which it has too, lowers the noise of a node by up to the square
root of two at the price of drawing all nodes; `strategies.privacy.matrix_factorization` lowers it by more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.privacy.correlated import ROUND, last_round
from strategies.updates import State


@dataclass(frozen=True)
class TreeNoise:
    """Noise of a tree over each pass of ``rounds`` rounds, in units of a node's deviation.

    Its state is the noise of the nodes that cover the pass so far, float64 [size] each, "node-LEVEL", and the last
    round: at most floor(log2 rounds) + 1 vectors.
    """

    rounds: int

    @property
    def vectors(self) -> int:
        """One for each level."""
        return self.rounds.bit_length()

    @property
    def sensitivity(self) -> float:
        """By how much a client's update of norm 1 moves all nodes of a pass, in the Euclidean norm."""
        return math.sqrt(self.rounds.bit_length())

    def deviation(self, round: int) -> float:
        """Return the root of the number of nodes that come in or fall out."""
        steps = (round - 1) % self.rounds + 1
        return math.sqrt((steps & -steps).bit_length())

    def next(
        self, round: int, size: int, state: State, noise: np.random.Generator
    ) -> tuple[npt.NDArray[np.float64], State]:
        """Return by how much a round changes the noise of the prefix sum, float64 [size], and the state after it.

        Rounds that were left out are leaves to which nobody has added anything.
        """
        last = last_round(state, round)
        now, before = self._cover(round), self._cover(last) if self._pass(last) == self._pass(round) else {}
        kept = {level: state[_name(level)] for level, node in now.items() if before.get(level) == node}
        fresh = {level: noise.standard_normal(size) for level in now if level not in kept}
        fallen = (state[_name(level)] for level in before if level not in kept)
        change = np.sum([*fresh.values(), *map(np.negative, fallen)], axis=0)
        nodes = {_name(level): node for level, node in {**kept, **fresh}.items()}
        return change, {ROUND: np.array(round), **nodes}

    def _pass(self, round: int) -> int:
        return (round - 1) // self.rounds

    def _cover(self, round: int) -> dict[int, int]:
        """Return the nodes that cover a pass up to this round, by level: the place of each among those of its level."""
        steps = (round - 1) % self.rounds + 1
        return {level: steps >> level for level in range(steps.bit_length()) if steps >> level & 1}


def _name(level: int) -> str:
    return f"node-{level}"
