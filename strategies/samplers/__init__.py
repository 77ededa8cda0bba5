"""Samplers: which clients take part in a round; one file for each way to choose them.

Over-selection (Bonawitz et al., "Towards Federated Learning at Scale: System Design", 2019, section 2.2) asks more
clients than a round needs, so that it need not wait for the slowest, nor for those that drop out.
"""

from strategies.samplers.cyclic import CyclicSampler, pass_rounds
from strategies.samplers.drawing import draw, draw_independently, draw_weighted
from strategies.samplers.fixed_size import FixedSize, asked
from strategies.samplers.poisson import PoissonSampler
from strategies.samplers.power_of_choice import PowerOfChoice
from strategies.samplers.sampler import KnownSampler, Losses, Sampler, no_losses
from strategies.samplers.uniform import UniformSampler
from strategies.samplers.weighted import WeightedSampler

__all__ = [
    "CyclicSampler",
    "FixedSize",
    "KnownSampler",
    "Losses",
    "PoissonSampler",
    "PowerOfChoice",
    "Sampler",
    "UniformSampler",
    "WeightedSampler",
    "asked",
    "draw",
    "draw_independently",
    "draw_weighted",
    "no_losses",
    "pass_rounds",
]
