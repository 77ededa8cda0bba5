"""Mutants: code that would break the promise, each caught by a check that the real code passes in an ordinary test.

| mutant | caught by |
|---|---|
| half the noise | the noise on a sum (by itself and in a federation); the audit |
| noise that is not scaled by the norm | the same |
| no clipping by the client | what its mod lets out |
| no clipping by the server | the sum by hand; a stock client in a federation; the bound for any update |
| clipping, on both sides, to a looser norm than the noise is for | the sum by hand; a stock client; the audit |
| layers that are clipped to the whole norm each | the bound for any update |
| weights by examples in the sum | clients of unequal numbers of examples |
| divided by who came instead of who was expected | the sum by hand; the noise on it |
| less noise where a client is lost | the noise on a sum, with dropouts |
| a fixed size accounted as Poisson | how often pairs are drawn |
| the same noise in two rounds | noise by seed and round; the same in a federation |
| adaptive clipping without splitting the noise | both releases' noise, as measured |
| a round that the ledger forgets | what the rounds cost |
| an empty round that is not released | empty rounds |
| a tree that is accounted as if a client were in one node | what a pass costs |
| a pass that the ledger forgets | the same |
| a client of local privacy that claims its noise and puts none on | what its mod lets out |
| microbatches with the noise of single examples | what an example can change |
| error feedback whose decoded sum is not clipped again | what a client adds in each of some rounds |

`run` and `audited` take a composition whose parts have been exchanged, so that the federation around a mutant is real.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, MetricRecord
from flwr.clientapp.typing import ClientAppCallable

from strategies import wire
from strategies.aggregators import Fold, WeightedMean
from strategies.composition import Composition
from strategies.layout import ModelLayout
from strategies.privacy.accounting import Release
from strategies.privacy.adaptive import AdaptiveDPFedAvg
from strategies.privacy.budget import Budget, account
from strategies.privacy.clipping import Clipping
from strategies.privacy.dp_fedavg import DPFedAvg
from strategies.privacy.dp_ftrl import DPFTRL
from strategies.privacy.local_dp import DEVIATION, TOLD
from strategies.privacy.noise import NoiseSource, derived_noise
from strategies.privacy.tree import TreeNoise
from strategies.samplers import Sampler, UniformSampler
from strategies.updates import FloatVector, State, Update
from tasks.dp_sgd import DpSgd
from tests.strategies.compression.test_mod import check_bounded
from tests.strategies.privacy.canary_federation import audited
from tests.strategies.privacy.test_adaptive import check_noise_of_both
from tests.strategies.privacy.test_budget import check_costs, check_sampling, private
from tests.strategies.privacy.test_clipping import SIZE, check_bound, check_client
from tests.strategies.privacy.test_dp_fedavg import check_noise, check_sum
from tests.strategies.privacy.test_dp_ftrl import check_passes
from tests.strategies.privacy.test_local_dp import check_mod
from tests.strategies.privacy.test_noise import check_rounds_differ
from tests.strategies.privacy.test_private_rounds import (
    LARGE,
    LOST,
    PRIVATE,
    Change,
    Clients,
    check_empty_rounds,
    check_equal_weights,
    check_round_noise,
    check_server,
    run,
    unchanged,
)
from tests.tasks.test_dp_sgd import check_sensitivity

Metrics = Sequence[Mapping[str, float]]


class HalfTheNoise(DPFedAvg):
    """Accounts for z, and puts z / 2."""

    def released(
        self, fold: Fold, clipping_norm: float, noise_multiplier: float, noise: np.random.Generator
    ) -> FloatVector:
        return super().released(fold, clipping_norm, noise_multiplier / 2, noise)


class UnscaledNoise(DPFedAvg):
    """Noise of z, whatever the norm."""

    def released(
        self, fold: Fold, clipping_norm: float, noise_multiplier: float, noise: np.random.Generator
    ) -> FloatVector:
        return super().released(fold, 1.0, noise_multiplier, noise)


class TrustingServer(DPFedAvg):
    """Takes updates as they come."""

    def clip(self, update: Update, config: Mapping[str, float], layout: ModelLayout) -> Update:
        return update


class LooseNorm(DPFedAvg):
    """Clips to ten times the norm that the noise is made for, on clients and server alike."""

    def config(self, state: State) -> dict[str, float]:
        return Clipping(10 * self.clipping_norm, self.per_layer).to_config()


class ByWhoCame(DPFedAvg):
    """Divides by the number of updates."""

    def finish(
        self, round: int, fold: Fold, metrics: Metrics, state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        delta, after = super().finish(round, fold, metrics, state, noise)
        return delta * np.float32(self.expected_clients / max(1, len(metrics))), after


class LessNoiseForFewer(DPFedAvg):
    """As if each client brought its share of the noise."""

    def finish(
        self, round: int, fold: Fold, metrics: Metrics, state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        share = math.sqrt(min(1.0, len(metrics) / self.expected_clients))
        return self.released(fold, self.clipping_norm, self.noise_multiplier * share, noise), state


class SkipsEmptyRounds(DPFedAvg):
    """Releases only what somebody has contributed to."""

    @property
    def unconditional(self) -> bool:
        return False


class SameNoise(DPFedAvg):
    """Draws from one seed in every round."""

    def finish(
        self, round: int, fold: Fold, metrics: Metrics, state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        return super().finish(round, fold, metrics, state, np.random.default_rng(1))


class UnsplitNoise(AdaptiveDPFedAvg):
    """Forgets that the bits cost privacy too."""

    @property
    def update_noise_multiplier(self) -> float:
        return self.noise_multiplier


class NoClipping(Clipping):
    """Clips nothing."""

    def clip(self, update: Update, layout: ModelLayout) -> Update:
        return update


class WholeNormPerLayer(Clipping):
    """Each of L layers to S, so that the whole may be sqrt(L) S long."""

    def clip(self, update: Update, layout: ModelLayout) -> Update:
        return Clipping(self.norm * math.sqrt(len(layout.names)), self.per_layer).clip(update, layout)


class FlatTree(TreeNoise):
    """Says that an update is in one node of a pass."""

    @property
    def sensitivity(self) -> float:
        return 1.0


class ForgetsPasses(DPFTRL):
    """Pays the first pass alone."""

    def release(self, round: int, sampler: Sampler, clients: int) -> Release | None:
        return super().release(round, sampler, clients) if round == 1 else None


class OnceTheClip(DpSgd):
    """Takes a microbatch for an example, which only comes or goes."""

    @property
    def sensitivity(self) -> float:
        return self.clip


@dataclass(frozen=True)
class LeakingWeights(WeightedMean):
    """Says that all count the same, and weighs by examples."""

    def weight_of(self, update: Update) -> float:
        return update.weight


class FixedAsPoisson(UniformSampler):
    """Draws a fixed number and has it accounted as if each had been drawn by itself."""

    @property
    def sampling(self) -> str:
        return "poisson"


def passes_through(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A client's mod that does not clip."""
    return call_next(message, context)


