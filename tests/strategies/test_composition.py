"""The parts: the identities, the seams with small fakes as later parts will fill them, and refused combinations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest

from strategies.aggregators import NOTHING, Fold, LinearFold, WeightedMean
from strategies.composition import GIVERS, Composition, Dense, NoPrivacy, Privacy
from strategies.errors import StrategyError
from strategies.guarantees import Guarantees, Property
from strategies.layout import ModelLayout
from strategies.options import Option
from strategies.samplers import UniformSampler
from strategies.server_optimizers import ServerSGD
from strategies.updates import AnyArray, FloatVector, PartialSum, State, Update

A = Update("a", np.array([3, 0, 4], dtype=np.float32), 10)
LAYOUT = ModelLayout(("w",), ((3,),), ("float32",))
B = Update("b", np.array([0, 1, 0], dtype=np.float32), 30)


@dataclass(frozen=True)
class Median:
    """A rule that needs single updates."""

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(needs=frozenset({Property.SINGLE_UPDATES}))

    def weight_of(self, update: Update) -> float:
        return 1.0

    def shortfall(self, updates: int) -> str:
        return ""

    def init(self, size: int) -> State:
        return {}

    def start(self, size: int, state: State = NOTHING) -> Fold:
        return MedianFold([])


@dataclass
class MedianFold:
    deltas: list[FloatVector]

    def add(self, update: Update) -> None:
        self.deltas.append(update.delta)

    def merge(self, partial: PartialSum) -> None:
        raise StrategyError("A median needs single updates.")

    def result(self) -> FloatVector:
        return np.median(self.deltas, axis=0).astype(np.float32)

    def state(self) -> State:
        return {}


@dataclass(frozen=True)
class Masks(Dense):
    """A codec under which the server sees only sums."""

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(needs=frozenset({Property.LINEAR}))


@dataclass(frozen=True)
class LocalSums(NoPrivacy):
    """A privacy part that hides single updates although the codec would show them."""

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(takes=frozenset({Property.SINGLE_UPDATES}))


@dataclass(frozen=True)
class Half:
    """A lossy codec: float16."""

    unbiased: bool = False
    settings: Mapping[str, Option] = field(default_factory=dict)

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(gives=frozenset({Property.SINGLE_UPDATES}))

    def encode(self, delta: FloatVector, seed: int, round_seed: int) -> AnyArray:
        return delta.astype(np.float16)

    def decode(self, payload: AnyArray, size: int, round_seed: int) -> FloatVector:
        return payload.astype(np.float32)


@dataclass(frozen=True)
class CountingDP(NoPrivacy):
    """DP's shape: clips to a norm kept in the state, divides the exact sum by the expected cohort, counts rounds."""

    expected: int = 4

    @property
    def guarantees(self) -> Guarantees:
        return Guarantees(
            gives=frozenset({Property.BOUNDED_UPDATES}),
            needs=frozenset({Property.LINEAR, Property.EQUAL_WEIGHTS}),
        )

    def init(self, size: int) -> State:
        return {"clip": np.array(2.5), "rounds": np.array(0)}

    def config(self, state: State) -> dict[str, float]:
        return {"clip": float(state["clip"])}  # type: ignore[arg-type]

    def clip(self, update: Update, config: Mapping[str, float], layout: ModelLayout) -> Update:
        norm = float(np.linalg.norm(update.delta))
        return replace(update, delta=update.delta * np.float32(min(1.0, config["clip"] / max(norm, 1e-12))))

    def finish(
        self, round: int, fold: Fold, metrics: Sequence[Mapping[str, float]], state: State, noise: np.random.Generator
    ) -> tuple[FloatVector, State]:
        assert isinstance(fold, LinearFold)
        return fold.total.divided_by(self.expected), {**state, "rounds": state["rounds"] + 1}  # type: ignore[operator]


def composed(**parts: object) -> Composition:
    defaults = {
        "name": "test",
        "sampler": UniformSampler(),
        "codec": Dense(),
        "aggregator": WeightedMean(),
        "privacy": NoPrivacy(),
        "server_optimizer": ServerSGD(),
    }
    return Composition(**{**defaults, **parts})  # type: ignore[arg-type]


