"""The epsilon of a client's examples: published figures, what makes it larger, and the sentences about it."""

from __future__ import annotations

import math
from dataclasses import replace

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from strategies.errors import StrategyError
from strategies.privacy.accounting import ORDERS, Release
from strategies.privacy.example_level import ClientCost, ExampleLevel, ExamplePlan, costs, summary
from strategies.privacy.participations import UNTOLD
from strategies.privacy.plan import with_least_noise


def level(batch_size: int = 256, noise: float = 1.1, steps: int = 235, delta: float = 1e-5) -> ExampleLevel:
    return ExampleLevel(batch_size, noise, lambda examples: steps, delta)


@pytest.mark.parametrize(
    ("batch", "noise", "steps", "rdp", "pld"),
    [(256, 1.1, 14063, 2.597, 2.382), (256, 1.3, 3516, 0.955, 0.865), (150, 1.3, 6000, 0.7242, 0.640)],
)
def test_mnist_s_figures(batch: int, noise: float, steps: int, rdp: float, pld: float) -> None:
    """TensorFlow Privacy's tutorial on 60,000 examples, as dp-accounting 0.6 has it; the last as published."""
    found = level(batch, noise, steps).epsilons(60_000, 1)
    assert found.rdp == pytest.approx(rdp, abs=1e-3)
    assert found.pld == pytest.approx(pld, abs=1e-3)
    assert level(batch, noise, steps).epsilon({60_000: 1}) == found.rdp


def test_rounds_and_steps_are_the_same_thing() -> None:
    many, few = level(steps=100), level(steps=10)
    assert few.releases(1000, 10) == many.releases(1000, 1) == {Release("poisson", 0.256, 1.1): 100}
    assert few.epsilon({1000: 10}) == many.epsilon({1000: 1}) > few.epsilon({1000: 9})


def test_who_trains_on_all_examples_in_every_step_has_no_sampling_on_its_side() -> None:
    """Then the steps are one Gaussian mechanism: delta in closed form (Balle, Wang 2018, theorem 8)."""
    (release,) = level(noise=5.0).releases(100, 1)
    assert release == Release("none", 1.0, 5.0) and level().releases(256, 1).keys() == {Release("none", 1.0, 1.1)}
    epsilon, ratio = level(noise=5.0, steps=4).epsilons(100, 1).tightest, math.sqrt(4) / 5
    left, right = ratio / 2 - epsilon / ratio, -ratio / 2 - epsilon / ratio
    assert stats.norm.cdf(left) - math.exp(epsilon) * stats.norm.cdf(right) == pytest.approx(1e-5, rel=5e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 400), st.integers(1, 3), st.sampled_from([0.8, 1.5, 4.0]))