def claims_noise(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A client's mod of local privacy that puts no noise on, but says so."""
    reply = call_next(message, context)
    told = {key: value for key, value in wire.scalars(wire.metrics_of(reply.content)).items() if key in TOLD}
    reply.content[wire.METRICS] = MetricRecord({**told, DEVIATION: 2.0})
    return reply


def check_error_feedback(change: Change) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_bounded(Path(folder), {"codec": "top-k", "codec-share": 0.25}, "on", change)


def forgetful(
    round: int, composition: Composition, budget: Budget, ledger: State, clients: int, cohort: Collection[str]
) -> State:
    """A ledger that drops every second release."""
    return ledger if round % 2 == 0 else account(round, composition, budget, ledger, clients, cohort)


def frozen_noise(seed: int) -> NoiseSource:
    """Noise of the seed alone."""
    return lambda round: derived_noise(seed)(1)


def with_mechanism(mechanism: type[DPFedAvg]) -> Change:
    """Return what puts a mutant of DP-FedAvg, with the same settings, in its place."""

    def change(parts: Composition) -> Composition:
        assert isinstance(parts.privacy, DPFedAvg)
        return replace(parts, privacy=mechanism(**vars(parts.privacy)))

    return change


def with_leaking_weights(parts: Composition) -> Composition:
    return replace(parts, aggregator=LeakingWeights("uniform"))


def with_fixed_as_poisson() -> Composition:
    return replace(private(per_round=3), sampler=FixedAsPoisson(3))


LONG = np.arange(1, SIZE + 1, dtype=np.float32)


def check_noise_differs_from_round_to_round(change: Change) -> None:
    """Two rounds to which nobody has contributed anything release two draws, which have nothing in common."""
    options = {**PRIVATE, "noise-multiplier": 1.0}
    first, second = (run(Clients(broken=LOST), options, LARGE, rounds=n, change=change)[0] for n in (1, 2))
    drawn = np.stack([first, second - first]).astype(np.float64)
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.02


def check_audit(change: Change, noise: float = 1.0, norm: float = 1.0) -> None:
    """What 490 canaries of 500 clients, all of whom take part, prove of one round, is not more than is accounted."""
    options = {"noise-multiplier": noise, "clipping-norm": norm, "clients-per-round": 500, "selection": "poisson"}
    found = audited(options, canaries=490, size=20_000, change=change)
    assert found.proved <= found.promised


def test_the_real_code_passes_the_checks_that_are_only_here() -> None:
    check_noise_differs_from_round_to_round(unchanged)
    check_audit(unchanged)
    check_audit(unchanged, norm=5.0)


MUTANTS: dict[str, Callable[[], None]] = {
    "half the noise: by itself": lambda: check_noise(HalfTheNoise, 3),
    "half the noise: in a federation": lambda: check_round_noise(with_mechanism(HalfTheNoise)),
    "half the noise: audit": lambda: check_audit(with_mechanism(HalfTheNoise)),
    "unscaled noise: by itself": lambda: check_noise(UnscaledNoise, 3),
    "unscaled noise: in a federation": lambda: check_round_noise(with_mechanism(UnscaledNoise)),
    "unscaled noise: audit": lambda: check_audit(with_mechanism(UnscaledNoise), norm=5.0),
    "no clipping by the client": lambda: check_client(passes_through),
    "no clipping by the server: by hand": lambda: check_sum(TrustingServer),
    "no clipping by the server: a stock client": lambda: check_server(with_mechanism(TrustingServer)),
    "no clipping at all": lambda: check_bound(NoClipping, LONG, 1.0, False),
    "clipping to a looser norm: by hand": lambda: check_sum(LooseNorm),
    "clipping to a looser norm: a stock client": lambda: check_server(with_mechanism(LooseNorm)),
    "clipping to a looser norm: audit": lambda: check_audit(with_mechanism(LooseNorm), noise=2.0),
    "the whole norm for each layer": lambda: check_bound(WholeNormPerLayer, LONG, 1.0, True),
    "weights by examples": lambda: check_equal_weights(with_leaking_weights, packed=1),
    "divided by who came: by hand": lambda: check_sum(ByWhoCame),
    "divided by who came: its noise": lambda: check_noise(ByWhoCame, 3),
    "divided by who came: in a federation": lambda: check_round_noise(with_mechanism(ByWhoCame), "0246"),
    "less noise for fewer: by itself": lambda: check_noise(LessNoiseForFewer, 3),
    "less noise for fewer: in a federation": lambda: check_round_noise(with_mechanism(LessNoiseForFewer), "0246"),
    "a fixed size as Poisson": lambda: check_sampling(with_fixed_as_poisson()),
    "the same noise in two rounds: by itself": lambda: check_rounds_differ(frozen_noise),
    "the same noise in two rounds: in a federation": partial(
        check_noise_differs_from_round_to_round, with_mechanism(SameNoise)
    ),
    "adaptive clipping with unsplit noise": lambda: check_noise_of_both(UnsplitNoise),
    "a ledger that forgets": lambda: check_costs(forgetful),
    "an empty round that is skipped": lambda: check_empty_rounds(with_mechanism(SkipsEmptyRounds)),
    "a tree of one node": lambda: check_passes(DPFTRL(2, 2.0, correlated=FlatTree(4)), 2.0 / math.sqrt(3)),
    "a pass that the ledger forgets": lambda: check_passes(
        ForgetsPasses(2, 2.0, correlated=TreeNoise(4)), 2.0 / math.sqrt(3)
    ),
    "local privacy without noise": lambda: check_mod(claims_noise),
    "microbatches with half the noise": lambda: check_sensitivity(OnceTheClip),
    "error feedback that is not clipped again": lambda: check_error_feedback(with_mechanism(TrustingServer)),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_every_mutant_is_caught(mutant: str) -> None:
    with pytest.raises(AssertionError):
        MUTANTS[mutant]()