def one_round(strategy: Composition, *updates: Update) -> tuple[FloatVector, State]:
    """The order of calls that the docstring of the module promises."""
    state = strategy.privacy.init(3)
    config = strategy.privacy.config(state)
    fold = strategy.aggregator.start(3)
    for update in updates:
        payload = strategy.codec.encode(strategy.privacy.clip(update, config, LAYOUT).delta, 0, 0)
        received = replace(update, delta=strategy.codec.decode(payload, 3, 0))
        fold.add(strategy.privacy.clip(received, config, LAYOUT))
    delta, state = strategy.privacy.finish(1, fold, [], state, np.random.default_rng(0))
    weights, _ = strategy.server_optimizer.step(np.zeros(3, dtype=np.float32), delta, strategy.server_optimizer.init(3))
    return weights, state


def test_fedavg_is_the_identity_around_the_mean() -> None:
    assert one_round(composed(), A, B)[0].tolist() == [0.75, 0.75, 1.0]


def test_a_rank_based_rule_fits_the_same_seam() -> None:
    strategy = composed(aggregator=Median())
    assert one_round(strategy, A, B, B)[0].tolist() == [0.0, 1.0, 0.0]
    assert not strategy.takes_partial_sums
    assert composed().takes_partial_sums


def test_a_lossy_codec_fits_the_same_seam() -> None:
    tenth = replace(B, delta=np.full(3, 0.1, dtype=np.float32))
    assert one_round(composed(codec=Half()), tenth)[0].tolist() == [float(np.float16(0.1))] * 3


def test_differential_privacy_fits_the_same_seam() -> None:
    strategy = composed(aggregator=WeightedMean("uniform"), privacy=CountingDP())
    weights, state = one_round(strategy, A, B)
    # A is clipped from norm 5 to 2.5; both are divided by the expected 4 clients, not by the 2 that came.
    assert weights.tolist() == [0.375, 0.25, 0.5]
    assert state["rounds"] == 1


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (
            {"aggregator": Median(), "codec": Masks()},
            "The strategy 'test' cannot combine Masks with Median: Masks needs an aggregate that is a weighted sum of "
            "the updates, so that partial sums are enough, which Median does not give; set the keys 'strategy', "
            "'aggregator', 'zeroing' and 'clipping' so that the mean is taken.",
        ),
        (
            {"aggregator": Median(), "privacy": LocalSums()},
            "The strategy 'test' cannot combine Median with LocalSums: Median needs every client's own update in the "
            "clear on the server, which LocalSums takes away; change the key 'strategy'.",
        ),
        (
            {"aggregator": WeightedMean("examples"), "privacy": CountingDP()},
            "The strategy 'test' cannot combine CountingDP with WeightedMean: CountingDP needs every client to count "
            "the same, whatever it claims, which WeightedMean does not give; set the key 'weighting' to 'uniform'.",
        ),
    ],
)
def test_unsound_combinations_are_refused_with_a_sentence(parts: dict[str, object], sentence: str) -> None:
    with pytest.raises(StrategyError) as caught:
        composed(**parts)
    assert str(caught.value) == sentence


def test_each_property_has_a_part_that_is_to_give_it() -> None:
    assert set(GIVERS) == set(Property)
    assert set(GIVERS.values()) <= {field.name for field in fields(Composition)}


def test_masks_under_a_mean_and_dp_with_equal_weights_are_fine() -> None:
    composed(codec=Masks())
    composed(privacy=LocalSums())
    composed(codec=Masks(), privacy=CountingDP(), aggregator=WeightedMean("uniform"))


def test_the_identities_satisfy_their_protocols() -> None:
    privacy: Privacy = NoPrivacy()
    assert privacy.guarantees == Guarantees(gives=frozenset({Property.NODE_SUMS}))
    assert privacy.clip(A, privacy.config(privacy.init(3)), LAYOUT) is A
    assert not privacy.unconditional