def test_fewer_examples_or_more_rounds_never_cost_less(examples: int, rounds: int, noise: float) -> None:
    here = level(32, noise, steps=5)
    cost = here.epsilon({examples: rounds})
    assert cost <= here.epsilon({max(1, examples // 2): rounds}) * (1 + 1e-9)
    assert cost <= here.epsilon({examples: rounds + 1})


def test_nobody_pays_without_examples_or_rounds_and_nothing_protects_without_noise() -> None:
    assert level().epsilon({0: 3}) == level().epsilon({500: 0}) == 0.0
    assert level(noise=0.0).epsilon({500: 1}) == math.inf


def test_no_number_of_examples_stands_for_one_that_is_not_told() -> None:
    """In epochs of batches of 20: the most that any number costs is not at 1, so that what is untold is without bound.

    Each number costs what dp-accounting says of its steps.
    """
    here = ExampleLevel(20, 0.4, lambda examples: math.ceil(examples / 20), 1e-5)
    found = {}
    for examples in (*range(18, 25), 41, 61, 200):
        step = dp_accounting.GaussianDpEvent(0.4)
        drawn = dp_accounting.PoissonSampledDpEvent(20 / examples, step) if examples > 20 else step
        library = dp_accounting.rdp.RdpAccountant(ORDERS).compose(drawn, 10 * math.ceil(examples / 20))
        found[examples] = here.epsilon({examples: 10})
        assert found[examples] == pytest.approx(library.get_epsilon(1e-5), rel=1e-9)
    assert max(found.values()) > 1.5 * here.epsilon({1: 10})
    for asked in ({UNTOLD: 1}, {UNTOLD: 1, 40: 3}):
        assert here.epsilon(asked) == math.inf
    assert here.epsilons(UNTOLD, 1).tightest == math.inf
    assert here.epsilon({UNTOLD: 0, 40: 3}) == here.epsilon({40: 3}) < math.inf


def test_a_client_that_tells_no_number_is_named_with_none() -> None:
    here = level()
    found = costs(here, {"a": 100, "b": UNTOLD}, {"a": {100: 3}, "b": {UNTOLD: 2}})
    assert found == [ClientCost("b", None, 2, math.inf), ClientCost("a", 100, 3, here.epsilon({100: 3}))]
    assert "(b: a number of examples that it keeps to itself, asked 2 times)" in summary(found, 1e-5)


def test_each_client_by_what_it_has_and_how_often_it_was_asked() -> None:
    here = ExampleLevel(10, 1.0, lambda examples: math.ceil(examples / 10), 1e-5)
    found = costs(here, {"a": 100, "b": 20, "c": 100}, {"a": {100: 3}, "b": {20: 3}, "gone": {7: 9}})
    assert found == [
        ClientCost("b", 20, 3, here.epsilon({20: 3})),
        ClientCost("a", 100, 3, here.epsilon({100: 3})),
        ClientCost("c", 100, 0, 0.0),
    ]
    said = summary(found, 1e-5)
    assert f"epsilon {found[0].epsilon:.4g} at delta 1e-05" in said
    assert "(b: 20 examples, asked 3 times)" in said and f"{found[1].epsilon:.4g} for the median one" in said
    assert "infinite (no privacy)" in summary(costs(replace(here, noise_multiplier=0.0), {"a": 1}, {"a": {1: 1}}), 1e-5)


def test_rounds_with_other_numbers_of_examples_are_accounted_as_they_were() -> None:
    """RDP's epsilon of both kinds of steps in one composition, by dp-accounting's own accountant."""
    here = ExampleLevel(256, 1.1, lambda examples: examples // 10, 1e-5)
    both = dp_accounting.rdp.RdpAccountant()
    for examples, rounds in ((400, 30), (40_000, 20)):
        step = dp_accounting.PoissonSampledDpEvent(256 / examples, dp_accounting.GaussianDpEvent(1.1))
        both.compose(step, rounds * (examples // 10))
    (cost,) = costs(here, {"a": 40_000}, {"a": {400: 30, 40_000: 20}})
    assert (cost.examples, cost.participations) == (40_000, 50)
    assert cost.epsilon == pytest.approx(both.get_epsilon(1e-5), rel=1e-3)
    assert cost.epsilon > here.epsilon({40_000: 50})


def test_the_least_noise_of_a_plan_keeps_to_its_epsilon() -> None:
    plan = ExamplePlan(level(32, 1.0, steps=19), 600, 20)
    noise = with_least_noise(plan.steps, 3.0).noise_multiplier
    assert plan.with_noise(noise).after(20).tightest <= 3.0 < plan.with_noise(noise - 0.01).after(20).tightest
    whole = ExamplePlan(level(32, 1.0, steps=19), 20, 2)  # batches hold all of them
    assert whole.steps.sampling == "none" and whole.steps.after(38) == whole.after(2)


def test_the_sentence_names_unit_delta_and_assumption() -> None:
    plan = ExamplePlan(level(32), 600, 20)
    said = plan.meaning(2.5)
    for part in ("Example-level", "epsilon 2.5 and delta 1e-05", "600 examples", "20 rounds", "probability 0.05333"):
        assert part in said
    assert "takes all examples" in ExamplePlan(level(32), 32, 1).meaning(2.5)
    assert plan.meaning(math.inf).startswith("No privacy of examples")
    assert list(plan.warnings()) == []
    weak = ExamplePlan(level(32, noise=0.0, delta=0.01), 600, 20)
    assert ["No privacy of examples" in weak.meaning(math.inf), *("0.01" in one for one in weak.warnings())] == [
        *(True, False, True)
    ]


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"delta": 1.0}, {"delta": 0.0}, {"noise": -1.0}])
def test_what_is_no_mechanism(bad: dict[str, float]) -> None:
    with pytest.raises(StrategyError, match="The key '"):
        level(**bad).epsilon({100: 1})  # type: ignore[arg-type]
    with pytest.raises(StrategyError, match="one of each at least"):
        ExamplePlan(level(), 0, 1)
